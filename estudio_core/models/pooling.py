"""From the vectors of a text's tokens to one vector; padding, which stands at the right, never counts.

The modes and their results are those of sentence-transformers' `Pooling`. Several are laid one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from estudio_core.models.families import Pooling


def masked_mean(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the mean over real tokens, float [n, dim], of `hidden` [n, length, dim].

    >>> masked_mean(torch.tensor([[[2.0], [4.0], [99.0]]]), torch.tensor([[1, 1, 0]])).tolist()
    [[3.0]]
    """
    mask = _like(hidden, attention_mask)
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1.0)


def first_token(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the first token's vectors, float [n, dim], of `hidden` [n, length, dim].

    >>> first_token(torch.tensor([[[2.0], [4.0]]]), torch.tensor([[1, 1]])).tolist()
    [[2.0]]
    """
    return hidden[:, 0]


def last_token(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the last real token's vectors, float [n, dim], of `hidden` [n, length, dim].

    >>> last_token(torch.tensor([[[2.0], [4.0], [99.0]]]), torch.tensor([[1, 1, 0]])).tolist()
    [[4.0]]
    """
    positions = torch.arange(hidden.shape[1], device=hidden.device).unsqueeze(0)
    is_last = (positions == attention_mask.sum(dim=1, keepdim=True) - 1).unsqueeze(-1)
    return (hidden * is_last.to(hidden.dtype)).sum(dim=1)


def greatest(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the greatest value of each dimension, float [n, dim], of `hidden` [n, length, dim].

    >>> greatest(torch.tensor([[[2.0, -1.0], [1.0, -3.0], [99.0, 99.0]]]), torch.tensor([[1, 1, 0]])).tolist()
    [[2.0, -1.0]]
    """
    return hidden.masked_fill(attention_mask.unsqueeze(-1) == 0, torch.finfo(hidden.dtype).min).amax(dim=1)


def mean_by_root(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the sum over real tokens divided by the root of their number, float [n, dim].

    >>> mean_by_root(torch.tensor([[[1.0], [2.0], [3.0], [4.0]]]), torch.tensor([[1, 1, 1, 1]])).tolist()
    [[5.0]]
    """
    mask = _like(hidden, attention_mask)
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1.0).sqrt()


def mean_by_position(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the mean over real tokens, the n-th of which counts n times, float [n, dim] (SGPT, arXiv:2202.08904).

    >>> mean_by_position(torch.tensor([[[1.0], [4.0], [99.0]]]), torch.tensor([[1, 1, 0]])).tolist()
    [[3.0]]
    """
    mask = _like(hidden, attention_mask)
    weights = mask * torch.arange(1, hidden.shape[1] + 1, device=hidden.device, dtype=hidden.dtype).view(1, -1, 1)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1.0)


def _like(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    return attention_mask.unsqueeze(-1).to(hidden.dtype)


POOLINGS: dict[Pooling, Callable[[Tensor, Tensor], Tensor]] = {
    "masked_mean": masked_mean,
    "cls": first_token,
    "max": greatest,
    "mean_sqrt_len_tokens": mean_by_root,
    "weightedmean": mean_by_position,
    "lasttoken": last_token,
}


def pool(hidden: Tensor, attention_mask: Tensor, modes: Sequence[Pooling]) -> Tensor:
    """Return `hidden` [n, length, dim] pooled by every mode, one after another: float [n, dim x modes]."""
    pooled = [POOLINGS[mode](hidden, attention_mask) for mode in modes]
    return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=-1)
