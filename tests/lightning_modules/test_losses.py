"""Losses against an independent numpy reference, and the shape of their gradients."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from estudio_core.errors import ConfigurationError
from lightning_modules.losses import Annealing, CosineProbMarginRankingLoss, ProbMarginRankingLoss
from lightning_modules.losses.pair_weights import group_softmax, pair_weights
from lightning_modules.losses.prob_margin_ranking_loss import pair_losses, prob_margin_ranking_loss

Form = Literal["sigmoid", "softplus"]
Floats = NDArray[np.float64]


def reference_pair(difference: float, margin: float, scale: float, shift: float, form: Form) -> float:
    x = scale * (margin - difference) - shift
    if form == "sigmoid":
        return 1 / (1 + np.exp(-x)) if x > -500 else 0.0
    return (x if x > 500 else np.log1p(np.exp(x))) / scale


def reference_loss(
    positive: Floats,
    negative: Floats,
    sessions: list[int],
    positives: list[int],
    confidences: Floats,
    temperature: float,
) -> float:
    """Mean over sessions of the mean over clicked items of the softmax-weighted mean over negatives."""
    by_session = []
    for s in sorted(set(sessions)):
        by_positive = []
        for p in sorted({p for p, t in zip(positives, sessions, strict=True) if t == s}):
            rows = [i for i in range(len(positives)) if positives[i] == p]
            weights = np.exp(negative[rows] / temperature)
            values = [reference_pair(positive[i] - negative[i], 0.2, 20, 0, "softplus") * confidences[i] for i in rows]
            by_positive.append(float(np.dot(weights / weights.sum(), values)))
        by_session.append(np.mean(by_positive))
    return float(np.mean(by_session))


@pytest.mark.parametrize("form", ["sigmoid", "softplus"])
@pytest.mark.parametrize(("margin", "scale", "shift"), [(1.0, 1.0, 0.0), (0.2, 20.0, 0.0), (0.05, 400.0, 6.0)])
def test_pair_losses_equal_the_closed_formula(form: Form, margin: float, scale: float, shift: float) -> None:
    differences = np.linspace(-2, 2, 41)
    expected = [reference_pair(d, margin, scale, shift, form) for d in differences]
    actual = pair_losses(torch.tensor(differences), margin=margin, scale=scale, shift=shift, form=form)
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("form", ["sigmoid", "softplus"])
@pytest.mark.parametrize(("margin", "scale", "shift"), [(1.0, 1.0, 0.0), (0.2, 20.0, 0.0), (0.05, 400.0, 6.0)])
def test_gradients_are_finite_for_every_difference_of_cosines(
    form: Form, margin: float, scale: float, shift: float
) -> None:
    differences = torch.linspace(-2, 2, 401, requires_grad=True)
    losses = pair_losses(differences, margin=margin, scale=scale, shift=shift, form=form)
    losses.sum().backward()
    assert differences.grad is not None
    assert torch.isfinite(losses).all()
    assert torch.isfinite(differences.grad).all()
    assert (differences.grad <= 0).all()


def test_default_gradient_is_useful_on_every_pair_in_the_wrong_order() -> None:
    loss = CosineProbMarginRankingLoss()
    for difference in np.linspace(-2, 0, 21):
        positive = torch.tensor([float(difference)], requires_grad=True)
        loss(positive, torch.zeros(1)).backward()
        assert positive.grad is not None
        assert positive.grad.item() < -0.5
    positive = torch.tensor([2.0], requires_grad=True)
    loss(positive, torch.zeros(1)).backward()
    assert positive.grad is not None
    assert abs(positive.grad.item()) < 1e-6  # a pair that is right by far is left alone


def test_the_tutorials_step_has_no_gradient_where_pairs_are_wrong() -> None:
    step = CosineProbMarginRankingLoss(0.05, form="sigmoid", scale=400.0, shift=6.0, temperature=None)
    positive = torch.tensor([-0.2], requires_grad=True)
    step(positive, torch.zeros(1)).backward()
    assert positive.grad is not None
    assert positive.grad.item() == 0


def test_the_two_classes_differ_and_equal_their_formulas() -> None:
    positive, negative = torch.tensor([0.5]), torch.tensor([0.45])
    plain, cosine = ProbMarginRankingLoss(0.2), CosineProbMarginRankingLoss(0.2, scale=20.0)
    assert plain(positive, negative).item() == pytest.approx(1 / (1 + np.exp(-0.15)), abs=1e-6)
    assert cosine(positive, negative).item() == pytest.approx(np.log1p(np.exp(3)) / 20, abs=1e-6)


def test_sessions_and_clicked_items_count_equally_and_hard_negatives_most() -> None:
    rng = np.random.default_rng(1)
    sessions, positives = [0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 1, 2]
    positive, negative, confidences = rng.uniform(-1, 1, 6), rng.uniform(-1, 1, 6), rng.uniform(0, 2, 6)
    actual = prob_margin_ranking_loss(
        torch.tensor(positive),
        torch.tensor(negative),
        margin=0.2,
        scale=20,
        form="softplus",
        confidences=torch.tensor(confidences),
        positive_index=torch.tensor(positives),
        session_index=torch.tensor(sessions),
        temperature=0.1,
    )
    expected = reference_loss(positive, negative, sessions, positives, confidences, 0.1)
    assert actual.item() == pytest.approx(expected, rel=1e-5)


def test_without_temperature_a_session_is_the_mean_of_its_clicked_items_means() -> None:
    weights = pair_weights(torch.tensor([0.9, 0.1, 0.3]), torch.tensor([0, 0, 1]), torch.tensor([0, 0, 0]), None)
    assert weights.tolist() == [0.25, 0.25, 0.5]


def test_a_lower_temperature_gives_more_to_the_hardest() -> None:
    zeros = torch.zeros(3, dtype=torch.long)
    negative = torch.tensor([0.5, 0.4, -0.9])
    warm, cold = (pair_weights(negative, zeros, zeros, t) for t in (0.5, 0.02))
    assert cold[0] > warm[0] > 1 / 3
    assert cold.sum().item() == pytest.approx(1)


def test_group_softmax_stands_large_values() -> None:
    weights = group_softmax(torch.tensor([1000.0, 999.0, -1000.0]), torch.tensor([0, 0, 1]))
    assert weights.tolist() == pytest.approx([1 / (1 + np.exp(-1)), np.exp(-1) / (1 + np.exp(-1)), 1.0])


def test_weights_carry_no_gradient() -> None:
    zeros = torch.zeros(2, dtype=torch.long)
    assert not pair_weights(torch.tensor([0.1, 0.2], requires_grad=True), zeros, zeros, 0.1).requires_grad


def test_pairs_outside_of_the_difference_thresholds_are_left_out() -> None:
    loss = ProbMarginRankingLoss(0.2, min_abs_difference_threshold=0.05, max_abs_difference_threshold=0.5)
    positive, negative = torch.tensor([0.51, 0.7, 1.0]), torch.tensor([0.5, 0.5, 0.0])
    assert loss(positive, negative).item() == pytest.approx(loss(positive[1:2], negative[1:2]).item())


@pytest.mark.parametrize("loss", [ProbMarginRankingLoss(), CosineProbMarginRankingLoss()])
def test_no_pairs_give_a_zero_that_is_connected_to_the_graph(loss: ProbMarginRankingLoss) -> None:
    vectors = torch.randn(3, requires_grad=True)
    value = loss(vectors[:0], vectors[:0])
    value.backward()
    assert value.item() == 0
    assert vectors.grad is not None
    assert vectors.grad.abs().sum() == 0


def test_all_pairs_filtered_away_give_a_connected_zero() -> None:
    similarity = torch.tensor([0.5], requires_grad=True)
    loss = ProbMarginRankingLoss(min_abs_difference_threshold=1.0)
    value = loss(similarity, similarity.detach(), None, torch.tensor([0]), torch.tensor([0]))
    value.backward()
    assert value.item() == 0


def test_a_loss_with_other_values_is_another_loss() -> None:
    loss = CosineProbMarginRankingLoss(annealing=Annealing(scale=30.0))
    changed = loss.with_values(base_margin=0.5, form="sigmoid")
    assert (changed.margin, changed.form, changed.annealing) == (0.5, "sigmoid", loss.annealing)
    assert (loss.margin, loss.form, type(changed)) == (0.2, "softplus", CosineProbMarginRankingLoss)
    with pytest.raises(ConfigurationError, match=r"margin is -1"):
        loss.with_values(base_margin=-1)
    with pytest.raises(ConfigurationError, match="no pair would be left"):
        CosineProbMarginRankingLoss(min_abs_difference_threshold=0.8).with_values(max_abs_difference_threshold=0.1)


def test_the_loss_is_half_precision_safe() -> None:
    value = CosineProbMarginRankingLoss()(torch.tensor([0.1]).bfloat16(), torch.tensor([0.4]).bfloat16())
    assert value.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"base_margin": -0.1}, "margin is -0.1"),
        ({"scale": 0.0}, "scale is 0.0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"form": "hinge"}, "legal: 'sigmoid', 'softplus'"),
        ({"min_abs_difference_threshold": 0.5, "max_abs_difference_threshold": 0.1}, "no pair would be left"),
    ],
)
def test_values_out_of_range_are_refused(arguments: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        CosineProbMarginRankingLoss(**arguments)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("form", ["sigmoid", "softplus"])
def test_annealing_goes_from_the_first_values_to_the_last_ones(form: Form) -> None:
    first, last = {"scale": 20.0, "shift": 1.0}, {"scale": 400.0, "shift": 6.0}
    annealed = CosineProbMarginRankingLoss(0.3, form=form, **first, annealing=Annealing(**last, margin=0.05))
    middle = {"scale": float(np.sqrt(20 * 400)), "shift": 3.5}
    positive, negative = torch.linspace(-1, 1, 21), torch.linspace(1, -1, 21)
    for done, margin, values in ((0.0, 0.3, first), (0.5, 0.175, middle), (1.0, 0.05, last)):
        fixed = CosineProbMarginRankingLoss(margin, form=form, **values)
        assert annealed(positive, negative, done=done).item() == pytest.approx(
            fixed(positive, negative).item(), rel=1e-5
        )


def test_without_annealing_the_course_of_the_training_changes_nothing() -> None:
    loss = CosineProbMarginRankingLoss()
    before = loss(torch.tensor([0.5]), torch.tensor([0.4]))
    assert loss(torch.tensor([0.5]), torch.tensor([0.4]), done=1.0) == before


@pytest.mark.parametrize(("values", "match"), [({"scale": 0.0}, "end at 0.0"), ({"margin": -1.0}, "end at -1.0")])
def test_annealing_to_illegal_values_is_refused(values: dict[str, float], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        Annealing(**values)
