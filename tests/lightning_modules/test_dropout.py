"""Dropout while training: none by default, the model's own where asked for, and as it was afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from estudio_core.clickstream.ranking_data import RankingData
from estudio_core.errors import ConfigurationError
from estudio_core.models.embedding_model import EmbeddingModel
from lightning_modules.config import TrainingConfig
from lightning_modules.dropout import dropout_of
from lightning_modules.fit import fit

NewModel = Callable[[], EmbeddingModel]


def chances(model: nn.Module) -> set[float]:
    return {module.p for module in model.modules() if isinstance(module, nn.Dropout)}


def random_share(model: EmbeddingModel) -> float:
    """Return how far two passes over the same text in training mode are apart."""
    model.train()
    ids = torch.tensor([[2, 4, 5, 6, 3]])
    first, second = (model(ids, torch.ones_like(ids)).detach() for _ in range(2))
    return float((first - second).abs().max())


def test_the_chance_holds_inside_the_block_also_in_attention_and_ends_with_it(new_model: NewModel) -> None:
    model = new_model()
    with dropout_of(model, 0.0):
        assert (chances(model), random_share(model)) == ({0.0}, 0.0)
    assert chances(model) == {0.1}
    with dropout_of(model, None):
        assert random_share(model) > 0
    with dropout_of(model, 0.5):
        assert chances(model) == {0.5}


def test_training_has_none_unless_asked_for(new_model: NewModel, ranking_data: RankingData) -> None:
    def seen(**given: object) -> set[float]:
        model = new_model()
        found: list[set[float]] = []
        config = TrainingConfig(num_epochs=1, batch_size=12, num_fixed_layers=1, precision="32", **given)
        fit(model, ranking_data, config, on_metrics=lambda *_: found.append(chances(model)))
        assert chances(model) == {0.1}, "it is the model's again"
        return set.union(*found)

    assert seen() == {0.0}
    assert seen(dropout=None) == {0.1}
    assert seen(dropout=0.3) == {0.3}


@pytest.mark.parametrize("chance", [-0.1, 1.0, float("nan")])
def test_what_is_no_chance_is_refused(chance: float) -> None:
    with pytest.raises(ConfigurationError, match="dropout = "):
        TrainingConfig(dropout=chance)


def test_attention_that_keeps_its_chance_as_a_number_is_reached_too() -> None:
    attention = nn.Module()
    attention.attention_dropout = 0.2
    with dropout_of(nn.Sequential(nn.Sequential(attention)), 0.0):
        assert attention.attention_dropout == 0.0
    assert attention.attention_dropout == 0.2
