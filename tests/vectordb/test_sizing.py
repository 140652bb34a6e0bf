"""What a build needs, and what its server gives."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest

from estudio_core.settings import get_settings
from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.index_build import build_index
from estudio_core.vectordb.index_info import MetricAggregationType, SearchIndexInfo, VectorStorage
from estudio_core.vectordb.objects import IndexedObject
from estudio_core.vectordb.search import find_by_ids, search
from estudio_core.vectordb.sizing import Server, build_memory_mb, server, size_of

ROWS, DIMENSIONS = 3_000, 256
HERE = Server(memory_mb=6_000, workers=1, free_mb=100_000)


def filled(conn: psycopg.Connection, info: SearchIndexInfo) -> tuple[Collection, np.ndarray]:
    vectors = np.random.default_rng(1).standard_normal((ROWS, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    collection = Collection(f"sized_{info.vector_type}", info)
    collection.create(conn)
    collection.copy_objects(
        conn,
        (
            IndexedObject(str(n), {"title": f"lamp {n}"}, "h", row[None], text=f"lamp {n}")
            for n, row in enumerate(vectors)
        ),
    )
    return collection, vectors


@pytest.mark.parametrize("storage", list(VectorStorage))
def test_the_memory_that_is_computed_is_enough_and_little_more(
    conn: psycopg.Connection, storage: VectorStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = SearchIndexInfo(dimensions=DIMENSIONS, storage=storage, lexical=None)
    collection, vectors = filled(conn, info)
    monkeypatch.setattr("estudio_core.vectordb.sizing.LEAST_MEMORY_MB", 1)
    needed = build_memory_mb(ROWS, info)
    assert not [
        n for n in build_index(conn, collection, maintenance_memory_mb=needed, parallel_workers=0) if "fit" in n
    ]
    conn.execute(f"DROP INDEX estudio.{collection.name('hnsw')}")  # type: ignore[arg-type]
    less = int(needed * 0.7)
    assert [
        n
        for n in build_index(conn, collection, maintenance_memory_mb=less, parallel_workers=0)
        if "no longer fits" in n
    ]
    row = conn.execute(
        "SELECT sum(pg_total_relation_size(to_regclass('estudio.' || name))) / 2.0 ^ 20 FROM unnest(%s::text[]) name",
        ([collection.name("objects"), collection.name("parts")],),
    ).fetchone()
    assert row is not None
    assert size_of(ROWS, ROWS, 20, info, HERE).disk_mb == pytest.approx(float(row[0]), rel=0.35)
    hits = [search(conn, collection, vector, limit=1)[0].object_id for vector in vectors[:50]]
    assert hits == [str(n) for n in range(50)]
    [kept] = find_by_ids(conn, collection, ["7"], with_vectors=True)
    assert kept.vectors is not None
    assert np.abs(kept.vectors[0] - vectors[7]).max() <= (1e-3 if storage == VectorStorage.HALFVEC else 0)


def test_half_vectors_and_averages_need_less(conn: psycopg.Connection) -> None:
    whole = size_of(1_000_000, 3_000_000, 500, SearchIndexInfo(dimensions=384), HERE)
    half = size_of(1_000_000, 3_000_000, 500, SearchIndexInfo(dimensions=384, storage=VectorStorage.HALFVEC), HERE)
    averaged = SearchIndexInfo(dimensions=384, metric_aggregation_type=MetricAggregationType.AVG)
    assert (whole.rows, size_of(1_000_000, 3_000_000, 500, averaged, HERE).rows) == (3_000_000, 1_000_000)
    assert half.memory_mb < 0.72 * whole.memory_mb
    assert half.disk_mb < 0.65 * whole.disk_mb


def test_a_graph_beyond_the_memory_takes_much_longer() -> None:
    info = SearchIndexInfo(dimensions=384)
    fits, not_quite = size_of(2_000_000, 2_000_000, 500, info, HERE), size_of(4_000_000, 4_000_000, 500, info, HERE)
    assert fits.memory_mb < HERE.memory_mb < not_quite.memory_mb
    assert not_quite.seconds > 5 * fits.seconds


def test_a_server_is_asked_what_it_gives(conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    given = server(conn)
    assert given.free_mb is not None
    assert given.memory_mb >= 512
    conn.execute("SET maintenance_work_mem = '2000GB'")
    assert server(conn).memory_mb == 2_048_000, "what its administrator allows"
    monkeypatch.setenv("ESTUDIO_INDEX_MEMORY_MB", "300")
    get_settings.cache_clear()
    assert server(conn).memory_mb == 300
    monkeypatch.undo()
    get_settings.cache_clear()
