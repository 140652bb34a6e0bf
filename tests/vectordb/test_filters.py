"""Filters against PostgreSQL: types, words, patterns, ranges; and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest

from estudio_core.errors import ConfigurationError, DataError, DimensionError
from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.filters import parse_filter
from estudio_core.vectordb.index_info import SearchIndexInfo
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
