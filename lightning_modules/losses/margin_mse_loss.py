"""Margin-MSE: the model learns a teacher's differences of scores, right and wrong alike in size."""

from __future__ import annotations

from torch import Tensor, nn


def margin_mse_loss(positive: Tensor, negative: Tensor, shown_margins: Tensor) -> Tensor:
    """Return the mean squared error of the pairs' differences against the teacher's, a scalar.

    >>> import torch
    >>> positive, negative = torch.tensor([0.5, 0.9]), torch.tensor([0.3, 0.1])
    >>> round(margin_mse_loss(positive, negative, torch.tensor([0.3, torch.nan])).item(), 4)
    0.01

    Args:
        positive: Score of the asked item of each pair, [n].
        negative: Score of the other item of each pair, [n].
        shown_margins: The teacher's score of the one less that of the other, [n], in units of the scores; not a number
            where it did not score both: such a pair is left out.

    No pair that the teacher scored gives 0 that is connected to the graph.

    Source: Hofstaetter et al., "Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
    Distillation" (arXiv:2010.02666).
    """
    known = shown_margins.isfinite()
    error = (positive - negative)[known].float() - shown_margins[known]
    return (error**2).sum() / known.sum().clamp_min(1)


class MarginMseLoss(nn.Module):
    """Mean squared error of s+ - s- against the difference of the scores with which both were shown.

    Inputs:
        positive, negative: scores of the pairs, [n]; shown_margins as in `margin_mse_loss`.

    Relations:
        `SoftmaxRankingLoss` needs no teacher, and learns from all items of the batch.

    Example:
        >>> import torch
        >>> round(MarginMseLoss()(torch.tensor([0.7]), torch.tensor([0.6]), torch.tensor([0.3])).item(), 4)
        0.04
    """

    def forward(self, positive: Tensor, negative: Tensor, shown_margins: Tensor) -> Tensor:
        """Return the loss of the pairs, a scalar."""
        return margin_mse_loss(positive, negative, shown_margins)
