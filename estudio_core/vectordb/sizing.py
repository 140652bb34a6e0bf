"""What a collection will need: memory and time of its vector index, disk; and what its server has to give.

Sizes follow from pgvector's layout: in memory an element of the graph is its vector, its place in the table and 16
bytes for each neighbour (2 m on the lowest level, m on those above); on disk elements fill pages of 8 kB. Times are
those of one machine, see `_ROW_S`; they tell hours from days.
"""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass

import psycopg
from psycopg import sql

from estudio_core.settings import get_settings
from estudio_core.vectordb.index_info import MetricAggregationType, SearchIndexInfo

LEAST_MEMORY_MB, MOST_REMOTE_MEMORY_MB = 128, 512
"""PostgreSQL's own 64 MB build very slowly; of a server elsewhere that does not say what it has, we ask no more."""
MOST_SHARE_OF_MEMORY = 0.25
"""Of this machine's memory, where the server is here."""
MOST_SHARE_OF_CACHE = 0.5
"""Of what a server elsewhere says it has for its files (`effective_cache_size`), where somebody has set that."""
_ROW_S = 1.1e-3
"""Seconds of one process for a row of 384 numbers in a graph of 2^20 rows, m = 16, ef_construction = 64, by which the
others are estimated: a million rows took 387 s of three processes on two cores that did other work as well."""
_BEYOND_MEMORY = 10
"""How many times longer a row takes whose graph does not fit into the memory of the build; more on slow disks."""
_PAGE, _SPARE = 8192, 1.15


@dataclass(frozen=True)
class Server:
    """What the database's server gives to a build.

    Attributes:
        memory_mb: Most that a build asks for.
        workers: Processes beside the one that builds.
        free_mb: Space of its disk; None where that is not known.
    """

    memory_mb: int
    workers: int
    free_mb: float | None


@dataclass(frozen=True)
class Size:
    """What a collection will need.

    Attributes:
        rows: Vectors in the index.
        memory_mb: Of the graph while it is built.
        disk_mb: Of tables and indexes.
        seconds: Of the build of the vector index, on this server.
    """

    rows: int
    memory_mb: int
    disk_mb: float
    seconds: float


def server(conn: psycopg.Connection) -> Server:
    """Ask the server what it gives to a build."""
    row = conn.execute(
        "SELECT least(current_setting('max_parallel_workers')::int, current_setting('max_worker_processes')::int),"
        " (SELECT setting::bigint / 1024 FROM pg_settings WHERE name = 'maintenance_work_mem'),"
        " (SELECT setting::bigint * 8 / 1024 FROM pg_settings WHERE name = 'effective_cache_size'"
        " AND source <> 'default'), (SELECT setting FROM pg_settings WHERE name = 'data_directory')"
    ).fetchone()
    assert row is not None
    workers, own_mb, cache_mb, folder = row
    free_mb = None
    if _is_here(conn):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        most = int(memory * MOST_SHARE_OF_MEMORY / 2**20)
        workers = min(workers, max(0, (os.cpu_count() or 1) - 1))
        if folder and os.path.isdir(folder):
            free_mb = shutil.disk_usage(folder).free / 2**20
    else:
        most = int((cache_mb or 0) * MOST_SHARE_OF_CACHE)
    return Server(get_settings().index_memory_mb or max(MOST_REMOTE_MEMORY_MB, own_mb, most), workers, free_mb)


def build_memory_mb(rows: int, info: SearchIndexInfo) -> int:
    """Return the memory that the graph of `rows` vectors needs, MB.

    >>> build_memory_mb(1_000_000, SearchIndexInfo(dimensions=384))
    2501
    """
    return max(LEAST_MEMORY_MB, round(rows * (_vector_bytes(info) + 40 * info.hnsw.m + 200) / 2**20 * 1.1))


def size_of(objects: int, parts: int, text_bytes: float, info: SearchIndexInfo, given: Server) -> Size:
    """Return what a collection of `objects` in `parts`, with texts and payloads of `text_bytes` each, needs."""
    averages = info.metric_aggregation_type == MetricAggregationType.AVG
    rows = objects if averages else parts
    stored = parts + objects if averages else parts
    vector = _vector_bytes(info)
    # Vectors of over 2 kB lie outside their row; that costs little more than what is counted here.
    element = vector + 6 * 2 * info.hnsw.m + 60
    index = rows * (_PAGE / max(1, _PAGE // element) if element < _PAGE else element)
    words = objects * (200 + 2.5 * text_bytes) if info.lexical is not None else 0
    disk = stored * (vector + 150) + objects * (250 + 1.5 * text_bytes) + index + words
    memory_mb = build_memory_mb(rows, info)
    row_s = _ROW_S * (info.dimensions + 200) / 584 * max(1.0, info.hnsw.ef_construction / 64) * math.log2(rows + 2) / 20
    fitting = rows if memory_mb <= given.memory_mb else int(rows * given.memory_mb / memory_mb)
    seconds = row_s * fitting / (given.workers + 1) + row_s * _BEYOND_MEMORY * (rows - fitting)
    return Size(rows, memory_mb, disk * _SPARE / 2**20, seconds)


def count_rows(conn: psycopg.Connection, table: sql.Identifier, condition: sql.Composable) -> int:
    """Return the number of rows that meet a condition."""
    row = conn.execute(sql.SQL("SELECT count(*) FROM {} WHERE {}").format(table, condition)).fetchone()
    assert row is not None
    return int(row[0])


def _vector_bytes(info: SearchIndexInfo) -> int:
    return info.dimensions * info.number_bytes + 8


def _is_here(conn: psycopg.Connection) -> bool:
    return conn.info.host.startswith("/") or conn.info.host in {"localhost", "127.0.0.1", "::1"}
