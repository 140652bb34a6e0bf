"""A small curve without axes; its numbers stand beside it, as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_EDGE = 4.0
"""Room for the dot at the end, and for the width of the line."""


@dataclass(frozen=True)
class Sparkline:
    """An SVG path in a box of `width` times `height`, and where it ends."""

    width: float
    height: float
    path: str
    end: tuple[float, float]


def sparkline(values: Sequence[float], width: float = 132.0, height: float = 36.0) -> Sparkline | None:
    """Return the curve of at least two values, scaled to their range; None for fewer.

    >>> sparkline([1.0, 3.0, 2.0], width=108.0, height=28.0).path
    'M4.0 24.0 L54.0 4.0 L104.0 14.0'
    """
    if len(values) < 2:
        return None
    low, high = min(values), max(values)
    across, down = width - 2 * _EDGE, height - 2 * _EDGE
    points = [
        (
            _EDGE + across * index / (len(values) - 1),
            _EDGE + down * ((high - value) / (high - low) if high > low else 0.5),
        )
        for index, value in enumerate(values)
    ]
    return Sparkline(width, height, "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points), points[-1])
