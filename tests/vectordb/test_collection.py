"""Tables of a collection: load, replace, delete, index, ownership; what is refused before it reaches SQL."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql

from estudio_core.errors import ConfigurationError, DimensionError, ItemError, ReleaseError
from estudio_core.progress import Progress, progress_to
from estudio_core.vectordb.collection import Collection, CopyCount, slug
from estudio_core.vectordb.index_build import build_index, index_is_valid
from estudio_core.vectordb.index_info import MetricAggregationType, MetricType, SearchIndexInfo
from estudio_core.vectordb.objects import IndexedObject, KeptObject
from estudio_core.vectordb.optimization import (
    Optimization,
    PgvectorObjectsOptimization,
    PgvectorPartsOptimization,
    apply_optimizations,
)
from estudio_core.vectordb.search import count, find_by_ids, search

INFO = SearchIndexInfo(dimensions=3)
NASTY = "'); DROP TABLE estudio.deployments; -- \" % {} \\ Ü"


@pytest.fixture
def collection(conn: psycopg.Connection) -> Collection:
    created = Collection("shop_1", INFO)
    created.create(conn)
    return created


def item(object_id: str = "a", vectors: Any = ((1.0, 2.0, 3.0),), **more: Any) -> IndexedObject:
    return IndexedObject(object_id, more.pop("payload", {}), "hash", np.array(vectors, dtype=float), **more)


def test_copy_replaces_rows_of_the_same_ids(conn: psycopg.Connection, collection: Collection) -> None:
    first = [item("a", [[1, 0, 0], [0, 1, 0]], payload={"v": 1}), item("b")]
    assert collection.copy_objects(conn, first) == CopyCount(objects=2, parts=3)
    assert collection.copy_objects(conn, first) == CopyCount(objects=2, parts=3)
    collection.copy_objects(conn, [item("a", [[0, 0, 1]], payload={"v": 2})])
    stats = collection.stats(conn)
    assert (stats.objects, stats.parts) == (2, 2)
    (stored,) = find_by_ids(conn, collection, ["a", "missing"], with_vectors=True)
    assert stored.payload == {"v": 2}
    assert stored.vectors is not None
    assert stored.vectors.tolist() == [[0, 0, 1]]


def test_a_personal_row_takes_the_place_of_the_same_users_row_for_the_same_original(
    conn: psycopg.Connection, collection: Collection
) -> None:
    collection.copy_objects(conn, [item("a"), item("first", user_id="ann", original_id="a")])
    others = [item("bob's", user_id="bob", original_id="a"), item("b's", user_id="ann", original_id="b")]
    collection.copy_objects(conn, [*others, item("second", user_id="ann", original_id="a")])
    rows = conn.execute(sql.SQL("SELECT object_id FROM {} ORDER BY 1").format(collection.objects)).fetchall()
    assert [row[0] for row in rows] == ["a", "b's", "bob's", "second"]


def test_replaced_vectors_bring_their_average(conn: psycopg.Connection) -> None:
    collection = Collection("avg", SearchIndexInfo(dimensions=3, metric_aggregation_type=MetricAggregationType.AVG))
    collection.create(conn)
    collection.copy_objects(conn, [item("a", [[1, 0, 0], [0, 1, 0]], payload={"v": 1}), item("b", [[1, 0, 0]])])
    collection.replace_vectors(conn, {"a": np.array([[0, 0, 1], [0, 1, 0], [0, 1, 0]])})
    assert collection.stats(conn).parts == 4
    (nearest, _) = search(conn, collection, [0, 2, 1])
    assert (nearest.object_id, nearest.distance, nearest.payload) == ("a", pytest.approx(0, abs=1e-6), {"v": 1})
    with pytest.raises(DimensionError):
        collection.replace_vectors(conn, {"a": np.ones((1, 2))})
    collection.replace_vectors(conn, {})
    assert collection.stats(conn).parts == 4


def test_copy_is_part_of_the_callers_transaction(conn: psycopg.Connection, collection: Collection) -> None:
    with conn.transaction(force_rollback=True):
        collection.copy_objects(conn, [item()])
    assert collection.stats(conn).objects == 0


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (item("bad", [[1.0, 2.0]]), DimensionError, r"'bad'.*\(1, 2\).*\[parts, 3\]"),
        (item("bad", [1.0, 2.0, 3.0]), DimensionError, "'bad'"),
        (item("bad", np.zeros((0, 3))), ItemError, "no part"),
        (item("bad", [[0.0, 0.0, 0.0]]), ItemError, "zero"),
        (item("bad", [[1.0, np.nan, 0.0]]), ItemError, "finite"),
        (item("bad", [[1.0, np.inf, 0.0]]), ItemError, "finite"),
        (item("a"), ItemError, "comes twice"),
        (item(""), ItemError, "empty id"),
        (item("b\x00"), ItemError, "UTF-8"),
        (item("bad", text="b\x00"), ItemError, "UTF-8"),
        (item("b" * 1_201), ItemError, "has 1,201 bytes"),
        (item("bad", user_id="u", original_id="ö" * 601), ItemError, "original_id 'ö.* of object 'bad' has 1,202"),
        (item("bad", payload={"x": float("nan")}), ItemError, "no JSON"),
        (item("bad", payload={"x": "\x00"}), ItemError, "JSON object"),
        (item("bad", payload=["x"]), ItemError, "JSON object"),
        (item("bad", payload=None), ItemError, "no payload"),
        (item("bad", user_id="u"), ItemError, "personal row"),
    ],
)
def test_unusable_items_are_refused_by_name_and_nothing_is_written(
    conn: psycopg.Connection, collection: Collection, bad: IndexedObject, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        collection.copy_objects(conn, [item("a"), bad])
    assert collection.stats(conn).objects == 0


def test_parts_that_cancel_out_have_no_average(conn: psycopg.Connection) -> None:
    info = SearchIndexInfo(dimensions=2, metric_aggregation_type=MetricAggregationType.AVG)
    averaged = Collection("avg", info)
    averaged.create(conn)
    with pytest.raises(ItemError, match="cancel"):
        averaged.copy_objects(conn, [item("a", [[1.0, 0.0], [-1.0, 0.0]])])


def test_payloads_of_one_batch_stay_apart(conn: psycopg.Connection, collection: Collection) -> None:
    payloads = [
        {},
        {"x": [{"y": None}, ", ", '"']},
        {"z": ', "\\u0000", '},
        {"a": "Ü\n\x1e"},
        {"b": {"c": [1.5, True]}},
    ]
    collection.copy_objects(conn, [item(str(n), payload=payload) for n, payload in enumerate(payloads)])
    assert [found.payload for found in find_by_ids(conn, collection, list("01234"))] == payloads
    collection.copy_objects(conn, [item(str(n), payload=payload) for n, payload in enumerate(payloads[::-1])])
    assert [found.payload for found in find_by_ids(conn, collection, list("43210"))] == payloads


def test_ids_of_any_length_and_personal_rows_are_packed_together(
    conn: psycopg.Connection, collection: Collection
) -> None:
    rows = {"a": [[1, 0, 0]], "üü": [[0, 1, 0], [0, 2, 0]], "a-long-id": [[0, 0, 1]] * 3, "b": [[1, 1, 0], [2, 0, 0]]}
    items = [item(object_id, vectors) for object_id, vectors in rows.items()]
    own = item("mine", [[5, 5, 5]], payload=None, user_id="änn", original_id="a")
    assert collection.copy_objects(conn, [*items, own]) == CopyCount(objects=5, parts=9)
    for stored in find_by_ids(conn, collection, list(rows), with_vectors=True):
        assert stored.vectors is not None
        assert stored.vectors.tolist() == rows[stored.object_id]
    (hit,) = search(conn, collection, [0, 0, 1], limit=1)
    assert (hit.object_id, hit.part) == ("a-long-id", 0)
    assert search(conn, collection, [5, 5, 5], user_id="änn")[0].personal


def test_literal_backslash_u0000_in_a_payload_is_kept(conn: psycopg.Connection, collection: Collection) -> None:
    collection.copy_objects(conn, [item(payload={"x": "\\u0000"})])
    assert find_by_ids(conn, collection, ["a"])[0].payload == {"x": "\\u0000"}


def test_delete_takes_personal_rows_along_and_is_idempotent(conn: psycopg.Connection, collection: Collection) -> None:
    collection.copy_objects(conn, [item("a"), item("b"), item("a-ann", payload=None, user_id="ann", original_id="a")])
    build_index(conn, collection)
    assert collection.delete_objects(conn, ["a", "missing"]) == 1
    assert collection.delete_objects(conn, ["a", "missing"]) == 0
    stats = collection.stats(conn)
    assert (stats.objects, stats.personal_objects, stats.parts) == (1, 0, 1)


def test_kept_items_change_payload_and_source_hash_and_leave_vectors(
    conn: psycopg.Connection, collection: Collection
) -> None:
    collection.copy_objects(conn, [item("a"), item("b"), item("a-ann", payload=None, user_id="ann", original_id="a")])
    assert collection.keep_objects(conn, [KeptObject("a", {"price": 3}, "hash", "row 2")])
    assert count(conn, collection, {"term": {"price": 3}}) == 1
    assert collection.source_hashes(conn, ["a", "b", "a-ann"]) == {"a": "row 2", "b": None}
    assert collection.content_hashes(conn, ["a", "b", "missing"]) == {"a": "hash", "b": "hash"}
    assert collection.stats(conn).parts == 3


@pytest.mark.parametrize("changed", [KeptObject("a", {}, "another hash"), KeptObject("missing", {}, "hash")])
def test_nothing_is_kept_of_an_object_that_has_changed_meanwhile(
    conn: psycopg.Connection, collection: Collection, changed: KeptObject
) -> None:
    collection.copy_objects(conn, [item("a"), item("b")])
    assert not collection.keep_objects(conn, [KeptObject("b", {"price": 3}, "hash"), changed])
    assert count(conn, collection, {"exists": "price"}) == 0


def test_an_unknown_language_is_named(conn: psycopg.Connection) -> None:
    with pytest.raises(ConfigurationError, match="'klingon'"):
        Collection("k", SearchIndexInfo(dimensions=3, text_config="klingon")).create(conn)


def test_every_text_may_hold_anything(conn: psycopg.Connection) -> None:
    collection = Collection(NASTY, INFO)
    collection.create(conn)
    collection.copy_objects(
        conn,
        [item(NASTY, payload={NASTY: NASTY}), item("p", payload=None, user_id=NASTY, original_id=NASTY)],
    )
    build_index(conn, collection)
    apply_optimizations(conn, collection, [PgvectorObjectsOptimization(NASTY, "ANALYZE {table}")])
    for condition in (
        {"term": {"field": [NASTY], "value": NASTY}},
        {"exists": [NASTY]},
        {"match": {"field": [NASTY], "value": "DROP TABLE"}},
        {"wildcard": {"field": [NASTY], "value": "')*%*Ü"}},
        {"range": {"field": [NASTY], "value": {"gte": NASTY}}},
    ):
        hits = search(conn, collection, [1, 2, 3], filter=condition, user_id=NASTY, sort_by=NASTY)
        assert [hit.object_id for hit in hits] == [NASTY], condition
    assert search(conn, collection, [1, 2, 3], filter={"term": {"field": [NASTY], "value": "other"}}) == []
    assert search(conn, collection, [1, 2, 3], user_id="x' OR true --")[0].personal is False
    collection.drop(conn)
    assert conn.execute("SELECT to_regclass('estudio.deployments')").fetchone() != (None,)


def test_names_stay_below_63_bytes_and_differ() -> None:
    long = "x" * 80
    assert slug(long) != slug(long + "y")
    collection = Collection("ü" * 80, INFO)
    assert len(collection.name("objects_original").encode()) <= 63


def test_only_our_tables_are_dropped(conn: psycopg.Connection, collection: Collection) -> None:
    conn.execute("CREATE TABLE estudio.c_other_objects (n int)")
    stranger = Collection("other", INFO)
    with pytest.raises(ReleaseError, match="does not belong"):
        stranger.drop(conn)
    with pytest.raises(ReleaseError, match="does not belong"):
        stranger.create(conn)
    assert collection.drop(conn) is True
    assert collection.drop(conn) is False


def test_build_index_is_idempotent_and_replaces_an_invalid_one(
    conn: psycopg.Connection, collection: Collection
) -> None:
    def oid() -> Any:
        return conn.execute("SELECT %s::regclass::oid", (f"estudio.{collection.name('hnsw')}",)).fetchone()

    collection.copy_objects(conn, [item("a"), item("b")])
    assert not index_is_valid(conn, collection)
    build_index(conn, collection)
    first = oid()
    build_index(conn, collection)
    assert index_is_valid(conn, collection)
    assert oid() == first
    conn.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s", first)
    assert not index_is_valid(conn, collection)
    build_index(conn, collection)
    assert index_is_valid(conn, collection)
    assert oid() != first


def test_build_index_gives_settings_back_and_reports_progress(conn: psycopg.Connection) -> None:
    rng = np.random.default_rng(0)
    collection = Collection("big", SearchIndexInfo(dimensions=32, metric_type=MetricType.EUCLID))
    collection.create(conn)
    collection.copy_objects(conn, (item(str(i), rows) for i, rows in enumerate(rng.normal(size=(2600, 1, 32)))))
    seen: list[Progress] = []
    with conn.transaction(), progress_to(seen.append):
        before = conn.execute("SELECT current_setting('maintenance_work_mem')").fetchone()
        notices = build_index(conn, collection, maintenance_memory_mb=1, progress_interval_s=0.02)
        assert conn.execute("SELECT current_setting('maintenance_work_mem')").fetchone() == before
    assert any("no longer fits" in notice for notice in notices)
    assert any(report.message == "building index: loading tuples" for report in seen)


class _Counted(Optimization):
    def __init__(self) -> None:
        super().__init__("counted")
        self.calls = 0

    def __call__(self, conn: psycopg.Connection, collection: Collection) -> None:
        self.calls += 1
        if self.calls == 1:
            raise RuntimeError("killed")


def test_optimizations_are_applied_once_and_recorded_with_their_effect(
    conn: psycopg.Connection, collection: Collection
) -> None:
    price = PgvectorObjectsOptimization("price", "CREATE INDEX {name} ON {table} ((payload ->> 'price'))")
    parts = PgvectorPartsOptimization("parts", "CREATE INDEX {name} ON {table} (part)")
    counted = _Counted()
    with pytest.raises(RuntimeError):
        apply_optimizations(conn, collection, [price, counted, parts])
    assert apply_optimizations(conn, collection, [price, counted, parts]) == ["counted", "parts"]
    assert apply_optimizations(conn, collection, [price, counted, parts]) == []
    indexes = conn.execute(
        "SELECT tablename FROM pg_indexes WHERE schemaname = 'estudio' AND indexname LIKE '%custom'"
    ).fetchall()
    assert sorted(row[0] for row in indexes) == [collection.name("objects"), collection.name("parts")]
    collection.drop(conn)
    collection.create(conn)
    assert apply_optimizations(conn, collection, [price]) == ["price"]


def test_filters_of_terms_use_the_payload_index(conn: psycopg.Connection, collection: Collection) -> None:
    from estudio_core.vectordb.filter_sql import filter_sql
    from estudio_core.vectordb.filters import parse_filter

    collection.copy_objects(conn, (item(str(i), payload={"n": i, "tags": [f"t{i}"]}) for i in range(3000)))
    build_index(conn, collection)
    for given in ({"term": {"n": 7}}, {"all": {"tags": ["t1", "t1"]}}, {"terms": {"tags": ["t3", "t4"]}}):
        binds: dict[str, Any] = {}
        condition = filter_sql(parse_filter(given), sql.SQL("payload"), binds)
        plan = conn.execute(
            sql.SQL("EXPLAIN SELECT 1 FROM {} WHERE {}").format(collection.objects, condition), binds
        ).fetchall()
        assert any(collection.name("payload") in line for (line,) in plan), plan
