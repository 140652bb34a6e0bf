from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from estudio_core.clickstream.ranking_data import ItemsSet, RankingData
from estudio_core.errors import ConfigurationError
from estudio_core.models.embedding_model import EmbeddingModel
from lightning_modules.batches import BatchBuilder
from lightning_modules.config import TrainingConfig
from lightning_modules.fit import fit
from lightning_modules.mining import mine_negatives
from lightning_modules.text_bank import TextBank

from .conftest import session

NewModel = Callable[[], EmbeddingModel]


def test_the_nearest_objects_that_are_not_excluded_are_mined(new_model: NewModel) -> None:
    items = ItemsSet({"a": ["red lamp"], "b": ["blue lamp"], "c": ["rug"], "d": ["vase", "old vase"]})
    sessions = [session("1", "lamp", ["a", "b"], [1, 0]), session("2", "rug", ["c", "d"], [1, 0])]
    bank = TextBank(new_model(), sessions, items)
    angles = torch.tensor([0.0, 90.0, 5.0, 10.0, 30.0, 80.0, 20.0]) * math.pi / 180  # lamp, rug, a, b, c, d's two parts
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    excluded = {"lamp": {"a", "b"}, "rug": {"c", "d"}}
    assert mine_negatives(vectors, bank, excluded, 2, TrainingConfig()) == {"lamp": ["d", "c"], "rug": ["b", "a"]}
    assert mine_negatives(vectors, bank, excluded, 1, TrainingConfig()) == {"lamp": ["d"], "rug": ["b"]}
    assert mine_negatives(vectors, bank, {"lamp": set("abcd")}, 3, TrainingConfig()) == {"lamp": []}


def test_mined_objects_join_the_batch_as_negatives(new_model: NewModel) -> None:
    items = ItemsSet({"a": ["red lamp"], "b": ["blue lamp"], "c": ["rug"]})
    sessions = [session("1", "lamp", ["a", "b"], [1, 0]), session("2", "rug", ["c"], [1])]
    builder = BatchBuilder(TextBank(new_model(), sessions, items), sessions, TrainingConfig())
    builder.mined = {"lamp": ["c"]}
    batch = builder.build(sessions[:1], 0)
    assert batch.clicked.tolist() == [[True, False, False]]
    assert batch.negatives.tolist() == [[False, True, False]]
    assert batch.batch_negatives.tolist() == [[False, False, True]]


def test_training_with_mined_negatives_differs_and_learns(new_model: NewModel, ranking_data: RankingData) -> None:
    quick = {"num_epochs": 3, "batch_size": 12, "learning_rate": 5e-3, "num_fixed_layers": 1, "precision": "32"}
    plain, mined = (fit(new_model(), ranking_data, TrainingConfig(**quick, mined_negatives=n)) for n in (0, 4))
    assert mined.tokens > plain.tokens
    assert mined.metrics["test_quality"] > mined.history[0][1]["test_quality"]


def test_mining_without_in_batch_negatives_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="mined_negatives"):
        TrainingConfig(mined_negatives=2, in_batch_negatives=False)
