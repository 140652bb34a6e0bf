"""Margin ranking loss with form and values that suit cosine similarities."""

from __future__ import annotations

from torch import Tensor

from lightning_modules.losses.annealing import Annealing
from lightning_modules.losses.prob_margin_ranking_loss import Form, ProbMarginRankingLoss, prob_margin_ranking_loss

DEFAULT_MARGIN = 0.2
DEFAULT_SCALE = 20.0
DEFAULT_TEMPERATURE = 0.4
# Chosen by the gain of nDCG@10 over the base model, (queries trained on, queries never trained on), on a development
# partition of the Chorus queries into 52 and 24: simulated clicks, MiniLM with 3 of 6 layers frozen, session and
# in-batch negatives, one seed, trained to the end, 3/4 of the trained weights.
#   58 steps of 24 sessions:  temperature 0.4, margin 0.2 (+0.181, +0.025), margin 0.4 (+0.148, +0.032)
#                             temperature 0.1, margin 0.3 (+0.164, +0.023)
#                             temperature 0.05, margin 0.1 (+0.146, +0.007), margin 0 (+0.105, +0.009)
#   44 steps of 64 sessions:  margin 0.2, temperature 0.4 (+0.168, +0.039), temperature 0.1 (+0.168, +0.019)
# Sharp weighting learns the sessions' own negatives by heart, most of which are relevant results that nobody looked at.


def cosine_prob_margin_ranking_loss(positive: Tensor, negative: Tensor, margin: float = DEFAULT_MARGIN) -> Tensor:
    """Return the mean over pairs of softplus(20*(margin - (s+ - s-)))/20, a scalar, with the default values.

    >>> import torch
    >>> value = cosine_prob_margin_ranking_loss(torch.tensor([0.7]), torch.tensor([0.5]), margin=0.2)
    >>> round(value.item(), 4)  # ln(2) / 20
    0.0347
    """
    return prob_margin_ranking_loss(
        positive, negative, margin=margin, scale=DEFAULT_SCALE, form="softplus", temperature=DEFAULT_TEMPERATURE
    )


class CosineProbMarginRankingLoss(ProbMarginRankingLoss):
    """softplus(scale*(margin - (s+ - s-)) - shift)/scale, pairs weighted by hardness; for cosine similarities.

    The bounded form of the original plugin tutorial is
    `CosineProbMarginRankingLoss(form="sigmoid", scale=400.0, shift=6.0, base_margin=0.05, temperature=None)`:
    a step of width 0.015 whose gradient vanishes on pairs in the wrong order.

    Args:
        base_margin: Wanted difference of similarities, at the start of a training; >= 0.
        form: `softplus` or `sigmoid`.
        scale: Steepness, per unit of similarity; > 0.
        shift: Subtracted after scaling.
        temperature: Hardness weighting of pairs within a clicked item; None: equal shares.
        min_abs_difference_threshold: Pairs whose |s+ - s-| is smaller are left out.
        max_abs_difference_threshold: Pairs whose |s+ - s-| is larger are left out; None: none is.
        annealing: Where scale, shift and margin end, in the course of a training; None: they stay.

    Relations:
        `ProbMarginRankingLoss` is the same formula with scale 1 and the sigmoid form.

    Example:
        >>> import torch
        >>> loss = CosineProbMarginRankingLoss(base_margin=0.2)
        >>> round(loss(torch.tensor([0.7]), torch.tensor([0.5])).item(), 4)
        0.0347
    """

    def __init__(
        self,
        base_margin: float = DEFAULT_MARGIN,
        *,
        form: Form = "softplus",
        scale: float = DEFAULT_SCALE,
        shift: float = 0.0,
        temperature: float | None = DEFAULT_TEMPERATURE,
        min_abs_difference_threshold: float = 0.0,
        max_abs_difference_threshold: float | None = None,
        annealing: Annealing | None = None,
    ) -> None:
        super().__init__(
            base_margin,
            form=form,
            scale=scale,
            shift=shift,
            temperature=temperature,
            min_abs_difference_threshold=min_abs_difference_threshold,
            max_abs_difference_threshold=max_abs_difference_threshold,
            annealing=annealing,
        )
