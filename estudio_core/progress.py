"""Progress of long work: steps report, whoever watches decides how to show it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Progress:
    """`done` of `total` `unit`s of `step`; `total` is None where it is not known."""

    step: str
    done: int
    total: int | None
    unit: str
    message: str = ""


class ProgressSink(Protocol):
    """Receives progress; must be cheap and must not raise."""

    def __call__(self, progress: Progress) -> None:
        """Take note of `progress`."""
        ...


def _ignore(progress: Progress) -> None:
    """Drop the report: nobody watches."""


_sink: ContextVar[ProgressSink] = ContextVar("estudio_progress", default=_ignore)


def report(step: str, done: int, total: int | None, unit: str, message: str = "") -> None:
    """Report progress to the sink of the current context."""
    _sink.get()(Progress(step, done, total, unit, message))


@contextmanager
def progress_to(sink: ProgressSink) -> Iterator[None]:
    """Send progress that is reported inside the block to `sink`."""
    token = _sink.set(sink)
    try:
        yield
    finally:
        _sink.reset(token)
