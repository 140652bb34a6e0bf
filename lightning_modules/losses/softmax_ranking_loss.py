"""Softmax over a clicked item and all negatives of the batch: the nearest ones carry the loss."""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from estudio_core.errors import ConfigurationError

DEFAULT_TEMPERATURE = 0.05


def softmax_ranking_loss(
    positive: Tensor,
    negative: Tensor,
    *,
    temperature: float = DEFAULT_TEMPERATURE,
    margin: float = 0.0,
    click_weights: Tensor | None = None,
    skip_confidences: Tensor | None = None,
    positive_index: Tensor | None = None,
) -> Tensor:
    """Return the weighted mean over clicked items of -log softmax(score / temperature), a scalar.

    The softmax of a clicked item is over itself and its negatives; the other clicked items of its query are in no
    denominator. A negative counts in it as often as it is sure to be worse: the logarithm of its confidence is added to
    its logit.

    >>> round(softmax_ranking_loss(torch.tensor([0.5]), torch.tensor([0.5])).item(), 4)  # ln(2)
    0.6931

    Args:
        positive: Score of the clicked item of each pair, [n].
        negative: Score of the other item of each pair, [n].
        temperature: In units of the score.
        margin: Taken off the score of clicked items, by how much they should stand above the others.
        click_weights: Weight of the clicked item of each pair, [n]; 1 where absent.
        skip_confidences: Confidence of the negative of each pair, [n]; 1 where absent, 0: it is left out.
        positive_index: Number of the clicked item of each pair, int [n]; absent: all are of one.

    No pairs, or no weight, give 0 that is connected to the graph of `positive` and `negative`.

    Source: the softmax of van den Oord, Li, Vinyals, "Representation Learning with Contrastive Predictive Coding"
    (arXiv:1807.03748), over the negatives of the batch; with several positives the second form of Khosla et al.,
    "Supervised Contrastive Learning" (NeurIPS 2020), without the other positives in the denominator.
    """
    if positive.numel() == 0:
        return (positive.sum() + negative.sum()) * 0.0
    logits = (negative.float() - positive.float() + margin) / temperature
    if skip_confidences is not None:
        logits = logits + skip_confidences.log()
    index = torch.zeros_like(positive, dtype=torch.long) if positive_index is None else positive_index
    count = int(index.max()) + 1
    # log(1 + sum of exp): the 1 is the clicked item itself, against whose score all are measured.
    largest = logits.new_zeros(count).scatter_reduce(0, index, logits.detach(), "amax")
    sums = torch.exp(-largest).index_add(0, index, torch.exp(logits - largest[index]))
    losses = largest + sums.log()
    weights = logits.new_zeros(count)
    weights[index] = torch.ones_like(logits) if click_weights is None else click_weights.to(logits)
    return (losses * weights).sum() / weights.sum().clamp_min(torch.finfo(torch.float32).tiny)


class SoftmaxRankingLoss(nn.Module):
    """-log softmax of clicked items among all negatives of the batch, by score / temperature.

    Args:
        base_margin: Wanted difference of a clicked item and the others; >= 0.
        temperature: In units of similarity; > 0. Small: the nearest negatives alone carry the loss.

    Inputs:
        positive, negative: scores of the pairs, [n]; click_weights, skip_confidences, positive_index as in
        `softmax_ranking_loss`.

    Relations:
        `CosineProbMarginRankingLoss` takes pairs one by one, and bounds what it wants by a margin.

    Example:
        >>> loss = SoftmaxRankingLoss()
        >>> round(loss(torch.tensor([0.7]), torch.tensor([0.6])).item(), 4)  # ln(1 + exp(-0.1 / 0.05))
        0.1269

    Raises:
        ConfigurationError: an argument is out of range.
    """

    def __init__(self, base_margin: float = 0.0, *, temperature: float = DEFAULT_TEMPERATURE) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ConfigurationError(f"temperature is {temperature}; give a number above 0.")
        if not 0 <= base_margin < math.inf:
            raise ConfigurationError(f"margin is {base_margin}; give 0 or more.")
        self.base_margin, self.temperature = float(base_margin), float(temperature)

    def with_values(self, **values: Any) -> Self:
        """Return a loss with other values of the constructor's arguments. Raises: as the constructor."""
        return type(self)(**({"base_margin": self.base_margin, "temperature": self.temperature} | values))

    @property
    def margin(self) -> float:
        """Wanted difference of similarities."""
        return self.base_margin

    def forward(
        self,
        positive: Tensor,
        negative: Tensor,
        click_weights: Tensor | None = None,
        skip_confidences: Tensor | None = None,
        positive_index: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of the pairs, a scalar."""
        return softmax_ranking_loss(
            positive,
            negative,
            temperature=self.temperature,
            margin=self.base_margin,
            click_weights=click_weights,
            skip_confidences=skip_confidences,
            positive_index=positive_index,
        )

    def extra_repr(self) -> str:
        """Name the arguments in `repr(loss)`."""
        return f"base_margin={self.base_margin}, temperature={self.temperature}"
