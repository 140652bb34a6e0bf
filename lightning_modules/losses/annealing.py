"""Values of a loss that change in the course of a training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from estudio_core.errors import ConfigurationError


@dataclass(frozen=True)
class Annealing:
    """Where scale, shift and margin end; what is None stays where it starts.

    The scale goes by equal factors, shift and margin by equal steps: a loss that begins soft (every pair has a
    gradient) and ends steep, for instance.

    >>> Annealing(scale=400.0, margin=0.05).at(0.5, scale=4.0, shift=1.0, margin=0.15)
    (40.0, 1.0, 0.1)

    Raises:
        ConfigurationError: a value is out of range.
    """

    scale: float | None = None
    shift: float | None = None
    margin: float | None = None

    def __post_init__(self) -> None:
        """Refuse what the loss itself refuses."""
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise ConfigurationError(f"The scale is to end at {self.scale}; give a number above 0, or None.")
        if self.shift is not None and not math.isfinite(self.shift):
            raise ConfigurationError(f"The shift is to end at {self.shift}; give a finite number, or None.")
        if self.margin is not None and not 0 <= self.margin < math.inf:
            raise ConfigurationError(f"The margin is to end at {self.margin}; give 0 or more, or None.")

    def at(self, done: float, *, scale: float, shift: float, margin: float) -> tuple[float, float, float]:
        """Return scale, shift and margin when the share `done`, 0 to 1, of the training is over.

        Args:
            done: Share of the training.
            scale: At its start, > 0.
            shift: At its start.
            margin: At its start.
        """
        if self.scale is not None:
            scale = scale ** (1 - done) * self.scale**done
        return scale, _between(shift, self.shift, done), _between(margin, self.margin, done)


def _between(start: float, end: float | None, done: float) -> float:
    return start if end is None else (1 - done) * start + done * end
