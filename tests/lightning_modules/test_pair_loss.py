"""A loss needs `forward` over similarities, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from estudio_core.clickstream.ranking_data import RankingData
from estudio_core.errors import ConfigurationError
from estudio_core.models.embedding_model import EmbeddingModel
from lightning_modules.config import TrainingConfig
from lightning_modules.fit import fit
from lightning_modules.losses import CosineProbMarginRankingLoss
from lightning_modules.losses.pair_loss import PairLossCall, configured, inputs_of, loss_values

from .conftest import QUICK


class FromElsewhere(nn.Module):
    """A hinge over two similarities, as a library might have it."""

    def forward(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Return the mean hinge."""
        return (0.3 - positive + negative).clamp_min(0).mean()


SEEN: list[tuple[bool, float]] = []


class WithWeights(nn.Module):
    """A loss that asks for the evidence and for the course of training."""

    def forward(self, positive: Tensor, negative: Tensor, *, confidences: Tensor, done: float) -> Tensor:
        """Return the weighted mean of differences."""
        SEEN.append((positive.requires_grad, done))
        return ((negative - positive) * confidences).mean()


def test_any_module_over_similarities_trains(
    new_model: Callable[[], EmbeddingModel], ranking_data: RankingData, caplog: pytest.LogCaptureFixture
) -> None:
    result = fit(new_model(), ranking_data, TrainingConfig(**QUICK), loss=FromElsewhere())
    assert result.metrics["test_ndcg@10"] > result.history[0][1]["test_ndcg@10"]
    assert "FromElsewhere.forward takes no `confidences`" in caplog.text


def test_a_loss_is_given_what_its_forward_names(
    new_model: Callable[[], EmbeddingModel], ranking_data: RankingData
) -> None:
    SEEN.clear()
    assert inputs_of(WithWeights()) == ("confidences", "done")
    fit(new_model(), ranking_data, TrainingConfig(**QUICK), loss=WithWeights())
    course = [done for training, done in SEEN if training]
    assert course == sorted(course)
    assert course[0] == 0 < course[-1] < 1
    assert {done for training, done in SEEN if not training} == {1.0}  # one yardstick for all validations


def test_what_the_configuration_gives_a_loss_that_cannot_take_it_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"FromElsewhere cannot be given margin, scale"):
        configured(FromElsewhere(), TrainingConfig(margin=0.1, scale=3))
    with pytest.raises(ConfigurationError, match=r"hard or soft pairs.*FromElsewhere has no method margin_at"):
        configured(FromElsewhere(), TrainingConfig(examples_order=[2, 11]))
    assert isinstance(configured(FromElsewhere(), TrainingConfig(examples_order=[10, 11])), FromElsewhere)


def test_the_values_of_a_configuration_reach_the_loss_and_leave_the_given_one_alone() -> None:
    given = CosineProbMarginRankingLoss()
    config = TrainingConfig(margin=0.1, loss_form="sigmoid", scale=400, shift=6, hardness_temperature=0.2)
    loss = configured(given, config)
    assert (loss.margin, loss.form, loss.scale, loss.shift, loss.temperature) == (0.1, "sigmoid", 400.0, 6.0, 0.2)
    assert (given.margin, given.form, given.scale) == (0.2, "softplus", 20.0)
    assert loss_values(given)["margin"] == 0.2


def test_a_forward_that_asks_for_what_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"asks for 'target'"):
        inputs_of(nn.MarginRankingLoss())

    class Lonely(nn.Module):
        def forward(self, similarity: Tensor) -> Tensor:
            return similarity.mean()

    with pytest.raises(ConfigurationError, match="has to take the similarities positive and negative"):
        inputs_of(Lonely())

    class Open(nn.Module):
        def forward(self, positive: Tensor, negative: Tensor, target: Tensor, **inputs: object) -> Tensor:
            return (positive - negative - target).mean()

    with pytest.raises(ConfigurationError, match=r"asks for 'target'"):
        inputs_of(Open())


class Learned(CosineProbMarginRankingLoss):
    """A loss with a tensor of its own, and a parameter that is trained."""

    def __init__(self, base_margin: float = 0.2) -> None:
        super().__init__(base_margin)
        self.register_buffer("factor", torch.tensor(2.0))
        self.offset = nn.Parameter(torch.tensor(0.3))

    def forward(self, positive: Tensor, negative: Tensor, *rest: Any, **inputs: Any) -> Tensor:
        """Return the loss, scaled and shifted."""
        LEARNED.append(float(self.offset))
        return super().forward(positive, negative, *rest, **inputs) * self.factor + self.offset**2


LEARNED: list[float] = []


def test_a_loss_keeps_its_tensors_and_its_parameters_are_trained(
    new_model: Callable[[], EmbeddingModel], ranking_data: RankingData
) -> None:
    LEARNED.clear()
    given = Learned()
    fit(new_model(), ranking_data, TrainingConfig(**QUICK, margin=0.1), loss=given)
    assert LEARNED[-1] < LEARNED[0] == pytest.approx(0.3)
    assert float(given.offset) == pytest.approx(0.3)


def test_a_batch_without_pairs_has_no_loss() -> None:
    empty = torch.zeros(0, requires_grad=True)
    value = PairLossCall(FromElsewhere())(empty, empty, {})
    value.backward()
    assert value.item() == 0


@pytest.mark.e2e
def test_a_loss_that_no_other_process_could_import_trains_on_two_devices(
    new_model: Callable[[], EmbeddingModel], ranking_data: RankingData
) -> None:
    class Local(nn.Module):
        def forward(self, positive: Tensor, negative: Tensor, confidences: Tensor) -> Tensor:
            return ((negative - positive) * confidences).mean()

    result = fit(new_model(), ranking_data, TrainingConfig(**QUICK, max_steps=2, devices=2), loss=Local())
    assert result.steps == 2


def test_a_loss_that_returns_one_value_per_pair_is_refused(
    new_model: Callable[[], EmbeddingModel], ranking_data: RankingData
) -> None:
    class PerPair(nn.Module):
        def forward(self, positive: Tensor, negative: Tensor) -> Tensor:
            return torch.sigmoid(negative - positive)

    with pytest.raises(ConfigurationError, match=r"PerPair returns \[\d+\]; a scalar is needed"):
        fit(new_model(), ranking_data, TrainingConfig(**QUICK), loss=PerPair())
