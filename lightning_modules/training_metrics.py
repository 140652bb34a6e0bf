"""Metrics of a batch, from similarities that are there anyway."""

from __future__ import annotations

import torch
from torch import Tensor


def training_metrics(
    similarity: Tensor, base: Tensor, clicked: Tensor, negatives: Tensor, rejected: Tensor
) -> dict[str, Tensor]:
    """Return scalars by name; a metric for which a batch has no case is absent.

    - not_irrelevant_dist_shift: similarity now minus before training, mean over clicked results, then sessions
      (larger: clicked results came nearer).
    - irrelevant_dist_shift: before minus now over all results of sessions without clicks (larger: pushed away).
    - pairwise_accuracy: share of a session's own (clicked, skipped) pairs in the right order, mean over sessions.

    Args:
        similarity: Now, [sessions, objects].
        base: Before training, [sessions, objects].
        clicked: bool [sessions, objects].
        negatives: bool [sessions, objects]: shown and not clicked.
        rejected: bool [sessions, objects]: what a session without clicks showed, or such sessions of the same query.
    """
    metrics: dict[str, Tensor] = {}
    shift = similarity - base
    relevant = clicked.any(dim=1)
    if relevant.any():
        metrics["not_irrelevant_dist_shift"] = _row_means(shift, clicked)[relevant].mean()
    has_rejected = rejected.any(dim=1)
    if has_rejected.any():
        metrics["irrelevant_dist_shift"] = -_row_means(shift, rejected)[has_rejected].mean()
    accuracy, has_pairs = _pairwise_accuracy(similarity, clicked, negatives)
    if has_pairs.any():
        metrics["pairwise_accuracy"] = accuracy[has_pairs].mean()
    return metrics


def _row_means(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)


def _pairwise_accuracy(similarity: Tensor, clicked: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Return accuracy by session, and whether it has a pair. Ties count half."""
    session, positive = clicked.nonzero(as_tuple=True)
    pairs, negative = negatives[session].nonzero(as_tuple=True)
    rows = session[pairs]
    difference = similarity[rows, positive[pairs]] - similarity[rows, negative]
    right = (difference > 0).float() + 0.5 * (difference == 0).float()
    zeros = torch.zeros(len(similarity), device=similarity.device)
    count = zeros.index_add(0, rows, torch.ones_like(right))
    return zeros.index_add(0, rows, right) / count.clamp_min(1), count > 0
