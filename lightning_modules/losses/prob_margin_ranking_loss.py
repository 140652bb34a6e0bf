"""Margin ranking loss over pairs, as the probability that a pair is in the wrong order."""

from __future__ import annotations

import copy
import inspect
import math
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from estudio_core.errors import ConfigurationError
from lightning_modules.losses.annealing import Annealing
from lightning_modules.losses.pair_weights import pair_weights

Form = Literal["sigmoid", "softplus"]


def pair_losses(difference: Tensor, *, margin: float, scale: float, shift: float, form: Form) -> Tensor:
    """Return the loss of every pair, of the shape of `difference` = similarity of positive - negative.

    With x = margin - difference: `sigmoid` is sigmoid(scale*x - shift), bounded by 1, so that single noisy clicks
    weigh little; `softplus` is softplus(scale*x - shift)/scale, whose gradient does not vanish on pairs that are
    badly wrong. Both are finite, with finite gradients, for every finite difference.

    >>> pair_losses(torch.tensor([0.1]), margin=0.1, scale=20.0, shift=0.0, form="sigmoid").tolist()
    [0.5]
    """
    x = scale * (margin - difference) - shift
    return torch.sigmoid(x) if form == "sigmoid" else functional.softplus(x) / scale


def prob_margin_ranking_loss(
    positive: Tensor,
    negative: Tensor,
    *,
    margin: float,
    scale: float = 1.0,
    shift: float = 0.0,
    form: Form = "sigmoid",
    confidences: Tensor | None = None,
    positive_index: Tensor | None = None,
    session_index: Tensor | None = None,
    temperature: float | None = None,
    min_abs_difference: float = 0.0,
    max_abs_difference: float | None = None,
) -> Tensor:
    """Return the weighted mean of pair losses, a scalar.

    >>> prob_margin_ranking_loss(torch.tensor([0.6]), torch.tensor([0.2]), margin=0.4).item()
    0.5

    Args:
        positive: Similarity of query and clicked item of each pair, [n].
        negative: Similarity of query and not clicked item of each pair, [n].
        margin: Wanted difference, in units of similarity.
        scale: Steepness, per unit of similarity.
        shift: Subtracted after scaling.
        form: `sigmoid` or `softplus`, see `pair_losses`.
        confidences: Factor of each pair, [n]; 1 where absent. Not normalised: it may carry propensity weights.
        positive_index: Number of the clicked item of each pair, int [n]; absent: each pair is its own.
        session_index: Number of the session of each pair, int [n]; absent: all are one session.
        temperature: Hardness weighting, see `pair_weights`; None: equal shares.
        min_abs_difference: Pairs whose |difference| is smaller are left out.
        max_abs_difference: Pairs whose |difference| is larger are left out; None: none is.

    An empty set of pairs gives 0 that is connected to the graph of `positive` and `negative`.
    """
    difference = positive.float() - negative.float()
    kept = difference.detach().abs() >= min_abs_difference
    if max_abs_difference is not None:
        kept &= difference.detach().abs() <= max_abs_difference
    losses = pair_losses(difference, margin=margin, scale=scale, shift=shift, form=form)
    if positive_index is None:
        positive_index = torch.arange(len(difference), device=difference.device)
    if session_index is None:
        session_index = torch.zeros_like(positive_index)
    if confidences is not None:
        losses = losses * confidences
    weights = pair_weights(negative[kept], positive_index[kept], session_index[kept], temperature)
    return (losses[kept] * weights).sum()


