"""Answers that hold for a while: whoever asks meanwhile gets them without another look."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Kept(Generic[Answer]):
    """What was found out lately, by name; one look for a name at a time, for all who wait for it. Of one event loop.

    Args:
        seconds: How long an answer holds, from the end of its look.
        most: Names; those that nobody asked for longest go first.
        meanwhile: Whether an answer goes on being given while it is looked for anew, for as long once more: whoever
            looks waits, and nobody else.
    """

    def __init__(self, seconds: float, most: int = 1, *, meanwhile: bool = False) -> None:
        self._seconds, self._most, self._meanwhile = seconds, most, meanwhile
        self._answers: OrderedDict[Hashable, tuple[Answer, float]] = OrderedDict()
        self._looks: dict[Hashable, asyncio.Task[Answer]] = {}

    async def get(self, name: Hashable, look: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return the answer for a name, by `look` where none holds. Raises: as `look`, whose errors are not kept."""
        known = self._answers.get(name)
        looking = self._looks.get(name)
        holds_s = self._seconds * (2 if self._meanwhile and looking is not None else 1)
        if known is not None and time.monotonic() - known[1] < holds_s:
            self._answers.move_to_end(name)
            return known[0]
        if looking is None:
            looking = self._looks[name] = asyncio.ensure_future(self._look(name, look))
            looking.add_done_callback(lambda task: task.cancelled() or task.exception())  # its asker may have gone
        return await asyncio.shield(looking)

    async def _look(self, name: Hashable, look: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            found = await look()
        finally:
            del self._looks[name]
        self._answers[name] = found, time.monotonic()
        self._answers.move_to_end(name)
        while len(self._answers) > self._most:
            self._answers.popitem(last=False)
        return found
