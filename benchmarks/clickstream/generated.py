"""Logs of any size with simulated clicks, and a catalog: made in columns, copied into PostgreSQL.

Each query has a pool of items with scores; a session shows the ten best of them, now and then in another order, and
clicks follow the position-based model with an exponent of 1. Everything follows from seed and size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from psycopg import sql

from estudio_core.clickstream.session_files import schema

APPLICATION = "bench_clickstream"
SHOWN, POOL = 10, 12
BLOCK = 100_000
FIRST_SECOND, DAYS = 1_750_000_000, 30
_NOUNS, _KINDS = 5_000, 40
_SESSIONS_OF_CLIENT = 5
_CLICK_RATE = 0.12
_HEAD = 0.5
"""Share of the sessions whose query is drawn by rank, as popular ones are; the others ask for anything."""


@dataclass(frozen=True)
class Size:
    """How large a log is, and over what."""

    sessions: int
    queries: int
    items: int

    @classmethod
    def of(cls, sessions: int) -> Size:
        """Return the size with a distinct query and an item for each ten sessions."""
        return cls(sessions, max(sessions // 10, 100), max(sessions // 10, 100))


@dataclass(frozen=True)
class Block:
    """Some sessions of a log as columns; results are [sessions, shown]."""

    ids: pa.Array
    queries: NDArray[np.int64]
    clients: NDArray[np.int64]
    seconds: NDArray[np.int64]
    items: NDArray[np.int64]
    scores: NDArray[np.float64]
    clicked: NDArray[np.bool_]


def blocks(size: Size, seed: int = 0) -> Iterator[Block]:
    """Yield the log in order of time."""
    step = DAYS * 86_400 / size.sessions
    for start in range(0, size.sessions, BLOCK):
        count = min(BLOCK, size.sessions - start)
        rng = np.random.default_rng((seed, start))
        head = np.minimum(rng.zipf(1.3, count) - 1, size.queries - 1)
        query = np.where(rng.random(count) < _HEAD, head % size.queries, rng.integers(0, size.queries, count))
        merit = rng.random((count, POOL)) * 0.02 + (0.9 - 0.03 * np.arange(POOL))
        shuffled = rng.random(count) < 0.2
        merit[shuffled] = rng.random((int(shuffled.sum()), POOL))
        order = np.argsort(-merit, axis=1)[:, :SHOWN]
        item = (_mixed(query)[:, None] + order * (size.items // POOL + 1)) % size.items
        score = 0.9 - 0.03 * order + (_mixed(query[:, None] * POOL + order) % 1000) / 50_000
        attraction = np.where(_mixed(query[:, None] * 31 + order) % 4 == 0, 4 * _CLICK_RATE, _CLICK_RATE)
        clicked = rng.random((count, SHOWN)) < attraction / (1 + np.arange(SHOWN))
        client = rng.integers(0, size.sessions // _SESSIONS_OF_CLIENT + 1, count)
        second = FIRST_SECOND + ((start + np.arange(count)) * step).astype(np.int64)
        yield Block(_hexadecimal(rng.bytes(16 * count)), query, client, second, item, score, clicked)


def query_texts(numbers: NDArray[np.int64]) -> pa.Array:
    """Return the texts of queries: a noun alone, or with a kind, or with kind and brand."""
    kind, brand = numbers // _NOUNS % _KINDS, numbers // (_NOUNS * _KINDS)
    noun = _prefixed("noun", numbers % _NOUNS)
    with_kind = pc.binary_join_element_wise(_prefixed("kind", kind), noun, " ")
    whole = pc.binary_join_element_wise(with_kind, _prefixed("brand", brand), " ")
    return pc.if_else(pa.array(brand > 0), whole, pc.if_else(pa.array(kind > 0), with_kind, noun))


def item_ids(numbers: NDArray[np.int64]) -> pa.Array:
    """Return the ids of items."""
    return _prefixed("p", numbers)


@contextmanager
def loaded(connection: psycopg.Connection, size: Size) -> Iterator[None]:
    """Fill empty tables of the log and of the catalog inside the block, and index them at its end."""
    load_catalog(connection, size.items)
    definitions = _without_indexes(connection, ("ubi_queries", "ubi_events"))
    yield
    for statement in definitions:
        connection.execute(statement)
    connection.execute("ALTER TABLE estudio.ubi_queries ENABLE TRIGGER USER")
    connection.commit()
    connection.autocommit = True
    connection.execute("VACUUM ANALYZE estudio.ubi_queries, estudio.ubi_events")
    connection.autocommit = False


def load(connection: psycopg.Connection, size: Size) -> None:
    """Let the database hold the log of a size, and nothing else of the benchmark."""
    connection.execute("TRUNCATE estudio.ubi_queries, estudio.ubi_events")
    with loaded(connection, size):
        for block in blocks(size):
            _copy_queries(connection, block)
            _copy_events(connection, block)


def load_catalog(connection: psycopg.Connection, items: int) -> None:
    """Let the table of items hold `items` rows, with titles of eight words."""
    connection.execute("DROP TABLE IF EXISTS bench_items")
    connection.execute("CREATE TABLE bench_items (id text, title text NOT NULL)")
    with connection.cursor() as cursor, cursor.copy("COPY bench_items FROM STDIN") as copy:
        for start in range(0, items, BLOCK):
            numbers = np.arange(start, min(start + BLOCK, items))
            words = [_prefixed("word", _mixed(numbers * 8 + place) % 30_000) for place in range(8)]
            copy.write(_lines(item_ids(numbers), pc.binary_join_element_wise(*words, " ")))
    connection.execute("ALTER TABLE bench_items ADD PRIMARY KEY (id)")
    connection.commit()


def _copy_queries(connection: psycopg.Connection, block: Block) -> None:
    columns = "query_id, client_id, user_query, query_response_hit_ids, query_response_scores, timestamp, application"
    scores = pa.array(np.round(block.scores, 6).ravel()).cast(pa.string())
    rows = _lines(
        block.ids,
        _prefixed("c", block.clients),
        query_texts(block.queries),
        _arrays(item_ids(block.items.ravel())),
        _arrays(scores),
        _timestamps(block.seconds),
        _repeated(APPLICATION, len(block.ids)),
    )
    with connection.cursor() as cursor, cursor.copy(f"COPY estudio.ubi_queries ({columns}) FROM STDIN") as copy:
        copy.write(rows)


def _copy_events(connection: psycopg.Connection, block: Block) -> None:
    columns = "event_id, action_name, query_id, client_id, object_id, position_ordinal, timestamp, application"
    session, position = np.nonzero(block.clicked)
    ids = block.ids.take(pa.array(session))
    rows = _lines(
        _event_ids(block, session, position),
        _repeated("click", len(ids)),
        ids,
        _prefixed("c", block.clients[session]),
        item_ids(block.items[session, position]),
        pa.array(position + 1).cast(pa.string()),
        _timestamps(block.seconds[session] + 5 + position),
        _repeated(APPLICATION, len(ids)),
    )
    with connection.cursor() as cursor, cursor.copy(f"COPY estudio.ubi_events ({columns}) FROM STDIN") as copy:
        copy.write(rows)


def _without_indexes(connection: psycopg.Connection, tables: tuple[str, ...]) -> list[str]:
    """Drop indexes and triggers, and return what makes the indexes again: a row at a time they take an hour."""
    statements = []
    for table in tables:
        of_table = f"estudio.{table}"
        keys = connection.execute(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass "
            "AND contype = 'p'",
            [of_table],
        ).fetchall()
        for name, definition in keys:
            alter = sql.SQL("ALTER TABLE estudio.{} ").format(sql.Identifier(table))
            connection.execute(alter + sql.SQL("DROP CONSTRAINT {}").format(sql.Identifier(name)))
            statements.append(f'ALTER TABLE {of_table} ADD CONSTRAINT "{name}" {definition}')
        indexes = connection.execute(
            "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index "
            "WHERE indrelid = %s::regclass",
            [of_table],
        ).fetchall()
        for name, definition in indexes:
            connection.execute(f"DROP INDEX {name}")
            statements.append(definition)
        connection.execute(f"ALTER TABLE {of_table} DISABLE TRIGGER USER")
    return statements


def _mixed(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return numbers without order, the same ones each time (the finaliser of SplitMix64)."""
    mixed = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(2)).astype(np.int64)


