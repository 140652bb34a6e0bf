"""`python -m benchmarks.words SIZE`: build, size, write and search of each way, over generated texts."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psycopg
import typer

from benchmarks.index.generated import BATCH, generated_texts, query_texts
from benchmarks.machine import describe
from benchmarks.words.representations import REPRESENTATIONS, Representation
from estudio_core import embedded_postgres
from estudio_core.database import migrate

QUERIES, WRITTEN = 200, 100
"""Queries of 1 to 8 words, common and rare ones; objects of one write."""


def main(
    sizes: Annotated[str, typer.Argument(help="Texts, with commas.")] = "20000,200000",
    only: Annotated[str, typer.Option(help="Part of a name.")] = "",
) -> None:
    """Print a table of all ways at these sizes."""
    print(f"{describe()}\n")
    print("| texts | way | build, s | size, MB | write of 100, ms | p50, ms | p99, ms | ten best found |")
    print("|---|---|---|---|---|---|---|---|")
    for size in map(int, sizes.split(",")):
        with _database() as connection:
            values = _load(connection, size)
            truth: list[set[str]] | None = None
            for way in sorted(REPRESENTATIONS, key=lambda way: not way.exact):
                if only in way.name:
                    truth = _measure(connection, way, size, values, truth)


@contextmanager
def _database() -> Iterator[psycopg.Connection]:
    folder = Path(tempfile.mkdtemp(prefix="estudio-words-"))
    url = embedded_postgres.start(folder / "postgres")
    try:
        migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection
    finally:
        embedded_postgres.stop(folder / "postgres")
        shutil.rmtree(folder, ignore_errors=True)


def _load(connection: psycopg.Connection, size: int) -> dict[str, Any]:
    connection.execute("SET maintenance_work_mem = '1GB'; SET work_mem = '128MB'")
    connection.execute("CREATE TABLE w_documents (object_id text, document tsvector)")
    for first in range(0, size, BATCH):
        texts = generated_texts(first // BATCH)[: size - first]
        connection.execute(
            "INSERT INTO w_documents SELECT (%s + place)::text, estudio.words('english', body)"
            " FROM unnest(%s::text[]) WITH ORDINALITY AS t (body, place)",
            (first, texts),
        )
    connection.execute("CREATE INDEX ON w_documents (object_id)")
    connection.execute(
        "CREATE TABLE w_terms AS SELECT word, ndoc AS documents FROM ts_stat('SELECT document FROM w_documents')"
        " AS s (word, ndoc, nentry)"
    )
    connection.execute("CREATE INDEX ON w_terms (word) INCLUDE (documents)")
    connection.execute("ANALYZE w_documents, w_terms")
    row = connection.execute(
        "SELECT avg((SELECT sum(coalesce(cardinality(positions), 1)) FROM unnest(document))) FROM w_documents"
    ).fetchone()
    assert row is not None
    return {"average": float(row[0]), "total": float(size)}


def _measure(
    connection: psycopg.Connection, way: Representation, size: int, values: dict[str, Any], truth: list[set[str]] | None
) -> list[set[str]]:
    began = time.perf_counter()
    for statement in way.build:
        connection.execute(statement, values)
    build = time.perf_counter() - began
    for table in way.tables:
        connection.execute(f"VACUUM ANALYZE {table}")
    sizes = [connection.execute(f"SELECT pg_total_relation_size('{table}')").fetchone() for table in way.tables]
    connection.execute("SET enable_seqscan = off; SET hnsw.ef_search = 100; SET jit = off")
    latencies, found = [], []
    for text in query_texts(QUERIES):
        began = time.perf_counter()
        rows = connection.execute(way.search, values | {"text": text}, prepare=True).fetchall()
        latencies.append(1000 * (time.perf_counter() - began))
        found.append({row[0] for row in rows})
    writes = []
    for number in range(5):
        ids = [str(1 + number * WRITTEN + i) for i in range(WRITTEN)]
        began = time.perf_counter()
        with connection.transaction():
            connection.execute(way.delete, values | {"ids": ids})
            connection.execute(way.insert, values | {"ids": ids})
        writes.append(1000 * (time.perf_counter() - began))
    truth = truth or found
    shares = [len(one & best) / len(best) for one, best in zip(found, truth, strict=True) if best]
    p50, p99 = np.percentile(latencies, [50, 99])
    mb = sum(row[0] for row in sizes if row) / 2**20
    print(
        f"| {size:,} | {way.name} | {build:.1f} | {mb:,.0f} | {np.median(writes):.0f} | {p50:.1f} | {p99:.1f}"
        f" | {np.mean(shares):.3f} |",
        flush=True,
    )
    for table in way.tables:
        connection.execute(f"DROP TABLE {table}")
    return truth


if __name__ == "__main__":
    typer.run(main)