class ProbMarginRankingLoss(nn.Module):
    """sigmoid(margin - (s+ - s-)): the probability that a pair violates the margin, in units of similarity.

    Args:
        base_margin: Wanted difference of similarities, at the start of a training; >= 0.
        form: `sigmoid` (bounded, robust to noisy clicks) or `softplus` (gradient does not vanish).
        scale: Steepness, per unit of similarity; > 0.
        shift: Subtracted after scaling.
        temperature: Hardness weighting of pairs within a clicked item; None: equal shares.
        min_abs_difference_threshold: Pairs whose |s+ - s-| is smaller are left out.
        max_abs_difference_threshold: Pairs whose |s+ - s-| is larger are left out; None: none is.
        annealing: Where scale, shift and margin end, in the course of a training; None: they stay.

    Inputs:
        positive, negative: similarities of the pairs, [n]; confidences, positive_index, session_index as in
        `prob_margin_ranking_loss`; done: share of the training that is over, for `annealing`.

    Relations:
        `CosineProbMarginRankingLoss` is the same formula with values measured for cosine similarity.

    Example:
        >>> loss = ProbMarginRankingLoss(base_margin=0.4)
        >>> loss(torch.tensor([0.6]), torch.tensor([0.2])).item()
        0.5

    Raises:
        ConfigurationError: an argument is out of range.
    """

    def __init__(
        self,
        base_margin: float = 1.0,
        *,
        form: Form = "sigmoid",
        scale: float = 1.0,
        shift: float = 0.0,
        temperature: float | None = None,
        min_abs_difference_threshold: float = 0.0,
        max_abs_difference_threshold: float | None = None,
        annealing: Annealing | None = None,
    ) -> None:
        super().__init__()
        least, most = min_abs_difference_threshold, max_abs_difference_threshold
        if form not in ("sigmoid", "softplus"):
            raise ConfigurationError(f"form is {form!r}; legal: 'sigmoid', 'softplus'.")
        if temperature is not None and not 0 < temperature < math.inf:
            raise ConfigurationError(f"temperature is {temperature}; give a number above 0, or None for equal shares.")
        if not math.isfinite(shift):
            raise ConfigurationError(f"shift is {shift}; give a finite number.")
        if not 0 <= base_margin < math.inf:
            raise ConfigurationError(
                f"margin is {base_margin}; give 0 or more (cosine similarities differ by 2 at most)."
            )
        if not 0 < scale < math.inf:
            raise ConfigurationError(f"scale is {scale}; give a number above 0.")
        if most is not None and not most >= least:
            raise ConfigurationError(
                f"max_abs_difference_threshold ({most}) is below min_abs_difference_threshold ({least}): "
                "no pair would be left."
            )
        self.form: Form = form
        self.base_margin, self.scale, self.shift = float(base_margin), float(scale), shift
        self.temperature = temperature
        self.min_abs_difference_threshold, self.max_abs_difference_threshold = least, most
        self.annealing = annealing or Annealing()

    def with_values(self, **values: Any) -> Self:
        """Return a copy with other values of the constructor's arguments, in their ranges.

        Raises:
            ConfigurationError: a value is out of range, or no pair would be left.
        """
        legal = ProbMarginRankingLoss(**({name: getattr(self, name) for name in _ARGUMENTS} | values))
        changed = copy.deepcopy(self)
        for name in _ARGUMENTS:
            setattr(changed, name, getattr(legal, name))
        return changed

    @property
    def margin(self) -> float:
        """Wanted difference of similarities, at the start of a training."""
        return self.base_margin

    def margin_at(self, done: float) -> float:
        """Return the margin when the share `done`, 0 to 1, of the training is over."""
        return self._at(done)[2]

    def _at(self, done: float) -> tuple[float, float, float]:
        return self.annealing.at(done, scale=self.scale, shift=self.shift, margin=self.base_margin)

    def forward(
        self,
        positive: Tensor,
        negative: Tensor,
        confidences: Tensor | None = None,
        positive_index: Tensor | None = None,
        session_index: Tensor | None = None,
        done: float = 0.0,
    ) -> Tensor:
        """Return the loss of the pairs, a scalar."""
        scale, shift, margin = self._at(done)
        return prob_margin_ranking_loss(
            positive,
            negative,
            margin=margin,
            scale=scale,
            shift=shift,
            form=self.form,
            confidences=confidences,
            positive_index=positive_index,
            session_index=session_index,
            temperature=self.temperature,
            min_abs_difference=self.min_abs_difference_threshold,
            max_abs_difference=self.max_abs_difference_threshold,
        )

    def extra_repr(self) -> str:
        """Name the arguments in `repr(loss)`."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in _ARGUMENTS)


_ARGUMENTS = tuple(inspect.signature(ProbMarginRankingLoss.__init__).parameters)[1:]