def _hexadecimal(data: bytes) -> pa.Array:
    count = len(data) // 16
    offsets = np.arange(count + 1, dtype=np.int32) * 32
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(data.hex().encode()))


def _prefixed(prefix: str, numbers: NDArray[np.int64]) -> pa.Array:
    return pc.binary_join_element_wise(prefix, pa.array(numbers).cast(pa.string()), "")


def _repeated(text: str, count: int) -> pa.Array:
    return pa.repeat(text, count)


def _timestamps(seconds: NDArray[np.int64]) -> pa.Array:
    return pc.strftime(pa.array(seconds).cast(pa.timestamp("s", "UTC")), "%Y-%m-%dT%H:%M:%SZ")


def _arrays(values: pa.Array) -> pa.Array:
    """Return texts as PostgreSQL's arrays of `SHOWN` each."""
    offsets = pa.array(np.arange(0, len(values) + 1, SHOWN, dtype=np.int32))
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, values), ",")
    return pc.binary_join_element_wise("{", joined, "}", "")


def _lines(*columns: pa.Array) -> bytes:
    """Return rows as COPY takes them: no text here has a tab, a backslash or a line's end."""
    rows = pc.binary_join_element_wise(*columns, "\t")
    whole = pa.ListArray.from_arrays(pa.array([0, len(rows)], pa.int32()), rows)
    return pc.binary_join(whole, "\n")[0].as_buffer().to_pybytes() + b"\n"


