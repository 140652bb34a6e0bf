"""Progress of a task as a row that others can watch, and as lines in the task's log."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from estudio_core import database
from estudio_core.errors import EstudioError
from estudio_core.progress import Progress, progress_to

logger = logging.getLogger(__name__)

ROW_INTERVAL_S = 1.0
LOG_INTERVAL_S = 10.0

_UPSERT = """
INSERT INTO estudio.progress (dag_id, run_id, task_id, map_index, step, done, total, unit, message, updated_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, now())
ON CONFLICT (dag_id, run_id, task_id, map_index) DO UPDATE SET
    step = excluded.step, done = excluded.done, total = excluded.total,
    unit = excluded.unit, message = excluded.message, updated_at = now()
"""


class TaskProgress:
    """Writes what is reported, at most once a second. A database that is away costs the display, not the task."""

    def __init__(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> None:
        self._key = (dag_id, run_id, task_id, map_index)
        self._last_row = 0.0
        self._last_log = 0.0

    def __call__(self, progress: Progress) -> None:
        """Write the row and, more rarely, a log line."""
        now = time.monotonic()
        complete = progress.total is not None and progress.done >= progress.total
        if now - self._last_log >= LOG_INTERVAL_S or complete:
            self._last_log = now
            of = f" of {progress.total}" if progress.total is not None else ""
            logger.info("%s: %s%s %s %s", progress.step, progress.done, of, progress.unit, progress.message)
        if now - self._last_row >= ROW_INTERVAL_S or complete:
            self._last_row = now
            self._write(progress)

    def _write(self, progress: Progress) -> None:
        import psycopg

        row = (*self._key, progress.step, progress.done, progress.total, progress.unit, progress.message)
        try:
            with database.transaction() as connection:
                connection.execute(_UPSERT, row)
        except (psycopg.Error, EstudioError) as error:
            logger.debug("Progress is not shown: %s", error)


@contextmanager
def record_progress(dag_id: str, run_id: str, task_id: str, map_index: int | None) -> Iterator[None]:
    """Record progress that is reported inside the block as that of the given task."""
    with progress_to(TaskProgress(dag_id, run_id, task_id, -1 if map_index is None else map_index)):
        yield
