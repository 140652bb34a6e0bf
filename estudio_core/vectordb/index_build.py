"""Build a collection's indexes after its load: HNSW on the vectors, GIN on the payload, words, statistics."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context

import psycopg
from psycopg import sql

from estudio_core import database, progress
from estudio_core.database import SCHEMA
from estudio_core.errors import DatabaseUnavailableError
from estudio_core.settings import get_settings
from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.words import build_words

LEAST_MEMORY_MB, MOST_REMOTE_MEMORY_MB = 128, 512
"""PostgreSQL's own 64 MB build very slowly; of a server elsewhere we do not know how much it has."""
MOST_SHARE_OF_MEMORY = 0.25
"""Of this machine's memory, where the server is here."""


def build_index(
    conn: psycopg.Connection,
    collection: Collection,
    *,
    maintenance_memory_mb: int | None = None,
    parallel_workers: int | None = None,
    progress_interval_s: float = 1.0,
) -> list[str]:
    """Create the indexes that are missing, in one transaction, and ANALYZE; a valid index is left as it is.

    Args:
        conn: Connection to Estudio's database.
        collection: A loaded collection.
        maintenance_memory_mb: Memory of the build; the graph should fit (PostgreSQL notes it when it does not, and goes
            on many times slower). None: the setting `index_memory_mb`, else `build_memory_mb`.
        parallel_workers: Processes beside this one; None takes one less than there are cores.
        progress_interval_s: Seconds between two reports of `estudio_core.progress`.

    Returns:
        The notices of PostgreSQL, e.g. that the graph no longer fits into memory.
    """
    workers = max(0, (os.cpu_count() or 1) - 1) if parallel_workers is None else parallel_workers
    memory_mb = maintenance_memory_mb or get_settings().index_memory_mb or build_memory_mb(conn, collection)
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


def build_memory_mb(conn: psycopg.Connection, collection: Collection) -> int:
    """Return the memory that the graph of a loaded collection needs, MB, as far as its server can be asked for it."""
    row = conn.execute(
        sql.SQL("SELECT count(*) FROM {} WHERE {}").format(collection.parts, searched_rows(collection))
    ).fetchone()
    assert row is not None
    info = collection.index_info
    number_bytes = 2 if collection.vector_type == "halfvec" else 4
    # A vector, its place in the table, and 16 bytes for each neighbour: 2 m on the lowest level, m on those above.
    needed = int(row[0]) * (info.dimensions * number_bytes + 40 * info.hnsw.m + 200) / 2**20 * 1.1
    return max(LEAST_MEMORY_MB, min(round(needed), _most_memory_mb(conn)))


def _most_memory_mb(conn: psycopg.Connection) -> int:
    host = conn.info.host
    if not (host.startswith("/") or host in {"localhost", "127.0.0.1", "::1"}):
        return MOST_REMOTE_MEMORY_MB
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(MOST_REMOTE_MEMORY_MB, int(memory * MOST_SHARE_OF_MEMORY / 2**20))


def index_is_valid(conn: psycopg.Connection, collection: Collection) -> bool:
    """Return whether the collection has its vector index, complete and usable."""
    return _validity(conn, collection.name("hnsw")) is True


def _build(conn: psycopg.Connection, collection: Collection, memory_mb: int, workers: int) -> None:
    info = collection.index_info.hnsw
    with conn.transaction():
        before = conn.execute(
            "SELECT current_setting('maintenance_work_mem'), current_setting('max_parallel_maintenance_workers')"
        ).fetchone()
        assert before is not None
        _set_build(conn, f"{memory_mb}MB", str(workers))
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
        _create(
            conn,
            collection.name("payload"),
            # jsonb_path_ops: containment is all that filters ask of the index, at a third of the default's size.
            sql.SQL("CREATE INDEX {} ON {} USING gin (payload jsonb_path_ops)").format(
                sql.Identifier(collection.name("payload")), collection.objects
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
        build_words(conn, collection)
        _set_build(conn, *before)
        conn.execute(sql.SQL("ANALYZE {}, {}").format(collection.objects, collection.parts))


def searched_rows(collection: Collection, table: sql.SQL = sql.SQL("")) -> sql.Composable:  # noqa: B008 (immutable)
    """Return the condition of the rows in the vector index: everybody's, and only averages where those are searched.

    `table` is put before the column names, e.g. `p.`.

    Personal rows are few per user and are compared exactly; in the index they would stand in everybody's way.
    """
    condition = sql.SQL("{0}user_id IS NULL AND {0}is_average" if collection.averages else "{0}user_id IS NULL")
    return condition.format(table)


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
