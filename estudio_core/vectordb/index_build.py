"""Build a collection's indexes after its load: HNSW on the vectors, GIN on the payload, words, statistics."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context

import psycopg
from psycopg import sql

from estudio_core import database, progress
from estudio_core.database import SCHEMA
from estudio_core.errors import DatabaseUnavailableError
from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.field_indexes import field_indexes
from estudio_core.vectordb.sizing import build_memory_mb, count_rows, server
from estudio_core.vectordb.words import build_words


def build_index(
    conn: psycopg.Connection,
    collection: Collection,
    *,
    maintenance_memory_mb: int | None = None,
    parallel_workers: int | None = None,
    progress_interval_s: float = 1.0,
) -> list[str]:
    """Create the indexes that are missing, and ANALYZE; a valid index is left as it is.

    Each is a transaction of its own, so that a build that is killed late keeps the vector index, which takes longest.

    Args:
        conn: Connection to Estudio's database.
        collection: A loaded collection.
        maintenance_memory_mb: Memory of the build; the graph should fit (PostgreSQL notes it when it does not, and goes
            on many times slower). None: what the graph needs, as far as `sizing.server` gives it.
        parallel_workers: Processes beside this one; None takes what the server gives.
        progress_interval_s: Seconds between two reports of `estudio_core.progress`.

    Returns:
        The notices of PostgreSQL, e.g. that the graph no longer fits into memory.
    """
    given = server(conn)
    workers = given.workers if parallel_workers is None else parallel_workers
    needed = build_memory_mb(count_rows(conn, collection.parts, searched_rows(collection)), collection.index_info)
    memory_mb = maintenance_memory_mb or min(needed, given.memory_mb)
    notices: list[str] = []

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        notices.append(diagnostic.message_primary or "")

    conn.add_notice_handler(note)
    try:
        with _reporting(conn, collection, progress_interval_s):
            try:
                _build(conn, collection, memory_mb, workers)
            except psycopg.errors.DiskFull:
                # Parallel builds want the memory as shared memory, of which containers often have 64 MB.
                _build(conn, collection, memory_mb, 0)
    finally:
        conn.remove_notice_handler(note)
    return notices


def index_is_valid(conn: psycopg.Connection, collection: Collection) -> bool:
    """Return whether the collection has its vector index, complete and usable."""
    return _validity(conn, collection.name("hnsw")) is True


def _build(conn: psycopg.Connection, collection: Collection, memory_mb: int, workers: int) -> None:
    info = collection.index_info.hnsw
    with _memory(conn, memory_mb, workers):
        _create(
            conn,
            collection.name("hnsw"),
            sql.SQL(
                "CREATE INDEX {} ON {} USING hnsw (embedding {}) WITH (m = {}, ef_construction = {}) WHERE {}"
            ).format(
                sql.Identifier(collection.name("hnsw")),
                collection.parts,
                collection.operator_class,
                sql.Literal(info.m),
                sql.Literal(max(info.ef_construction, 2 * info.m)),
                searched_rows(collection),
            ),
        )
    with _memory(conn, memory_mb, workers):
        _create(
            conn,
            collection.name("payload"),
            # jsonb_path_ops: containment is all that filters ask of the index, at a third of the default's size.
            sql.SQL("CREATE INDEX {} ON {} USING gin (payload jsonb_path_ops)").format(
                sql.Identifier(collection.name("payload")), collection.objects
            ),
        )
        for index in field_indexes(collection.index_info):
            _create(
                conn,
                collection.name(index.suffix),
                sql.SQL("CREATE INDEX {} ON {} USING {} ({}) WHERE user_id IS NULL").format(
                    sql.Identifier(collection.name(index.suffix)), collection.objects, index.method, index.on
                ),
            )
        _create(
            conn,
            collection.name("user"),
            sql.SQL("CREATE INDEX {} ON {} (user_id) WHERE user_id IS NOT NULL").format(
                sql.Identifier(collection.name("user")), collection.parts
            ),
        )
        if not _has_foreign_key(conn, collection):
            # After the load: checked in one join instead of once per row.
            conn.execute(
                sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY (object_id) REFERENCES {}").format(
                    collection.parts, sql.Identifier(collection.name("object")), collection.objects
                )
            )
    with _memory(conn, memory_mb, workers):
        build_words(conn, collection)
    with conn.transaction():
        conn.execute(sql.SQL("ANALYZE {}, {}").format(collection.objects, collection.parts))


def searched_rows(collection: Collection, table: sql.SQL = sql.SQL("")) -> sql.Composable:  # noqa: B008 (immutable)
    """Return the condition of the rows in the vector index: everybody's, and only averages where those are searched.

    `table` is put before the column names, e.g. `p.`.

    Personal rows are few per user and are compared exactly; in the index they would stand in everybody's way.
    """
    condition = sql.SQL("{0}user_id IS NULL AND {0}is_average" if collection.averages else "{0}user_id IS NULL")
    return condition.format(table)


@contextmanager
def _memory(conn: psycopg.Connection, memory_mb: int, workers: int) -> Iterator[None]:
    """Hold a transaction in which the server builds indexes with this memory and so many further processes."""
    with conn.transaction():
        before = conn.execute(
            "SELECT current_setting('maintenance_work_mem'), current_setting('max_parallel_maintenance_workers')"
        ).fetchone()
        assert before is not None
        _set_build(conn, f"{memory_mb}MB", str(workers))
        yield
        _set_build(conn, *before)


def _set_build(conn: psycopg.Connection, memory: str, workers: str) -> None:
    conn.execute(
        "SELECT set_config('maintenance_work_mem', %s, true), set_config('max_parallel_maintenance_workers', %s, true)",
        (memory, workers),
    )


def _create(conn: psycopg.Connection, name: str, statement: sql.Composed) -> None:
    valid = _validity(conn, name)
    if valid is False:
        conn.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(SCHEMA, name)))
    if not valid:
        conn.execute(statement)


def _validity(conn: psycopg.Connection, name: str) -> bool | None:
    row = conn.execute(
        "SELECT i.indisvalid AND i.indisready FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s",
        (SCHEMA, name),
    ).fetchone()
    return None if row is None else bool(row[0])


def _has_foreign_key(conn: psycopg.Connection, collection: Collection) -> bool:
    row = conn.execute(
        "SELECT 1 FROM pg_constraint WHERE conname = %s AND conrelid = %s::regclass AND contype = 'f'",
        (collection.name("object"), collection.parts.as_string(conn)),
    ).fetchone()
    return row is not None


@contextmanager
def _reporting(conn: psycopg.Connection, collection: Collection, interval_s: float) -> Iterator[None]:
    """Report `pg_stat_progress_create_index` of this session from a second connection while the block runs."""
    stop = threading.Event()
    pid = conn.info.backend_pid

    def watch() -> None:
        with suppress(psycopg.Error, DatabaseUnavailableError), database.connect(autocommit=True) as watcher:
            while not stop.wait(interval_s):
                row = watcher.execute(
                    "SELECT phase, tuples_done, tuples_total FROM pg_stat_progress_create_index WHERE pid = %s", (pid,)
                ).fetchone()
                if row is not None:
                    progress.report(f"index {collection.collection_id}", row[1], row[2] or None, "rows", row[0])

    thread = threading.Thread(target=copy_context().run, args=(watch,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=10)
