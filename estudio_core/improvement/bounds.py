"""How far a vector may be turned."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def turned(before: torch.Tensor, after: torch.Tensor, cut: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Turn `before` towards `after` by the angle that `cut` makes of the angle between them; lengths stay.

    Args:
        before: [rows, dim]; a row that did not move comes back bit for bit.
        after: [rows, dim].
        cut: Angles in radians, [rows, 1], to angles.
    """
    import torch

    length = before.norm(dim=1, keepdim=True)
    start, end = before / length, after / after.norm(dim=1, keepdim=True)
    sideways = end - (end * start).sum(dim=1, keepdim=True) * start
    across = sideways.norm(dim=1, keepdim=True)
    angle = cut(torch.atan2(across, (end * start).sum(dim=1, keepdim=True)))
    moved = (start * angle.cos() + sideways / across.clamp_min(1e-12) * angle.sin()) * length
    return torch.where(across > 1e-9, moved, before)  # below, the direction of the turn is rounding noise


def bounded(before: torch.Tensor, after: torch.Tensor, max_angle_degrees: float) -> torch.Tensor:
    """Return `after` where it is within the angle of `before`, else what lies on the way at that angle.

    >>> import torch
    >>> bounded(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]]), 60.0).round(decimals=3).tolist()
    [[0.5, 0.8659999966621399]]
    """
    limit = math.radians(max_angle_degrees)
    return turned(before, after, lambda angle: angle.clamp_max(limit))
