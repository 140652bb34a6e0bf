"""Fields with an index are filtered and sorted by as those without, whatever they hold, and read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql

from estudio_core import database
from estudio_core.errors import ConfigurationError
from estudio_core.plugin.specs import TextIndex
from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.filter_sql import reads_rows
from estudio_core.vectordb.filters import parse_filter
from estudio_core.vectordb.index_build import build_index
from estudio_core.vectordb.index_info import FieldKind, IndexedField, SearchIndexInfo
from estudio_core.vectordb.objects import IndexedObject
from estudio_core.vectordb.ordering import Request, SortBy, sorted_select
from estudio_core.vectordb.search import find_by_filter, search

FIELDS = tuple(
    IndexedField(name=name, kind=FieldKind(kind))
    for name, kind in (("n", "number"), ("at", "time"), ("t", "text"), ("in.side", "number"))
)
ODD: list[Any] = [None, True, False, [], {}, [[]], {"a": 1}, "", "10", [10], [1, 30], ["b"], [None], 10, 10.0, -3, 2.5]
TIMES = [
    "2026-01-02", "2026-01-02T10:00Z", "2026-01-02 11:00+01", "2026-01-02T10:00:00.5", "2026-02-30", "2026-01-02T24:00",
    "2026-01-02T10:00:60", "10:00", "soon", ["2026-01-02T10:00Z"], "2026-01-02T10:00:00.123456789-03:30", "0001-01-01",
    "9999-12-31T23:59:59Z",
]  # fmt: skip
TEXTS = [
    "a",
    "b",
    "B",
    "ä",
    "é",
    "e\u0301",
    "zz top",
    "red lamp",
    "lamp red",
    "Ж",
    *("x" * n for n in (255, 256, 300, 3000)),
]
PAYLOADS: list[dict[str, Any]] = [
    *({name: value} for name in ("n", "at", "t") for value in (*ODD, *TIMES, *TEXTS)),
    *({"in": {"side": value}} for value in ODD),
    {"in": [{"side": 5}, {"side": 40}]},
    {"in": 7},
    {},
    *({"n": number, "t": f"word{number} lamp", "at": f"2026-01-{number % 28 + 1:02}"} for number in range(60)),
]
FILTERS: list[dict[str, Any]] = [
    *({"range": {field: bounds}} for field in ("n", "at", "t", "in.side") for bounds in (
        {"gte": 10}, {"gt": 10}, {"lt": 10}, {"lte": 10}, {"eq": 10}, {"gte": 5, "lt": 30}, {"gt": 10, "lt": 5},
        {"gte": "2026-01-02T10:00Z"}, {"gt": "2026-01-02T10:00Z", "lte": "2026-01-20"}, {"lt": "2026-01-02T10:00:00.5"},
        {"eq": "2026-01-02T10:00:00Z"}, {"gte": "10:00"}, {"gt": "b", "lt": "é"}, {"gte": "x" * 300}, {"lt": "x" * 256},
        {"eq": "x" * 300}, {"gte": 1, "lt": "b"}, {"gte": ""}, {"lt": "zz"},
    )),
    *({"exists": field} for field in ("n", "at", "t", "in.side", "in")),
    *({"bool": {"must_not": [{"exists": field}]}} for field in ("n", "at", "t", "in.side")),
    *({"terms": {field: values}} for field in ("n", "at", "t", "in.side") for values in (
        [10, 30], ["10", "b"], [None, 10], [True, "b"], ["x" * 300, "a"], ["x" * 255, 1], list(range(-50, 5)),
        [*map(str, range(70)), "b", 10],
    )),
    *({"term": {field: value}} for field in ("n", "t", "in.side") for value in (10, "10", None, "x" * 300, True)),
    *({"all": {"n": values}} for values in ([1, 30], [10])),
    *({operator: {"t": text}} for operator in ("match", "phrase") for text in ("lamp", "red lamp", "", "x" * 300)),
    *({"wildcard": {"t": pattern}} for pattern in ("re*", "x*", "*lamp", "?", "word1?*", "ä*", "")),
    {"bool": {"must": {"range": {"n": {"gt": 3}}}, "must_not": [{"range": {"n": {"lt": 9}}}, {"match": {"t": "red"}}]}},
    {"bool": {"should": [{"range": {"n": {"gt": 55}}}, {"match": {"t": "red"}}, {"exists": "in"}]}},
]  # fmt: skip


@pytest.fixture(scope="module")
def both(postgres_server: str) -> Iterator[tuple[psycopg.Connection, Collection, Collection]]:
    """The same objects in a collection without indexed fields, and in one with them."""
    name = "t_field_indexes"
    with psycopg.connect(postgres_server, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
    url = postgres_server.replace("/postgres?", f"/{name}?")
    database.migrate(url)
    vectors = np.random.default_rng(3).standard_normal((len(PAYLOADS), 1, 4)).astype(np.float32)
    items = [IndexedObject(f"{i:03}", payload, "h", vectors[i]) for i, payload in enumerate(PAYLOADS)]
    with database.connect(url, autocommit=True) as conn:
        made = []
        for fields in ((), FIELDS):
            made.append(Collection(f"c{len(fields)}", SearchIndexInfo(dimensions=4, fields=fields)))
            made[-1].create(conn)
            made[-1].copy_objects(conn, items[:20])
            build_index(conn, made[-1])
            made[-1].upsert_objects(conn, items[20:])  # what is written later is in the index too
        yield conn, *made
    with psycopg.connect(postgres_server, autocommit=True) as server:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def ids(found: list[Any]) -> list[str]:
    return [each.object_id for each in found]


def test_every_filter_leaves_what_it_leaves_without_an_index(
    both: tuple[psycopg.Connection, Collection, Collection],
) -> None:
    conn, plain, indexed = both
    found_something = 0
    for given in FILTERS:
        expected = ids(find_by_filter(conn, plain, given, limit=1_000))
        for setting in ("on", "off"):
            conn.execute(f"SET enable_seqscan = {setting}")
            assert ids(find_by_filter(conn, indexed, given, limit=1_000)) == expected, given
        conn.execute("RESET enable_seqscan")
        assert set(ids(search(conn, indexed, [1, 0, 0, 0], filter=given, limit=1_000))) == set(expected), given
        found_something += bool(expected)
    assert found_something > len(FILTERS) * 0.6


@pytest.mark.parametrize("field", ["n", "at", "t", "in.side"])
@pytest.mark.parametrize("descending", [False, True])
def test_sorting_by_it_gives_the_same_order_page_by_page(
    both: tuple[psycopg.Connection, Collection, Collection], field: str, descending: bool
) -> None:
    conn, plain, indexed = both
    order = SortBy(field, descending=descending)
    # Lists and objects, which nothing is sorted by in earnest, come together here, and by what they hold there.
    odd = [f"{i:03}" for i, each in enumerate(PAYLOADS) if isinstance(each.get(field), list | dict) or "in" in each]
    # Of longer texts an index knows the beginning.
    odd += [f"{i:03}" for i, each in enumerate(PAYLOADS) if len(str(each.get(field))) > 255]
    pages = [find_by_filter(conn, indexed, limit=17, offset=at, sort_by=order) for at in range(0, len(PAYLOADS), 17)]
    mine = ids([each for page in pages for each in page])
    assert sorted(mine) == [f"{i:03}" for i in range(len(PAYLOADS))]
    theirs = ids(find_by_filter(conn, plain, limit=1_000, sort_by=order))
    assert [each for each in mine if each not in odd] == [each for each in theirs if each not in odd]
    assert ids(search(conn, indexed, [1, 0, 0, 0], sort_by=order, limit=17, max_distance=9.0)) == mine[:17]


@pytest.mark.parametrize(
    ("given", "suffix"),
    [
        ({"range": {"n": {"gte": 10, "lt": 12}}}, "f0_key"),
        ({"range": {"at": {"gte": "2026-01-02T10:00Z"}}}, "f1_time"),
        ({"range": {"t": {"gte": "b", "lt": "c"}}}, "f2_text"),
        ({"exists": "in.side"}, "f3_key"),
        ({"bool": {"must_not": {"exists": "n"}}}, "f0_key"),
        ({"terms": {"n": list(range(200))}}, "f0_key"),
        ({"match": {"t": "lamp"}}, "f2_words"),
        ({"phrase": {"t": "red lamp"}}, "f2_words"),
        ({"wildcard": {"t": "word1*"}}, "f2_text"),
    ],
)
def test_its_index_is_read(
    both: tuple[psycopg.Connection, Collection, Collection], given: dict[str, Any], suffix: str
) -> None:
    conn, plain, indexed = both
    request = Request(indexed, None, parse_filter(given), None, None)
    statement = sql.SQL("EXPLAIN {}").format(request.visible)
    conn.execute("SET enable_seqscan = off")
    plan = conn.execute(statement, request.values()).fetchall()
    conn.execute("RESET enable_seqscan")
    assert any(indexed.name(suffix) in line for (line,) in plan), plan
    assert not reads_rows(parse_filter(given), indexed.index_info)
    if "terms" not in given or len(given["terms"]["n"]) > 50:
        assert reads_rows(parse_filter(given), plain.index_info)


@pytest.mark.parametrize("descending", [False, True])
def test_sorting_reads_the_index(both: tuple[psycopg.Connection, Collection, Collection], descending: bool) -> None:
    conn, _, indexed = both
    request = Request(indexed, None, None, None, None)
    statement = sql.SQL("EXPLAIN {}").format(sorted_select(request, SortBy("n", descending=descending)))
    conn.execute("SET enable_seqscan = off; SET enable_sort = off")
    plan = conn.execute(statement, request.values(limit=5, offset=0, places=5)).fetchall()
    conn.execute("RESET enable_seqscan; RESET enable_sort")
    assert any(indexed.name("f0_key") in line for (line,) in plan), plan


def test_a_plugin_names_them_and_mistakes_are_named() -> None:
    assert TextIndex(fields={"price": "number", "added": "time"}).fields["added"] == "time"  # type: ignore[dict-item]
    with pytest.raises(ConfigurationError, match=r"'number', 'time' or 'text'"):
        TextIndex(fields={"price": "money"})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="fields named twice: a"):
        SearchIndexInfo(dimensions=2, fields=(FIELDS[0].model_copy(update={"name": "a"}),) * 2)
    assert "fields" not in SearchIndexInfo(dimensions=2).model_dump(), "the version before reads what has none"
    info = SearchIndexInfo(dimensions=2, fields=FIELDS)
    assert SearchIndexInfo.model_validate(info.model_dump(mode="json")) == info
