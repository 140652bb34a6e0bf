"""The loss of a training that names none."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from lightning_modules.losses.cosine_prob_margin_ranking_loss import CosineProbMarginRankingLoss
from lightning_modules.losses.softmax_ranking_loss import SoftmaxRankingLoss

_OF_PAIRS = {
    *("loss_form", "scale", "shift", "min_abs_difference_threshold", "max_abs_difference_threshold"),
    "examples_order",
}
"""Parameters that only a loss over single pairs has a use for."""


def default_loss(given: Collection[str] = ()) -> nn.Module:
    """Return the softmax over negatives, or the margin loss where a parameter is given that the softmax has not.

    >>> type(default_loss()).__name__, type(default_loss(["scale"])).__name__
    ('SoftmaxRankingLoss', 'CosineProbMarginRankingLoss')

    Args:
        given: Names of the parameters of training that a plugin sets or searches.
    """
    return CosineProbMarginRankingLoss() if _OF_PAIRS & {*given} else SoftmaxRankingLoss()
