"""Until when an answer is wanted: handed on from a search to its encoder, its pool and its statements."""

from __future__ import annotations

import time
from dataclasses import dataclass

from estudio_core.errors import ConfigurationError, SearchTimeoutError, shown

LONGEST_S = 86_400.0


@dataclass(frozen=True)
class Deadline:
    """A moment by `time.monotonic()`, and how many seconds there were at first."""

    at: float
    seconds: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline in so many seconds.

        Raises:
            ConfigurationError: it is no number above 0, or more than a day.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_S:
            raise ConfigurationError(
                f"A deadline is a number of seconds above 0, at most {LONGEST_S:,.0f}; given {shown(seconds)}."
            )
        return cls(time.monotonic() + seconds, float(seconds))

    @property
    def left_s(self) -> float:
        """Seconds that are left; below 0 once it has passed."""
        return self.at - time.monotonic()

    def passed(self, doing: str) -> SearchTimeoutError:
        """Return the error of what was not done in time."""
        return SearchTimeoutError(
            f"The search was not answered within {self.seconds:g} s: its time ended while {doing}. Give it more with "
            "deadline_s, or ESTUDIO_SEARCH_TIMEOUT_S; conditions on fields that the plugin's index names are the fast "
            "ones."
        )

    def require(self, doing: str) -> None:
        """Make sure that there is time left.

        Raises:
            SearchTimeoutError: there is none.
        """
        if self.left_s <= 0:
            raise self.passed(doing)
