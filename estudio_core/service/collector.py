"""Rows of the clickstream on their way to the database, those of many requests at once.

A row is acknowledged when it is on disk.
Rows that come while others are written wait for the next statement, so that one commit serves them all. A row that
PostgreSQL refuses is found out by writing its batch again in pieces, and named; its neighbours are stored.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio.to_thread

from estudio_core import database
from estudio_core.clickstream.appending import Logged, put_events, put_queries, whole
from estudio_core.clickstream.forgetting import forgotten_among
from estudio_core.clickstream.ubi import UbiEvent, UbiQuery
from estudio_core.errors import ConnectionLostError, DatabaseUnavailableError, DataError
from estudio_core.service import metrics

if TYPE_CHECKING:
    import psycopg

MOST_ROWS = 4_000
"""Of one transaction."""
MOST_WAITING = 50_000
"""Rows that wait: some 50 MB. More are refused until the database has caught up."""
PATIENCE_S = 10.0
"""How long a transaction that the database broke off is begun again."""
CONTRADICTION = "the query_id is that of a search for something else"
FORGOTTEN = "it is of a client that was forgotten, from before that"
REFUSED = "the database refuses it"

Row = UbiQuery | UbiEvent


@dataclass
class _Job:
    """Rows of one request, and who waits for them.

    `durable`: they are on disk when they are acknowledged. Impressions of searches, which the service writes by itself,
    are in the server's memory then: they survive the service, and the database's end but for its last half second.
    """

    rows: Sequence[Row]
    durable: bool
    done: asyncio.Future[dict[int, str]]


@dataclass
class Collector:
    """Writes rows in the background of one event loop."""

    _jobs: asyncio.Queue[_Job] = field(default_factory=asyncio.Queue)
    _waiting: int = 0
    _task: asyncio.Task[None] | None = None

    async def store(self, rows: Sequence[Row], *, durable: bool = True) -> dict[int, str]:
        """Store rows; known ones change nothing. Return why rows were left out, by their places.

        Raises:
            DatabaseUnavailableError: the database does not take them now, or too many wait for it.
        """
        if not rows:
            return {}
        if self._waiting + len(rows) > MOST_WAITING:
            raise DatabaseUnavailableError(f"{self._waiting:,} rows of the clickstream wait for the database.")
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        job = _Job(rows, durable, asyncio.get_running_loop().create_future())
        self._waiting += len(rows)
        metrics.WAITING.set(self._waiting)
        self._jobs.put_nowait(job)
        # A client that hangs up does not take back what it sent.
        return await asyncio.shield(job.done)

    async def close(self) -> None:
        """Write what waits, and end."""
        if self._task is None:
            return
        await self._jobs.join()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            jobs = [await self._jobs.get()]
            rows = len(jobs[0].rows)
            while rows < MOST_ROWS and not self._jobs.empty():
                jobs.append(self._jobs.get_nowait())
                rows += len(jobs[-1].rows)
            try:
                left_out = await anyio.to_thread.run_sync(_write_all, jobs)
            except BaseException as error:
                for job in jobs:
                    if not job.done.done():
                        job.done.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
                        job.done.exception()  # whoever asked may have gone
                if not isinstance(error, Exception):
                    raise
            else:
                for job, why in zip(jobs, left_out, strict=True):
                    if not job.done.done():
                        job.done.set_result(why)
            finally:
                self._waiting -= rows
                metrics.WAITING.set(self._waiting)
                for _ in jobs:
                    self._jobs.task_done()


def _write_all(jobs: Sequence[_Job]) -> list[dict[int, str]]:
    """Write the rows of all jobs; return for each why rows were left out."""
    until = time.monotonic() + PATIENCE_S
    durable = any(job.durable for job in jobs)
    while True:
        try:
            with database.errors_named():
                return _written([job.rows for job in jobs], durable)
        except ConnectionLostError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)  # rows that were committed are known then, and change nothing


def _written(batches: Sequence[Sequence[Row]], durable: bool) -> list[dict[int, str]]:
    try:
        with database.connection() as connection, whole(connection):
            found = _append(connection, batches, durable)
    except DataError:
        if len(batches) > 1:
            return [found for batch in batches for found in _written([batch], durable)]
        [rows] = batches
        if len(rows) == 1:
            metrics.ROWS.labels(_kind(rows[0]), "refused").inc()
            return [{0: REFUSED}]
        middle = len(rows) // 2
        first, second = _written([rows[:middle], rows[middle:]], durable)
        return [first | {place + middle: why for place, why in second.items()}]
    return found


def _append(connection: psycopg.Connection, batches: Sequence[Sequence[Row]], durable: bool) -> list[dict[int, str]]:
    left_out: list[dict[int, str]] = [{} for _ in batches]
    people = {person for rows in batches for row in rows for person in (row.client_id, row.user_id) if person}
    with connection.pipeline():
        if not durable:
            connection.execute("SET LOCAL synchronous_commit = off")
        gone = forgotten_among(connection, people)
    forgotten = {"query": 0, "event": 0}
    queries: list[UbiQuery] = []
    events: list[UbiEvent] = []
    for number, rows in enumerate(batches):
        for place, row in enumerate(rows):
            until = max((gone[who] for who in (row.client_id, row.user_id) if who and who in gone), default=None)
            if until is not None and row.timestamp <= until:
                left_out[number][place] = FORGOTTEN
                forgotten[_kind(row)] += 1
            elif isinstance(row, UbiQuery):
                queries.append(row)
            else:
                events.append(row)
    searches = put_queries(connection, queries) if queries else Logged(0, 0)
    done = put_events(connection, events) if events else Logged(0, 0)
    for kind, number in forgotten.items():
        metrics.ROWS.labels(kind, "forgotten").inc(number)
    metrics.ROWS.labels("query", "stored").inc(searches.inserted + searches.merged)
    metrics.ROWS.labels("query", "known").inc(searches.duplicates - len(searches.contradictions))
    metrics.ROWS.labels("query", "contradiction").inc(len(searches.contradictions))
    metrics.ROWS.labels("event", "stored").inc(done.inserted)
    metrics.ROWS.labels("event", "known").inc(done.duplicates)
    if searches.contradictions:
        _name_contradictions(connection, batches, set(searches.contradictions), left_out)
    return left_out


def _name_contradictions(
    connection: psycopg.Connection,
    batches: Sequence[Sequence[Row]],
    keys: set[tuple[str, str]],
    left_out: list[dict[int, str]],
) -> None:
    """Note which rows ask for something else than the stored search of their id."""
    from estudio_core.clickstream.query_retriever import query_key

    stored = {
        (application, query_id): query_key(text)
        for application, query_id, text in connection.execute(
            "SELECT q.application, q.query_id, q.user_query FROM unnest(%s::text[], %s::text[])"
            " AS wanted(application, query_id) JOIN estudio.ubi_queries q USING (application, query_id)",
            ([key[0] for key in keys], [key[1] for key in keys]),
        )
    }
    for number, rows in enumerate(batches):
        for place, row in enumerate(rows):
            key = (row.application, row.query_id)
            if isinstance(row, UbiQuery) and key in keys and query_key(row.user_query) != stored.get(key):
                left_out[number][place] = CONTRADICTION


def _kind(row: Row) -> str:
    return "query" if isinstance(row, UbiQuery) else "event"
