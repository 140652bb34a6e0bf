"""What the service is compared with, each in its own process: searches in process, bare statements and inserts."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from typing import Any, Literal

import psycopg
import uvloop

from benchmarks.index.scratch import PLUGIN
from benchmarks.index.search import LIMIT, by_hand
from benchmarks.service.load import Measured, in_process, timed
from estudio_core import database
from estudio_core.deadline import Deadline
from estudio_core.inference.query_vectors import query_vectors
from estudio_core.searching import Mode, aclose, asearch, prepare
from estudio_core.vectordb.releases import live_release
from estudio_core.vectordb.search import search
from estudio_core.vectordb.search_session import search_connection

WARM_UP = 20
Statement = Literal["nearest neighbours", "the search's own"]
Insert = Literal["unnest", "executemany"]


def searches(texts: Sequence[str], clients: int, seconds: float, mode: Mode = "hybrid") -> Measured:
    """Search in process, as an application in Python does, with so many coroutines of one event loop."""
    found: Measured = in_process(_searches, texts, clients, seconds, mode)
    return found


def statements(texts: Sequence[str], seconds: float, statement: Statement) -> Measured:
    """Send one statement after another on one connection; the vectors of the queries are there already."""
    found: Measured = in_process(_statements, texts, seconds, statement)
    return found


def inserts(batches: Sequence[Sequence[dict[str, Any]]], how: Insert) -> Measured:
    """Insert batches of events on one connection, each in a transaction of its own."""
    found: Measured = in_process(_inserts, batches, how)
    return found


def _searches(texts: Sequence[str], clients: int, seconds: float, mode: Mode) -> Measured:
    prepare(PLUGIN)
    queries = itertools.cycle(texts)

    async def ask() -> int:
        await asearch(PLUGIN, next(queries), limit=LIMIT, mode=mode, deadline_s=60)
        return 200

    async def measured() -> Measured:
        for _ in range(max(WARM_UP, len(texts) if len(texts) <= 1000 else 0)):
            await ask()
        await asyncio.gather(*(ask() for _ in range(clients)))
        try:
            return await timed([ask] * clients, seconds)
        finally:
            await aclose()

    return uvloop.run(measured())


def _statements(texts: Sequence[str], seconds: float, statement: Statement) -> Measured:
    prepare(PLUGIN)
    with database.connect(autocommit=True) as connection:
        release = live_release(connection, PLUGIN)
        assert release is not None
        patience = Deadline.after(60)
        vectors = [
            query_vectors.of(release.release_id, release.model_name, text, patience).result(60) for text in texts
        ]
        queries = itertools.cycle(list(zip(texts, vectors, strict=True)))
        bare = by_hand(connection, release)
        latencies = []
        with search_connection("cheap", Deadline.after(10 * seconds + 60)) as session:
            own = statement == "the search's own"
            for number in itertools.count():
                if number == WARM_UP:
                    began, used = time.perf_counter(), time.process_time()
                text, vector = next(queries)
                since = time.perf_counter()
                if own:
                    search(session, release.collection, vector, text=text, weight=release.ranking.weight, limit=LIMIT)
                else:
                    bare(vector, text)
                if number >= WARM_UP:
                    latencies.append(time.perf_counter() - since)
                    if time.perf_counter() - began > seconds:
                        break
    return Measured(tuple(latencies), {}, time.perf_counter() - began, time.process_time() - used)


def _inserts(batches: Sequence[Sequence[dict[str, Any]]], how: Insert) -> Measured:
    rows = [[_row(event) for event in batch] for batch in batches]
    columns = [[list(column) for column in zip(*batch, strict=True)] for batch in rows]
    latencies = []
    with psycopg.connect(database.database_url(), autocommit=True) as connection:
        began, used = time.perf_counter(), time.process_time()
        for batch, of_columns in zip(rows, columns, strict=True):
            since = time.perf_counter()
            with connection.transaction(), connection.cursor() as cursor:
                if how == "unnest":
                    cursor.execute(_BY_COLUMNS, of_columns)
                else:
                    cursor.executemany(_BY_ROWS, batch)
            latencies.append(time.perf_counter() - since)
        return Measured(tuple(latencies), {}, time.perf_counter() - began, time.process_time() - used)


def _row(event: dict[str, Any]) -> tuple[Any, ...]:
    attributes = event["event_attributes"]
    return (
        event["event_id"],
        event["action_name"],
        event["query_id"],
        event["client_id"],
        attributes["object"]["object_id"],
        attributes["position"]["ordinal"],
        event["timestamp"],
        json.dumps(attributes),
        event["application"],
    )


_COLUMNS = (
    "event_id, action_name, query_id, client_id, object_id, position_ordinal, timestamp, event_attributes, application"
)
_BY_ROWS = f"INSERT INTO estudio.ubi_events ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
_BY_COLUMNS = (
    f"INSERT INTO estudio.ubi_events ({_COLUMNS}) SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[],"
    " %s::text[], %s::integer[], %s::timestamptz[], %s::jsonb[], %s::text[])"
)
