"""Filters against PostgreSQL: types, words, patterns, ranges; and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from operator import eq, ge, gt, le, lt
from typing import Any

import numpy as np
import psycopg
import pytest

from estudio_core.errors import ConfigurationError, DataError, DimensionError
from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.filters import parse_filter
from estudio_core.vectordb.index_build import build_index
from estudio_core.vectordb.index_info import FieldKind, IndexedField, SearchIndexInfo
from estudio_core.vectordb.objects import IndexedObject
from estudio_core.vectordb.search import find_by_filter, search

PAYLOADS: dict[str, dict[str, Any]] = {
    "a": {"n": 1, "title": "Red running shoe", "sku": "AB-12_x", "maker": {"name": "acme"}, "a.b": 1},
    "b": {"n": 2.5, "title": "Shoe for running, red", "sku": "AB%12", "day": "2024-05-01", "ok": True},
    "c": {"n": "1", "title": "Blue hat", "sku": ["AC-1", "AD-22"], "day": "2023-12-31", "ok": 1, "null": None},
    "d": {"n": [7, "x"], "title": 'quote " \\ end'},
    "e": {},
}
CASES: list[tuple[dict[str, Any], str]] = [
    ({"term": {"n": 1}}, "a"),
    ({"term": {"n": 1.0}}, "a"),
    ({"term": {"n": "1"}}, "c"),
    ({"term": {"n": 7}}, "d"),
    ({"term": {"ok": True}}, "b"),
    ({"term": {"ok": 1}}, "c"),
    ({"term": {"null": None}}, "c"),
    ({"term": {"maker.name": "acme"}}, "a"),
    ({"term": {"field": ["a.b"], "value": 1}}, "a"),
    ({"term": {"title": 'quote " \\ end'}}, "d"),
    ({"terms": {"n": [1, "1", 9]}}, "ac"),
    ({"all": {"n": [7, "x"]}}, "d"),
    ({"all": {"n": [7, 8]}}, ""),
    ({"any": {"n": [8, "x"]}}, "d"),
    ({"exists": {"field": "null"}}, ""),
    ({"exists": "maker.name"}, "a"),
    ({"exists": "n"}, "abcd"),
    ({"match": {"title": "RED shoe"}}, "ab"),
    ({"match": {"title": "shoe & | ! ( '"}}, "ab"),
    ({"match": {"title": "!!!"}}, ""),
    ({"phrase": {"title": "running shoe"}}, "a"),
    ({"wildcard": {"sku": "AB*"}}, "ab"),
    ({"wildcard": {"sku": "AB%*"}}, "b"),
    ({"wildcard": {"sku": "AB-12_?"}}, "a"),
    ({"wildcard": {"sku": "A?-22"}}, "c"),
    ({"wildcard": {"sku": "AB"}}, ""),
    ({"range": {"n": {"gte": 1, "lt": 2.5}}}, "a"),
    ({"range": {"n": {"gt": 1}}}, "bd"),
    ({"range": {"n": {"eq": 2.5}}}, "b"),
    ({"range": {"n": {"gte": "0"}}}, "cd"),
    ({"range": {"day": {"gte": "2024-01-01", "lte": "2024-12-31"}}}, "b"),
    ({"range": {"maker": {"gte": 0}}}, ""),
    ({"bool": {}}, "abcde"),
    ({"bool": {"must_not": [{"term": {"n": 1}}, {"match": {"title": "hat"}}]}}, "bde"),
    ({"bool": {"should": [{"term": {"n": 1}}, {"exists": "ok"}]}}, "abc"),
    ({"bool": {"must": {"match": {"title": "shoe"}}, "filter": [{"range": {"n": {"lt": 2}}}]}}, "a"),
    ({"bool": {"must_not": [{"range": {"n": {"gte": 0}}}]}}, "ce"),
    ({"bool": {"must_not": [{"wildcard": {"sku": "*"}}]}}, "de"),
    ({"term": {"title' OR 1=1 --": "x"}}, ""),
    ({"wildcard": {"title": "' OR 1=1 --"}}, ""),
]


def test_filters_select_what_they_say(conn: psycopg.Connection) -> None:
    collection = Collection("shop", SearchIndexInfo(dimensions=2))
    collection.create(conn)
    collection.copy_objects(conn, [IndexedObject(key, value, "h", np.ones((1, 2))) for key, value in PAYLOADS.items()])
    for given, expected in CASES:
        found = find_by_filter(conn, collection, given, limit=100)
        assert "".join(row.object_id for row in found) == expected, given
        negated = find_by_filter(conn, collection, {"bool": {"must_not": [given]}}, limit=100)
        assert {row.object_id for row in negated} == set("abcde") - set(expected), given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"trem": {"a": 1}}, "Did you mean 'term'"),
        ({"bool": {"must_nt": []}}, "Did you mean 'must_not'"),
        ({"range": {"a": {"gta": 1}}}, "Unknown bound 'gta'"),
        ({"range": {"a": {"gte": True}}}, "number or a text"),
        ({"range": {"a": {}}}, "wants bounds"),
        ({"term": {"a": {"b": 1}}}, "Text is wanted"),
        ({"term": {"a": float("nan")}}, "no JSON number"),
        ({"term": {"a": "\x00"}}, "NUL"),
        ({"term": {"a": "\ud800"}}, "UTF-8"),
        ({"term": {"a": 1, "b": 2}}, "one field"),
        ({"term": {"": 1}}, "A field is a name"),
        ({"term": {"a..b": 1}}, "A field is a name"),
        ({"terms": {"a": []}}, "list of one or more"),
        ({"match": {"a": 3}}, "Text is wanted"),
        ({"term": {"a": 1}, "exists": "b"}, "one operator"),
        ({"terms": {"a": list(range(10_001))}}, "10,001 values"),
        ({"terms": {"a": "text"}}, "list of one or more values.*'text'"),
        ({"any": {"a": {"b": 1}}}, "list of one or more"),
        ({"all": {"a": None}}, "list of one or more"),
        ({"bool": {"must": "text"}}, "one operator"),
        ({"bool": {"should": [{"term": {"a": 1}}] * 500}}, "501 conditions"),
        ({"term": {"a": "x" * 10_001}}, "10,001 characters"),
        ({"wildcard": {"a": "*" * 1_001}}, "1,001 characters"),
        ({"term": {"a" * 1_001: 1}}, "1,001 characters"),
        ({"term": {".".join("a" * 33): 1}}, "33 names"),
        ({"term": {"a": 10**5000}}, "no JSON number"),
        ({"term": {"a": Decimal("1e5000")}}, "4,000 digits"),
        ({"term": {"a": Decimal("NaN")}}, "no JSON number"),
        ({"range": {"a": {"gte": Decimal("Infinity")}}}, "no JSON number"),
        ({10**5000: 1}, "Unknown filter"),
        ([], "one operator"),
        ("a = 1", "one operator"),
    ],
)
def test_wrong_filters_are_refused_with_what_is_legal(given: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_filter(given)


def test_a_very_deep_filter_is_refused() -> None:
    given: dict[str, Any] = {"term": {"a": 1}}
    for _ in range(40):
        given = {"bool": {"must": [given]}}
    with pytest.raises(ConfigurationError, match="nested"):
        parse_filter(given)


def test_wrong_arguments_of_a_search_are_refused(conn: psycopg.Connection) -> None:
    collection = Collection("shop", SearchIndexInfo(dimensions=2))
    collection.create(conn)
    for arguments in ({"limit": -1}, {"offset": -1}, {"ef_search": 2000}, {"max_distance": float("nan")}):
        with pytest.raises(ConfigurationError):
            search(conn, collection, [1, 0], **arguments)
    with pytest.raises(DimensionError, match=r"\(3,\)"):
        search(conn, collection, [1, 0, 0])
    with pytest.raises(DataError, match="zero"):
        search(conn, collection, [0, 0])
    with pytest.raises(ConfigurationError, match="sort_by"):
        search(conn, collection, [1, 0], sort_by="")
    assert search(conn, collection, [1, 0], limit=0) == []
    assert search(conn, collection, [1, 0]) == []


TIMES = {
    "zulu": "2026-01-02T10:00:00Z",
    "offset": "2026-01-02T10:00:00+00:00",
    "paris": "2026-01-02 11:00:00.000+01",
    "delhi": "2026-01-02T15:30:00.000000+0530",
    "no zone": "2026-01-02T10:00",
    "lower": "2026-01-02t10:00:00z",
    "nanos": "2026-01-02T10:00:00.000000001Z",
    "half": "2026-01-02T10:00:00.5Z",
    "list": ["2026-01-02T10:00:00Z", ""],
    "day": "2026-01-02",
    "atoll": "2026-01-03T00:00:00+14:00",
    "no day": "2026-02-30",
    "no hour": "2026-01-02T25:00",
    "forever": "infinity",
    "text": "soon",
    "number": 20260102,
    "year": "2026",
}
TEN = {"zulu", "offset", "paris", "delhi", "no zone", "lower", "nanos", "list", "atoll"}


@pytest.fixture
def times(conn: psycopg.Connection) -> Collection:
    collection = Collection("times", SearchIndexInfo(dimensions=2))
    collection.create(conn)
    collection.copy_objects(
        conn, [IndexedObject(key, {"at": value}, "h", np.ones((1, 2))) for key, value in TIMES.items()]
    )
    return collection


@pytest.mark.parametrize(
    "ten",
    ["2026-01-02T10:00:00Z", "2026-01-02T10:00:00+00:00", "2026-01-02T05:00:00.000-05", "2026-01-02 10:00",
     "2026-01-02T10:00:00,0000009Z", "2026-01-02T10:00:00 Z"],
)  # fmt: skip
def test_times_are_compared_as_times(conn: psycopg.Connection, times: Collection, ten: str) -> None:
    def found(**bounds: str | int) -> set[str]:
        rows = find_by_filter(conn, times, {"range": {"at": bounds}}, limit=100)
        return {row.object_id for row in rows}

    assert found(eq=ten) == TEN
    assert found(gte=ten, lte=ten) == TEN
    assert found(gt=ten, lt="2026-01-02T11:00:00Z") == {"half"}
    assert found(lt=ten, gte="2026-01-02T00:00:00+00") == {"day"}
    assert found(gte=ten, lt="2026-01-02T10:00:00.000001Z") == TEN
    assert found(gte="2026-01-02", lt="2026-01-03") == TEN | {"half", "day"}
    assert found(gt="2026-12-31") == {"forever", "text"}, "texts that are no times, by code point"
    assert found(gte=ten, lt=5) == set()
    assert found(gte="2026", lt="2027") >= TEN | {"year", "no day"}, "a year is a text"


FAR = [
    "-infinity", "4713-01-01T00:00:00+00:00 BC", "0044-03-15 BC", "0044-03-15T12:00:00 BC", "0044-03-16 BC",
    "0043-01-01 BC", "0001-01-01", "2026-01-02T10:00:00Z", "9999-12-31T23:59:59.999999+00:00",
    "10000-01-01T00:00:00+00:00", "10000-01-01 00:00:00.5", "294276-12-31T23:59:59.999999", "5874897-12-31", "infinity",
]  # fmt: skip
"""As PostgreSQL writes them, in their order."""


@pytest.mark.parametrize("fields", [(), (IndexedField(name="at", kind=FieldKind.TIME),)], ids=["rows", "index"])
def test_times_that_python_has_not_are_compared_as_times(
    conn: psycopg.Connection, fields: tuple[IndexedField, ...]
) -> None:
    collection = Collection("far", SearchIndexInfo(dimensions=2, fields=fields))
    collection.create(conn)
    others = {"soon": "soon", "no day": "2026-02-30", "number": 5, "year": "10000", "list": ["0044-03-15 BC"]}
    collection.copy_objects(
        conn,
        [
            IndexedObject(key, {"at": value}, "h", np.ones((1, 2)))
            for key, value in [*others.items(), *((f"{place:02}", each) for place, each in enumerate(FAR))]
        ],
    )
    build_index(conn, collection)
    every = range(len(FAR))
    signs: dict[str, Callable[[int, int], bool]] = {"lt": lt, "lte": le, "eq": eq, "gte": ge, "gt": gt}
    for place, bound in enumerate(FAR):
        for name, holds in signs.items():
            found = find_by_filter(conn, collection, {"range": {"at": {name: bound}}}, limit=100)
            ids = {row.object_id for row in found}
            assert sorted(ids - set(others)) == [f"{each:02}" for each in every if holds(each, place)], (name, bound)
            assert ("list" in ids) == holds(2, place), "as the time that stands in it"
            assert ids.isdisjoint({"no day", "number"})


def test_times_of_day_are_compared_as_times(conn: psycopg.Connection) -> None:
    collection = Collection("clock", SearchIndexInfo(dimensions=2))
    collection.create(conn)
    values = {"a": "10:00", "b": "10:00:00", "c": "10:00:00.000", "d": "10:00:00.5", "e": "24:00:00", "f": "09:59:59"}
    collection.copy_objects(
        conn, [IndexedObject(key, {"at": value}, "h", np.ones((1, 2))) for key, value in values.items()]
    )
    for bounds, expected in (
        ({"eq": "10:00"}, "abc"),
        ({"lte": "10:00"}, "abcf"),
        ({"gt": "10:00:00"}, "de"),
        ({"lt": "10:00:00.0"}, "f"),
    ):
        found = find_by_filter(conn, collection, {"range": {"at": bounds}}, limit=100)
        assert "".join(row.object_id for row in found) == expected, bounds


def test_many_values_select_as_few_do(conn: psycopg.Connection) -> None:
    collection = Collection("many", SearchIndexInfo(dimensions=2))
    collection.create(conn)
    payloads = {**PAYLOADS, "f": {"n": [[1]]}, "g": {"maker": [{"name": "acme"}]}, "h": {"n": 1.0}, "i": {"n": True}}
    collection.copy_objects(conn, [IndexedObject(key, value, "h", np.ones((1, 2))) for key, value in payloads.items()])

    def found(given: dict[str, Any]) -> str:
        return "".join(row.object_id for row in find_by_filter(conn, collection, given, limit=100))

    for field, values in (("n", [1, "x"]), ("n", ["1"]), ("n", [True]), ("maker.name", ["acme"]), ("null", [None])):
        padded = [*values, *(f"none {number}" for number in range(10_000 - len(values)))]
        assert found({"terms": {field: padded}}) == found({"terms": {field: values}}) != "", field
    assert found({"all": {"n": [1, 1.0]}}) == "ah"
    assert found({"all": {"n": [1, True]}}) == ""


def test_one_long_text_is_no_error_of_everybody(conn: psycopg.Connection) -> None:
    collection = Collection("long", SearchIndexInfo(dimensions=2))
    collection.create(conn)
    long = " ".join(f"ж{number:x}-{number}" for number in range(150_000))
    assert len(long.encode()) > 2_000_000
    collection.copy_objects(
        conn,
        [IndexedObject(key, {"text": text}, "h", np.ones((1, 2))) for key, text in (("a", long), ("b", "some words"))],
    )
    for given, expected in (
        ({"match": {"text": "words"}}, "b"),
        ({"phrase": {"text": "some words"}}, "b"),
        ({"match": {"text": "ж7-7"}}, "a"),
        ({"wildcard": {"text": "*" * 500 + "ж7-7*" * 50 + "z"}}, ""),
        ({"match": {"text": "word " * 1_999}}, ""),
        ({"phrase": {"text": "a b " * 2_000}}, ""),
        ({"range": {"text": {"gte": "ж0"}}}, "a"),
    ):
        found = find_by_filter(conn, collection, given, limit=100)
        assert "".join(row.object_id for row in found) == expected, str(given)[:60]
