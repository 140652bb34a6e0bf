"""Examination: the chance that a result is looked at, by the position at which it is shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.position_bias import Floats
from estudio_core.errors import ConfigurationError

_SHOWN_CHANCES = 5


class Examination(ABC):
    """Chances relative to the topmost position, in (0, 1]; as text, what they are and where they come from."""

    @abstractmethod
    def at(self, positions: NDArray[np.integer]) -> Floats:
        """Return the chances at 0-based positions, float64 of their shape."""

    def inverse_at(self, positions: NDArray[np.integer]) -> Floats:
        """Return what a click at each position stands for: 1 / chance, float64 of the shape of `positions`."""
        inverse: Floats = 1.0 / self.at(positions)
        return inverse

    def below(self, clicks_above: NDArray[np.integer]) -> Floats:
        """Return what is left of a position's chance below so many clicks of its session, float64 of their shape.

        1 everywhere where users read on whatever they have clicked.
        """
        return np.ones(len(clicks_above))

    @property
    def cautious(self) -> Examination:
        """What clicks are weighed by: taken for too steep, attention makes too much of clicks far down, noise too."""
        return self

    @property
    @abstractmethod
    def is_even(self) -> bool:
        """True where every position is looked at alike."""


@dataclass(frozen=True)
class PowerLaw(Examination):
    """`(position + 1) ** -exponent`.

    >>> PowerLaw.given(1.0).at(np.array([0, 1, 3])).tolist()
    [1.0, 0.5, 0.25]

    Attributes:
        exponent: 0 (every position is looked at) to 3.
        standard_error: Of the exponent, clustered by query and client; inf for an assumed one.
        basis: `given`. `several positions`: same result at different positions. `fixed rankings`: results of nearly
            the same score, one above the other. `assumed`: too few clicks.
        bounds: The estimate less two standard errors, and that with all of the fall put down to position; the same
            number twice where there is only one.
        after_clicks: Attention left below one, two, and more clicks of a session; empty: all of it.
    """

    exponent: float
    standard_error: float
    basis: str
    bounds: tuple[float, float]
    after_clicks: tuple[float, ...] = ()

    @classmethod
    def given(cls, exponent: float) -> PowerLaw:
        """Return the curve of an exponent that is known."""
        return cls(exponent, 0.0, "given", (exponent, exponent))

    def at(self, positions: NDArray[np.integer]) -> Floats:
        """Return the chances at 0-based positions."""
        return np.asarray((positions + 1.0) ** -self.exponent, dtype=np.float64)

    def inverse_at(self, positions: NDArray[np.integer]) -> Floats:
        """Return what a click at each position stands for, without a rounding in between."""
        return np.asarray((positions + 1.0) ** self.exponent, dtype=np.float64)

    def below(self, clicks_above: NDArray[np.integer]) -> Floats:
        """Return what is left below so many clicks."""
        left = np.array([1.0, *self.after_clicks])
        found: Floats = left[np.minimum(clicks_above, len(left) - 1)]
        return found

    @property
    def cautious(self) -> PowerLaw:
        """The curve whose exponent is a standard error lower, where there is one."""
        if not 0 < self.standard_error < float("inf"):
            return self
        return replace(self, exponent=max(self.exponent - self.standard_error, 0.0))

    @property
    def is_even(self) -> bool:
        """True for an exponent of 0, and users who read on after clicks."""
        return self.exponent == 0 and all(left == 1 for left in self.after_clicks)

    def __str__(self) -> str:
        """Say it in a line."""
        law = "(position + 1)^-e, e ="
        if self.basis == "given":
            return f"{law} {self.exponent:g}, given by the plugin"
        if self.basis == "assumed":
            return f"{law} {self.exponent:g}, assumed: the log has too few clicks to tell"
        low, high = sorted(self.bounds)
        between = f", between {low:.2f} and {high:.2f}" if high > low else ""
        left = f"; {self.after_clicks[0]:.0%} of it left below a click" if self.after_clicks else ""
        return f"{law} {self.exponent:.2f} ± {self.standard_error:.2f}, estimated from {self.basis}{between}{left}"


EVEN = PowerLaw.given(0.0)
"""Every position is looked at."""


@dataclass(frozen=True)
class ByPosition(Examination):
    """A chance for each position from the topmost on; those beyond take the last one.

    >>> ByPosition((1.0, 0.4), "given by the plugin").at(np.array([0, 1, 7])).tolist()
    [1.0, 0.4, 0.4]

    Attributes:
        chances: One or more, in (0, 1].
        source: Where they come from.

    Raises:
        ConfigurationError: no chance, or one outside of (0, 1].
    """

    chances: tuple[float, ...]
    source: str

    def __post_init__(self) -> None:
        """Refuse what is no chance."""
        if not self.chances or not all(0 < chance <= 1 for chance in self.chances):
            raise ConfigurationError(
                f"Examination by position is {self.chances}; legal are chances above 0 and at most 1, one per position "
                "from the topmost on."
            )

    def at(self, positions: NDArray[np.integer]) -> Floats:
        """Return the chances at 0-based positions."""
        found: Floats = np.array(self.chances)[np.minimum(positions, len(self.chances) - 1)]
        return found

    @property
    def is_even(self) -> bool:
        """True where all chances are 1."""
        return all(chance == 1 for chance in self.chances)

    def __str__(self) -> str:
        """Say it in a line."""
        shown = ", ".join(f"{chance:.2f}" for chance in self.chances[:_SHOWN_CHANCES])
        more = ", ..." if len(self.chances) > _SHOWN_CHANCES else ""
        return f"{shown}{more} by position, {self.source}"
