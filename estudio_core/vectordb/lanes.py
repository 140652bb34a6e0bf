"""Who may search now: cheap and costly searches each have connections of their own, and nobody waits in vain.

A search that would have to wait for its connection beyond its deadline is refused at once, with when to come back. How
long it would wait is told by how long those before it have held theirs, from when they had it: what they waited is not
what the next one waits for.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from estudio_core.deadline import Deadline
from estudio_core.errors import OverloadedError

LaneName = Literal["cheap", "costly"]
MOST_WAITING = 50
"""Searches that wait for each connection, at most, however long they may: it bounds memory. Where searches take longer
than a hundredth of their time, the deadline is what bounds the queue."""
LEAST_RETRY_S = 0.05
_WEIGHT = 0.2
"""Of the last search in the mean time for which a connection is held."""


@dataclass(frozen=True)
class LaneLoad:
    """What a lane did so far, and how full it is.

    Attributes:
        size: Connections.
        inside: Searches that have one or wait for one.
        answered: Those that had one.
        refused: Those that were sent away at once.
        held_s: Mean time for which a connection was held, the last ones weighing most.
    """

    size: int
    inside: int
    answered: int
    refused: int
    held_s: float


class Lane:
    """Admission to the connections of one kind of search in this process."""

    def __init__(self, name: LaneName, size: int) -> None:
        self.name, self.size = name, size
        self._lock = threading.Lock()
        self._inside: set[int] = set()
        self._since: dict[int, float] = {}
        self._ticket = self._answered = self._refused = 0
        self._held_s = 0.0

    @property
    def load(self) -> LaneLoad:
        """What it did so far."""
        with self._lock:
            return LaneLoad(self.size, len(self._inside), self._answered, self._refused, self._held_s)

    @contextmanager
    def admitted(self, deadline: Deadline) -> Iterator[Callable[[], None]]:
        """Be inside for the block; what it is given is to be called once there is a connection.

        Raises:
            OverloadedError: whoever is inside leaves no connection before the deadline, by all that is known.
        """
        ticket = self._enter(deadline)
        try:
            yield lambda: self._hold(ticket)
        finally:
            self._leave(ticket)

    def _enter(self, deadline: Deadline) -> int:
        now = time.monotonic()
        with self._lock:
            ahead = len(self._inside) - self.size + 1
            if ahead > 0:
                # Those who hold one may be slower than those before: they have had it for that long.
                held = [now - since for since in self._since.values()]
                held_s = max(self._held_s, sum(held) / len(held) if held else 0.0)
                wait_s = held_s * ahead / self.size
                if ahead > MOST_WAITING * self.size or wait_s > deadline.left_s:
                    self._refused += 1
                    raise self._full(deadline, wait_s)
            self._ticket += 1
            self._inside.add(self._ticket)
            return self._ticket

    def _full(self, deadline: Deadline, wait_s: float) -> OverloadedError:
        retry_s = max(LEAST_RETRY_S, round(wait_s, 2))
        why = f"this one would not get its turn within {deadline.seconds:g} s"
        if wait_s <= deadline.left_s:
            why = f"no more than {MOST_WAITING * self.size} may wait"
        name = "ESTUDIO_COSTLY_SEARCHES" if self.name == "costly" else "ESTUDIO_DATABASE_POOL_SIZE"
        return OverloadedError(
            f"{len(self._inside)} {self.name} searches are under way or wait in this process, {self.size} at a time: "
            f"{why}. Come back in {retry_s:g} s, or add processes; {name} says how many run at a time.",
            retry_s,
        )

    def _hold(self, ticket: int) -> None:
        with self._lock:
            self._since[ticket] = time.monotonic()

    def _leave(self, ticket: int) -> None:
        with self._lock:
            self._inside.remove(ticket)
            since = self._since.pop(ticket, None)
            if since is None:
                return  # it never had one
            held_s = time.monotonic() - since
            self._answered += 1
            self._held_s = held_s if self._answered == 1 else (1 - _WEIGHT) * self._held_s + _WEIGHT * held_s


_lanes: dict[LaneName, Lane] = {}


def lane(name: LaneName) -> Lane:
    """Return the lane of this process."""
    found = _lanes.get(name)
    if found is None:
        from estudio_core.settings import get_settings

        settings = get_settings()
        size = settings.database_pool_size if name == "cheap" else settings.costly_searches
        found = _lanes.setdefault(name, Lane(name, size))
    return found


def reset() -> None:
    """Begin with empty lanes, sized as the settings say now."""
    _lanes.clear()


os.register_at_fork(after_in_child=reset)
