"""Search against a model in Python: metrics, aggregation, filters, overlay, distance limit, pages."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from estudio_core.lexical.reading import read_words
from estudio_core.models.aggregation import PartTable, object_similarities
from estudio_core.vectordb import search as search_module
from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.filters import parse_filter
from estudio_core.vectordb.index_build import build_index
from estudio_core.vectordb.index_info import MetricAggregationType, MetricType, SearchIndexInfo
from estudio_core.vectordb.objects import IndexedObject
from estudio_core.vectordb.search import SearchHit, SortBy, count, find_by_filter, find_by_ids, search

DIM = 5
BRANDS = ["acme", "zeta", "x') OR 1=1 --", None, 1, True]
TITLES = ["Red shoe", "shoe red", "shoe for running", "50% off"]
TEXTS = ["red lamp", "lamp red red", "old red lamp", "chair", "'; DROP TABLE x; --", ""]


def brute_distance(item: IndexedObject, query: Any, info: SearchIndexInfo) -> float:
    table = PartTable.counted([len(item.vectors)])
    similarity = object_similarities(
        query[None, :].astype(np.float64),
        item.vectors.astype(np.float64),
        table,
        info.metric_aggregation_type,
        info.metric_type,
    )[0, 0]
    return float(1 - similarity if info.metric_type == MetricType.COSINE else -similarity)


def holds(node: dict[str, Any], payload: dict[str, Any]) -> bool:
    (operator, body), *_ = node.items()
    if operator == "bool":
        must = [*body.get("must", []), *body.get("filter", [])]
        should = body.get("should", [])
        return (
            all(holds(n, payload) for n in must)
            and (not should or any(holds(n, payload) for n in should))
            and not any(holds(n, payload) for n in body.get("must_not", []))
        )
    name, value = next(iter(body.items()))
    if operator == "exists":
        return payload.get(value) is not None
    if name not in payload:
        return False
    found = payload[name] if isinstance(payload[name], list) else [payload[name]]

    def same(a: Any, b: Any) -> bool:
        return a == b and isinstance(a, bool) == isinstance(b, bool)

    if operator == "term":
        return any(same(element, value) for element in found)
    if operator in ("terms", "any"):
        return any(same(element, one) for element in found for one in value)
    if operator == "all":
        return all(any(same(element, one) for element in found) for one in value)
    words = payload[name].lower().split() if isinstance(payload[name], str) else []
    if operator == "match":
        return all(word in words for word in value.lower().split())
    if operator == "phrase":
        wanted = value.lower().split()
        return any(words[i : i + len(wanted)] == wanted for i in range(len(words)))
    if operator == "wildcard":
        form = "".join({"*": ".*", "?": "."}.get(sign, re.escape(sign)) for sign in value)
        return any(isinstance(element, str) and re.fullmatch(form, element, re.DOTALL) for element in found)
    assert operator == "range"
    return any(
        isinstance(element, int | float)
        and not isinstance(element, bool)
        and all({"gte": element >= b, "lt": element < b}[sign] for sign, b in value.items())
        for element in found
    )


payloads = st.fixed_dictionaries(
    {},
    optional={
        "brand": st.sampled_from(BRANDS),
        "price": st.one_of(st.integers(0, 5), st.just("cheap"), st.just(2.5)),
        "tags": st.lists(st.sampled_from(["red", "blue", "%"]), max_size=2),
        "title": st.sampled_from(TITLES),
    },
)
leaves = st.one_of(
    st.sampled_from(BRANDS).map(lambda v: {"term": {"brand": v}}),
    st.lists(st.sampled_from(BRANDS), min_size=1, max_size=2).map(lambda v: {"terms": {"brand": v}}),
    st.lists(st.sampled_from(["red", "blue", "%"]), min_size=1, max_size=2).map(lambda v: {"all": {"tags": v}}),
    st.lists(st.sampled_from(["red", "blue", "%"]), min_size=1, max_size=2).map(lambda v: {"any": {"tags": v}}),
    st.sampled_from(["brand", "price", "tags"]).map(lambda name: {"exists": {"field": name}}),
    st.sampled_from(["shoe", "RED shoe", "shoe red", "hat"]).flatmap(
        lambda words: st.sampled_from([{"match": {"title": words}}, {"phrase": {"title": words}}])
    ),
    st.sampled_from(["*shoe", "shoe*", "???? red", "50%*", "*' OR 1=1 --*"]).map(lambda v: {"wildcard": {"title": v}}),
    st.tuples(st.integers(0, 3), st.integers(1, 6)).map(lambda b: {"range": {"price": {"gte": b[0], "lt": b[1]}}}),
)
filters = st.recursive(
    leaves,
    lambda inner: st.fixed_dictionaries(
        {},
        optional={name: st.lists(inner, max_size=2) for name in ("must", "filter", "should", "must_not")},
    ).map(lambda clauses: {"bool": clauses}),
    max_leaves=4,
)


@st.composite
def collections(draw: st.DrawFn) -> tuple[SearchIndexInfo, list[IndexedObject], Any]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    info = SearchIndexInfo(
        dimensions=DIM,
        metric_type=draw(st.sampled_from(list(MetricType))),
        metric_aggregation_type=draw(st.sampled_from(list(MetricAggregationType))),
    )
    shared = [
        IndexedObject(
            f"o{i}",
            draw(payloads),
            "h",
            rng.normal(size=(draw(st.integers(1, 3)), DIM)),
            text=draw(st.sampled_from(TEXTS)),
        )
        for i in range(draw(st.integers(1, 12)))
    ]
    personal = [
        IndexedObject(
            f"p{i}",
            draw(st.one_of(st.none(), payloads)),
            "h",
            rng.normal(size=(1, DIM)),
            "u1",
            f"o{i}",
            text=draw(st.sampled_from(TEXTS)),
        )
        for i in range(draw(st.integers(0, min(3, len(shared)))))
    ]
    return info, shared + personal, rng.normal(size=DIM)


def sort_key(payload: dict[str, Any], descending: bool) -> tuple[Any, ...]:
    """Texts before numbers, turned round for descending; objects without a price last."""
    price = payload.get("price")
    if price is None:
        return (1, 0, 0)
    place = (isinstance(price, int | float), price if isinstance(price, int | float) else 0)
    return (0, *(-part for part in place)) if descending else (0, *place)


def word_scores(
    conn: psycopg.Connection, info: SearchIndexInfo, shared: list[str], texts: dict[str, str], query: str
) -> dict[str, float]:
    """BM25 by its formula: idf and average length of the texts that everybody sees, weights of each of `texts`."""
    lexical = info.lexical
    assert lexical is not None
    counts = [words for words in read_words(conn, info.text_config, shared) if words]
    average = np.mean([sum(words.values()) for words in counts]) if counts else 1.0
    total, asked = len(counts), read_words(conn, info.text_config, [query])[0]
    scores = {}
    for name, words in zip(texts, read_words(conn, info.text_config, list(texts.values())), strict=True):
        norm = lexical.k1 * (1 - lexical.b + lexical.b * sum(words.values()) / average)
        scores[name] = 0.0
        for word in asked:
            documents = sum(word in others for others in counts)
            if documents and word in words:
                idf = np.log(1 + (total - documents + 0.5) / (documents + 0.5)) / np.log(1 + (total - 0.5) / 1.5)
                scores[name] += idf * words[word] * (lexical.k1 + 1) / (words[word] + norm)
    return scores


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=collections(),
    condition=st.one_of(st.none(), filters),
    user=st.sampled_from([None, "u1", "u2' OR true --"]),
    cut=st.one_of(st.none(), st.floats(0, 1)),
    limit=st.integers(1, 5),
    by_index=st.booleans(),
    words=st.sampled_from(["red lamp", "lamp", "chair red", "table", "red old \\ ' lamps", ""]),
    weight=st.sampled_from([0.01, 0.12, 3.0]),
    descending=st.booleans(),
)
def test_search_pages_and_counts_equal_brute_force(
    conn: psycopg.Connection,
    data: tuple[SearchIndexInfo, list[IndexedObject], Any],
    condition: dict[str, Any] | None,
    user: str | None,
    cut: float | None,
    limit: int,
    by_index: bool,
    words: str,
    weight: float,
    descending: bool,
) -> None:
    info, items, query = data
    collection = Collection(uuid.uuid4().hex, info)
    with conn.transaction(force_rollback=True):
        collection.create(conn)
        collection.copy_objects(conn, items)
        build_index(conn, collection, parallel_workers=0)
        by_id = {item.object_id: item for item in items}
        own = {item.original_id: item for item in items if user == item.user_id and item.user_id}
        visible = {item.object_id: own.get(item.object_id, item) for item in items if item.user_id is None}
        expected = []
        for object_id, item in visible.items():
            payload = item.payload if item.payload is not None else by_id[object_id].payload
            assert payload is not None
            if condition is None or holds(condition, payload):
                expected.append((brute_distance(item, query, info), object_id))
        expected.sort()

        def payload_of(object_id: str) -> dict[str, Any]:
            own_payload = visible[object_id].payload
            return by_id[object_id].payload or {} if own_payload is None else own_payload

        assert count(conn, collection, condition, user) == len(expected)
        found_ids = find_by_filter(conn, collection, condition, limit=100, user_id=user)
        assert sorted(o.original_id or o.object_id for o in found_ids) == sorted(name for _, name in expected)
        far = None
        if cut is not None and expected:
            # between two distances, where rounding decides nothing
            place = int(cut * (len(expected) - 1))
            far = expected[place][0] + 1e-5
            expected = [row for row in expected if row[0] <= far]

        def pages(vector: Any = query, **how: Any) -> list[SearchHit]:
            hits: list[SearchHit] = []
            while True:
                page = search(
                    conn, collection, vector, limit=limit, offset=len(hits), max_distance=far, filter=condition,
                    user_id=user, by_index=by_index, **how,
                )  # fmt: skip
                hits += page
                if len(page) < limit:
                    return hits

        near = pages()
        names = [name for _, name in expected]
        assert [hit.object_id for hit in near] == names
        assert [hit.distance for hit in near] == pytest.approx([distance for distance, _ in expected], abs=1e-5)
        for hit in near:
            assert hit.personal == (hit.object_id in own)
            assert hit.payload == payload_of(hit.object_id)
        by_price = sorted(names, key=lambda name: (sort_key(payload_of(name), descending), name))
        assert [hit.object_id for hit in pages(sort_by=SortBy("price", descending))] == by_price

        texts = {name: visible[name].text or by_id[name].text for name in names}
        shared = [item.text for item in items if item.user_id is None and item.text]
        bm25 = word_scores(conn, info, shared, texts, words)
        distances = {name: distance for distance, name in expected}
        fused = {name: weight * bm25[name] - distances[name] for name in names}
        hits = pages(text=words, weight=weight)
        assert [hit.object_id for hit in hits] == sorted(names, key=lambda name: (-round(fused[name], 6), name))
        assert [hit.words for hit in hits] == pytest.approx([bm25[hit.object_id] for hit in hits], abs=1e-5)
        assert [hit.distance for hit in hits] == pytest.approx([distances[hit.object_id] for hit in hits], abs=1e-5)
        if far is None:
            by_words = pages(vector=None, text=words)
            holding = [name for name in names if bm25[name] > 0]
            assert [h.object_id for h in by_words] == sorted(holding, key=lambda name: (-round(bm25[name], 6), name))
            assert [hit.words for hit in by_words] == pytest.approx([bm25[h.object_id] for h in by_words], abs=1e-5)

        stored = find_by_ids(conn, collection, [*reversed(names), "missing"], user_id=user, with_vectors=True)
        assert [row.original_id or row.object_id for row in stored] == names[::-1]
        for row in stored:
            assert row.vectors == pytest.approx(visible[row.original_id or row.object_id].vectors, abs=1e-6)


def load(
    conn: psycopg.Connection, info: SearchIndexInfo, items: list[IndexedObject], name: str = "shop_1"
) -> Collection:
    collection = Collection(name, info)
    collection.create(conn)
    collection.copy_objects(conn, items)
    build_index(conn, collection)
    return collection


def items_of(vectors: Any, payload: Any = lambda i: {"n": i}, parts: int = 1) -> list[IndexedObject]:
    grouped = np.asarray(vectors).reshape(-1, parts, vectors.shape[-1])
    return [IndexedObject(f"{i:05}", payload(i), "h", rows) for i, rows in enumerate(grouped)]


@pytest.fixture
def clustered() -> Any:
    rng = np.random.default_rng(3)
    return rng.normal(size=(3000, 16)).astype(np.float32)


@pytest.mark.parametrize("aggregation", list(MetricAggregationType))
def test_pages_of_the_index_are_disjoint_complete_and_nearly_sorted(
    conn: psycopg.Connection, clustered: Any, aggregation: MetricAggregationType
) -> None:
    info = SearchIndexInfo(dimensions=16, metric_aggregation_type=aggregation)
    collection = load(conn, info, items_of(clustered, parts=2))
    query = clustered[7] + clustered[9]
    pages = []
    for offset in range(0, 1500, 125):
        page = search(conn, collection, query, limit=125, offset=offset, by_index=True, ef_search=40)
        assert len(page) == 125
        pages += [hit.object_id for hit in page]
    assert len(set(pages)) == 1500
    assert search(conn, collection, query, limit=10, offset=1500, by_index=True, ef_search=40) == []
    truth = [hit.object_id for hit in search(conn, collection, query, limit=125, exact=True)]
    assert len(set(truth) & set(pages[:125])) >= 119
    assert search(conn, collection, query, limit=125, by_index=True) == search(conn, collection, query, limit=125)


def test_filters_act_inside_the_index_scan(conn: psycopg.Connection, clustered: Any) -> None:
    info = SearchIndexInfo(dimensions=16)
    collection = load(conn, info, items_of(clustered, lambda i: {"rare": i % 300 == 0, "half": i % 2}))
    query = clustered[1]
    rare = search(conn, collection, query, limit=10, filter={"term": {"rare": True}}, by_index=True)
    assert len(rare) == 10
    truth = search(conn, collection, query, limit=10, filter={"term": {"rare": True}}, exact=True)
    assert {hit.object_id for hit in rare} == {hit.object_id for hit in truth}
    assert len(search(conn, collection, query, limit=500, filter={"term": {"half": 1}}, by_index=True)) == 500


def test_the_index_is_used_for_a_large_collection(conn: psycopg.Connection, clustered: Any) -> None:
    collection = load(conn, SearchIndexInfo(dimensions=16), items_of(clustered))
    name = collection.name("hnsw")

    def scans() -> int:
        conn.execute("SELECT pg_stat_force_next_flush()")
        row = conn.execute("SELECT idx_scan FROM pg_stat_all_indexes WHERE indexrelname = %s", (name,)).fetchone()
        assert row is not None
        return int(row[0])

    before = scans()
    for _ in range(15):  # long enough for the plan to be cached
        assert len(search(conn, collection, clustered[0])) == 10
    assert scans() == before + 15
    search(conn, collection, clustered[0], exact=True)
    assert scans() == before + 15


def test_personal_rows_take_their_place_in_an_index_scan(conn: psycopg.Connection, clustered: Any) -> None:
    items = items_of(clustered)
    query = clustered[5]
    collection = load(conn, SearchIndexInfo(dimensions=16), items)
    collection.upsert_objects(conn, [IndexedObject("mine", None, "h", -clustered[5:6], "u1", "00005")])
    collection.upsert_objects(conn, [IndexedObject("other", None, "h", clustered[5:6], "u1", "02999")])
    mine = search(conn, collection, query, user_id="u1", limit=3000, by_index=True)
    assert len(mine) == len({hit.object_id for hit in mine}) == 3000
    assert mine[0].object_id == "02999"
    assert mine[0].payload == {"n": 2999}
    assert mine[-1].object_id == "00005"
    assert [hit.object_id for hit in mine if hit.personal] == ["02999", "00005"]
    assert search(conn, collection, query)[0].object_id == "00005"


def test_three_part_object_comes_once(conn: psycopg.Connection) -> None:
    vectors = np.eye(4)[[0, 1, 2, 0, 0, 3]]
    collection = load(conn, SearchIndexInfo(dimensions=4), items_of(vectors, parts=3))
    hits = search(conn, collection, np.eye(4)[2])
    assert [(hit.object_id, hit.part) for hit in hits] == [("00000", 2), ("00001", 0)]


def test_average_search_returns_rows_compared_by_the_normalised_mean(conn: psycopg.Connection) -> None:
    info = SearchIndexInfo(dimensions=2, metric_aggregation_type=MetricAggregationType.AVG)
    collection = load(conn, info, [IndexedObject("a", {}, "h", np.array([[1.0, 0.0], [0.0, 3.0]]))])
    (hit,) = search(conn, collection, [1.0, 0.0])
    assert hit.distance == pytest.approx(1 - 1 / np.sqrt(10), abs=1e-6)
    assert hit.part is None


@pytest.mark.parametrize("metric", list(MetricType))
def test_vectors_above_2000_dimensions_are_halfvec_and_equal_brute_force(
    conn: psycopg.Connection, metric: MetricType
) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 2100)).astype(np.float16)
    info = SearchIndexInfo(dimensions=2100, metric_type=metric)
    items = items_of(vectors, parts=2)
    collection = load(conn, info, items)
    assert collection.vector_type == "halfvec"
    expected = sorted((brute_distance(item, vectors[17], info), item.object_id) for item in items)
    for by_index in (True, False):
        hits = search(conn, collection, vectors[17], limit=40, by_index=by_index)
        assert [hit.object_id for hit in hits] == [name for _, name in expected]
        assert [hit.distance for hit in hits] == pytest.approx([distance for distance, _ in expected], abs=1e-3)


def test_sort_by_orders_numbers_as_numbers_and_leaves_missing_last(conn: psycopg.Connection) -> None:
    prices = [2, 10, None, 1.5, "missing"]
    items = [
        IndexedObject(str(i), {} if price == "missing" else {"price": price}, "h", np.eye(5)[i : i + 1])
        for i, price in enumerate(prices)
    ]
    collection = load(conn, SearchIndexInfo(dimensions=5), items)
    up = search(conn, collection, np.eye(5)[0], sort_by="price")
    assert [hit.object_id for hit in up] == ["3", "0", "1", "2", "4"]
    down = search(conn, collection, np.eye(5)[0], sort_by=SortBy("price", descending=True), limit=2, offset=1)
    assert [hit.object_id for hit in down] == ["0", "3"]
    near = search(conn, collection, np.eye(5)[0], sort_by="price", max_distance=0.5)
    assert [hit.object_id for hit in near] == ["0"]


@pytest.mark.parametrize("in_transaction", [False, True])
def test_what_is_deleted_while_objects_are_listed_leaves_no_gap(
    conn: psycopg.Connection,
    other: Callable[[], psycopg.Connection],
    monkeypatch: pytest.MonkeyPatch,
    in_transaction: bool,
) -> None:
    collection = load(conn, SearchIndexInfo(dimensions=4), items_of(np.eye(4)))
    order = search_module.sorted_rows

    async def deleted_after(*arguments: Any) -> Any:
        rows = await order(*arguments)
        with other() as second:
            collection.delete_objects(second, ["00000"])
        return rows

    monkeypatch.setattr(search_module, "sorted_rows", deleted_after)
    with conn.transaction() if in_transaction else nullcontext():
        found = find_by_filter(conn, collection, limit=3)
    assert [entry.object_id for entry in found] == [f"0000{n + in_transaction}" for n in range(3)]


def test_a_search_leaves_no_setting_behind(conn: psycopg.Connection) -> None:
    collection = load(conn, SearchIndexInfo(dimensions=4), items_of(np.eye(4)))
    with conn.transaction():
        before = conn.execute("SELECT current_setting('hnsw.ef_search'), current_setting('enable_sort')").fetchone()
        search(conn, collection, np.eye(4)[0], ef_search=77, by_index=True)
        after = conn.execute("SELECT current_setting('hnsw.ef_search'), current_setting('enable_sort')").fetchone()
    assert after == before


def test_parse_filter_is_idempotent() -> None:
    node = parse_filter({"bool": {"must": [{"term": {"a": 1}}]}})
    assert parse_filter(node) is node
