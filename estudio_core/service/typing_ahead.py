"""Searches of somebody who is still typing: only the one that they stayed with is a search of theirs.

A page that searches at each key asks for "l", "la", "lam", "lamp". What was shown for the first three was looked at by
nobody, and would teach a model that it was passed over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)

STAYED_S = 1.5
"""Who asks for something longer or shorter within this time was typing."""
MOST_TYPING = 10_000
"""People who type at a time in one process; of more, each search counts."""

Who = tuple[str, str | None]
Keep = Callable[[], Awaitable[None]]


@dataclass
class _Latest:
    text: str
    keep: Keep
    timer: asyncio.TimerHandle


class TypingAhead:
    """Keeps the searches that people stayed with, of one event loop."""

    def __init__(self) -> None:
        self._latest: dict[Who, _Latest] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def keep(self, who: Who, text: str, keep: Keep) -> None:
        """Have `keep` called unless the same person goes on typing; at once where nobody knows who it is."""
        before = self._latest.pop(who, None)
        if before is not None:
            before.timer.cancel()
            if not _goes_on(before.text, text):
                self._start(before.keep)
        if who[1] is None or len(self._latest) >= MOST_TYPING:
            await keep()
            return
        timer = asyncio.get_running_loop().call_later(STAYED_S, self._stayed, who)
        self._latest[who] = _Latest(text, keep, timer)

    async def close(self) -> None:
        """Keep what waits."""
        for who in list(self._latest):
            self._latest[who].timer.cancel()
            self._stayed(who)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _stayed(self, who: Who) -> None:
        latest = self._latest.pop(who, None)
        if latest is not None:
            self._start(latest.keep)

    def _start(self, keep: Keep) -> None:
        task = asyncio.ensure_future(_kept(keep))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _kept(keep: Keep) -> None:
    try:
        await keep()
    except Exception:
        logger.exception("A search that was served is not in the clickstream.")


def _goes_on(before: str, now: str) -> bool:
    """Return whether a text is another one on the way to be typed, or to be deleted.

    >>> _goes_on("lam", "lamp"), _goes_on("lamp", "lam"), _goes_on("red", "red "), _goes_on("lamp", "chair")
    (True, True, True, False)
    >>> _goes_on("lamp", "lamp")  # the next page, or another filter
    False
    """
    first, second = before.strip().lower(), now.strip().lower()
    return before != now and (second.startswith(first) or first.startswith(second))