def stored_batch(block: Block) -> pa.RecordBatch:
    """Return a block as `extract` stores it, without a database."""
    count = len(block.ids)
    nothing = pa.nulls(count, pa.string())
    clicked, position = np.nonzero(block.clicked)
    clicks = block.clicked.sum(axis=1)
    of = schema()
    found: dict[str, pa.Array] = {
        "session_id": block.ids,
        "query": query_texts(block.queries),
        "created_at": pa.array(block.seconds),
        "client_id": pa.array(block.clients).cast(pa.string()),
        "visit_id": nothing,
        "user_id": nothing,
        "is_irrelevant": pa.array(np.zeros(count, dtype=bool)),
        "is_refined": pa.array(np.zeros(count, dtype=bool)),
        "release": nothing,
        "search_meta": nothing,
        "results": _lists(np.full(count, SHOWN), item_ids(block.items.ravel())),
        "ranks": _lists(np.full(count, SHOWN), pa.array(np.round(block.scores, 6).ravel())),
        "positions": pa.nulls(count, pa.list_(pa.int32())),
        "events.result": _lists(clicks, pa.array(position.astype(np.int32))),
        "events.importance": _lists(clicks, pa.array(np.ones(len(position)))),
        "events.event_id": _lists(clicks, _event_ids(block, clicked, position)),
        "events.event_type": _lists(clicks, _repeated("click", len(position))),
        "events.created_at": _lists(clicks, pa.array(block.seconds[clicked] + 5 + position)),
    }
    return pa.record_batch([found[name] for name in of.names], schema=of)


def store(size: Size, path: Path) -> None:
    """Write the log of a size as `extract` does."""
    with pq.ParquetWriter(path, schema(), compression="zstd") as writer:
        for block in blocks(size):
            writer.write_batch(stored_batch(block), row_group_size=50_000)


def _event_ids(block: Block, session: NDArray[np.int64], position: NDArray[np.int64]) -> pa.Array:
    return pc.binary_join_element_wise(block.ids.take(pa.array(session)), pa.array(position).cast(pa.string()), "/")


def _lists(lengths: NDArray[np.int64], values: pa.Array) -> pa.Array:
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(starts), values)
