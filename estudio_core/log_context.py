"""What every log line of a step carries: plugin, run and, once it is known, release.

Kept in structlog's context, which Airflow merges into each line of a task's log, those of plain `logging` included.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from structlog.contextvars import bind_contextvars, bound_contextvars, get_contextvars, unbind_contextvars


@contextmanager
def step_context(plugin: str, run: str, step: str, release: int | None = None) -> Iterator[None]:
    """Bind plugin, run, step and release to the log lines of the block."""
    with bound_contextvars(plugin=plugin, run=run, step=step, release=release):
        if release is None:
            unbind_contextvars("release")
        yield


def bind_release(release_id: int) -> None:
    """Bind the release that a step has found out to be about to the lines from here to the end of the step.

    Outside of a step nothing is bound: nothing would ever take it back.
    """
    if "step" in get_contextvars():
        bind_contextvars(release=release_id)
