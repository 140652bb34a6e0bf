"""Vectors before training: of what is looked at, and no others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

import lightning_modules.fit as training
from estudio_core.clickstream.ranking_data import RankingData
from lightning_modules import dev_evaluation
from lightning_modules.base_vectors import BaseVectors
from lightning_modules.config import TrainingConfig

from .test_fit import QUICK, NewModel, weights


def test_each_text_is_encoded_once_and_none_after_the_weights_have_changed() -> None:
    asked: list[list[int]] = []

    def encode(rows: Sequence[int]) -> torch.Tensor:
        asked.append(list(rows))
        return torch.tensor([[float(row), 1.0] for row in rows])

    vectors = BaseVectors(encode, texts=9)
    vectors.add([7, 3, 7])
    assert vectors[[3, 5, 7, 3]][:, 0].tolist() == [3, 5, 7, 3]
    vectors.seal()
    assert vectors[[5, 3]][:, 0].tolist() == [5, 3]
    assert asked == [[7, 3], [5]]
    assert len(vectors) == 3
    with pytest.raises(LookupError, match="1 texts were not encoded before training began, the first of row 8"):
        vectors[[3, 8]]


@pytest.mark.parametrize("more", [{}, {"drift_penalty": 0.1, "false_negative_guard": 0.0}])
def test_a_training_shorter_than_an_epoch_encodes_only_what_it_looks_at(
    new_model: NewModel, ranking_data: RankingData, monkeypatch: pytest.MonkeyPatch, more: dict[str, float]
) -> None:
    """What is spared changes nothing."""
    monkeypatch.setattr(dev_evaluation, "_POOL_OBJECTS", 1)
    train_only = RankingData({"train": ranking_data.splits["train"], "dev": []}, ranking_data.items)
    config = TrainingConfig(**QUICK | {"max_steps": 2, "batch_size": 4} | more)
    known = _noted_at_seal(monkeypatch)
    spared, whole = new_model(), new_model()
    assert training.fit(spared, train_only, config).steps == 2
    monkeypatch.setattr(training, "rows_of_training", lambda batches, texts, steps, config: list(range(texts)))
    training.fit(whole, train_only, config)
    assert 0 < known[0] < known[1]
    # Other batches are rounded otherwise, 1.5e-6 on a CPU with AVX2 only; a step of Adam moves weights by 5e-3.
    for name, weight in weights(whole).items():
        torch.testing.assert_close(weights(spared)[name], weight, atol=1e-5, rtol=0)


@pytest.mark.parametrize("more", [{}, {"mined_negatives": 1}])
def test_a_whole_epoch_and_mining_look_at_all_texts(
    new_model: NewModel, ranking_data: RankingData, monkeypatch: pytest.MonkeyPatch, more: dict[str, int]
) -> None:
    known = _noted_at_seal(monkeypatch)
    steps = {"max_steps": 1} if more else {"max_steps": None, "num_epochs": 1}
    training.fit(new_model(), ranking_data, TrainingConfig(**QUICK | steps | more))
    texts = {s.query for split in ("train", "dev") for s in ranking_data.splits[split]}
    assert known[0] >= len(ranking_data.items) + len(texts)


def _noted_at_seal(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that will hold, for each training, how many texts were encoded before it began."""
    known: list[int] = []
    seal = BaseVectors.seal

    def noted(self: BaseVectors) -> None:
        known.append(len(self))
        seal(self)

    monkeypatch.setattr(BaseVectors, "seal", noted)
    return known
