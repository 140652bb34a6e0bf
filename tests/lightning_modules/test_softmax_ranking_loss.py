from __future__ import annotations

import math

import pytest
import torch

from estudio_core.errors import ConfigurationError
from lightning_modules.config import TrainingConfig
from lightning_modules.losses import CosineProbMarginRankingLoss, SoftmaxRankingLoss, default_loss
from lightning_modules.losses.pair_loss import configured, inputs_of
from lightning_modules.losses.softmax_ranking_loss import softmax_ranking_loss


def test_it_is_the_cross_entropy_of_each_clicked_item_among_its_own_negatives() -> None:
    scores = {0: (0.6, [0.5, 0.1, -0.9]), 1: (0.2, [0.7])}
    expected = 0.0
    for clicked, others in scores.values():
        logits = torch.tensor([clicked, *others]).double() / 0.1
        expected += torch.nn.functional.cross_entropy(logits[None], torch.tensor([0])).item() / 2
    pairs = [(index, clicked, other) for index, (clicked, others) in scores.items() for other in others]
    index, positive, negative = (torch.tensor(values) for values in zip(*pairs, strict=True))
    found = softmax_ranking_loss(positive, negative, temperature=0.1, positive_index=index)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_a_negative_counts_as_often_as_it_is_sure() -> None:
    twice = softmax_ranking_loss(torch.tensor([0.5, 0.5]), torch.tensor([0.4, 0.4]))
    sure = softmax_ranking_loss(torch.tensor([0.5]), torch.tensor([0.4]), skip_confidences=torch.tensor([2.0]))
    assert sure.item() == pytest.approx(twice.item())
    doubted = torch.tensor([0.4, 0.9], requires_grad=True)
    softmax_ranking_loss(torch.tensor([0.5, 0.5]), doubted, skip_confidences=torch.tensor([1.0, 0.0])).backward()
    assert doubted.grad is not None
    assert doubted.grad[1] == 0
    assert doubted.grad[0] > 0


def test_clicked_items_count_by_their_weight() -> None:
    positive, negative, index = torch.tensor([0.5, 0.1]), torch.tensor([0.4, 0.4]), torch.tensor([0, 1])
    first = softmax_ranking_loss(positive[:1], negative[:1]).item()
    second = softmax_ranking_loss(positive[1:], negative[1:]).item()
    weights = torch.tensor([3.0, 1.0])
    found = softmax_ranking_loss(positive, negative, click_weights=weights, positive_index=index)
    assert found.item() == pytest.approx((3 * first + second) / 4)


def test_far_apart_scores_stay_finite() -> None:
    positive = torch.tensor([-1.0, 1.0], requires_grad=True)
    found = softmax_ranking_loss(positive, torch.tensor([1.0, -1.0]), temperature=1e-3, positive_index=torch.arange(2))
    found.backward()
    assert found.item() == pytest.approx(1000.0)
    assert positive.grad is not None
    assert torch.isfinite(positive.grad).all()


def test_no_pairs_and_no_weight_give_a_zero_that_is_connected_to_the_graph() -> None:
    for count in (0, 2):
        positive = torch.zeros(count, requires_grad=True)
        found = softmax_ranking_loss(positive, torch.zeros(count), click_weights=torch.zeros(count))
        found.backward()
        assert found.item() == 0
        assert positive.grad is not None


def test_it_asks_for_both_confidences_and_takes_the_temperature_of_the_configuration() -> None:
    assert inputs_of(SoftmaxRankingLoss()) == ("click_weights", "skip_confidences", "positive_index")
    made = configured(SoftmaxRankingLoss(), TrainingConfig(hardness_temperature=0.1))
    assert isinstance(made, SoftmaxRankingLoss)
    assert made.temperature == 0.1


def test_a_margin_is_taken_off_the_clicked_items_score() -> None:
    wanted = SoftmaxRankingLoss(0.1)(torch.tensor([0.7]), torch.tensor([0.5]))
    assert wanted.item() == pytest.approx(SoftmaxRankingLoss()(torch.tensor([0.6]), torch.tensor([0.5])).item())
    assert configured(SoftmaxRankingLoss(), TrainingConfig(margin=0.1)).margin == 0.1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, SoftmaxRankingLoss),
        ({"margin": 0.1, "hardness_temperature": 0.1, "learning_rate": 1e-4}, SoftmaxRankingLoss),
        ({"scale": 30.0}, CosineProbMarginRankingLoss),
        ({"max_abs_difference_threshold": 0.9}, CosineProbMarginRankingLoss),
        ({"examples_order": [3, 11]}, CosineProbMarginRankingLoss),
    ],
)
def test_the_default_loss_takes_every_parameter_that_is_given(given: dict[str, object], expected: type) -> None:
    config = TrainingConfig(**given)
    assert type(configured(default_loss(config.given), config)) is expected


@pytest.mark.parametrize("margin", [-0.1, math.inf, math.nan])
def test_margins_out_of_range_are_refused(margin: float) -> None:
    with pytest.raises(ConfigurationError, match="margin is"):
        SoftmaxRankingLoss(margin)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_temperatures_out_of_range_are_refused(temperature: float) -> None:
    with pytest.raises(ConfigurationError, match="temperature is"):
        SoftmaxRankingLoss(temperature=temperature)
