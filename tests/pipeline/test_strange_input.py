"""What strangers send: an answer or an error of ours, never one of a driver, a tokenizer or a parser."""

from __future__ import annotations

import string
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from estudio_core.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    DataError,
    ItemError,
    NothingLiveError,
)
from estudio_core.searching import Mode, search
from estudio_core.vectordb.filters import _LEAVES
from estudio_core.vectordb.ordering import SortBy
from estudio_core.writing import ItemWrite, delete, refresh, upsert
from tests.clickstream.test_odd_values import require_taken_or_refused
from tests.pipeline.conftest import Shop

BOUNDED = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)  # fmt: skip
ODD_TEXTS = [
    "", " ", "\0", "a\0b", "\ud800", "\udfff\ud800", "\x1b[31m", "'", "''; DROP TABLE x; --", "%s", "%(q)s", "{}",
    "\\", "\\u0000", "a & b | !c <-> d:*", "()" * 500, "\u202e", "😀" * 2000, "ﷺ" * 3000, "a" * 100_000, "a-" * 5_000,
    "AB-17-x " * 3_000, "\u0301" * 5_000, "<a href='x'>", "NaN", "null", "*" * 900, "?*" * 450, "$.a[*]", "1e999",
    "2026-02-30", "2026-01-01T00:00:00Z", "24:00", "0001-01-01", "9999-12-31T23:59:59-14:00", "-infinity",
]  # fmt: skip
texts = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=40), st.text(string.printable, max_size=200))
scalars = st.one_of(
    texts, st.integers(), st.floats(), st.booleans(), st.none(), st.decimals(), st.binary(max_size=5),
    st.sampled_from([Decimal("1e5000"), 2**63, -(2**31), 1e308, 5e-324, timedelta(1), object()]),
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(texts, st.integers()), inner, max_size=4)
    ),
    max_leaves=12,
)
fields = st.one_of(st.sampled_from(["title", "kind", "n", "deep.n", "at"]), texts)
values = st.one_of(
    scalars,
    st.lists(scalars, max_size=5),
    st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte", "eq", "nope"]), scalars, max_size=3),
)
leaves = st.builds(
    lambda name, field, value: {name: {field: value}}, st.sampled_from([*_LEAVES, "trem"]), fields, values
)
filters = st.one_of(
    st.recursive(
        leaves,
        lambda inner: st.builds(
            lambda clause, children: {"bool": {clause: children}},
            st.sampled_from(["must", "should", "must_not", "filter", "nope"]),
            st.one_of(inner, st.lists(inner, max_size=3)),
        ),
        max_leaves=6,
    ),
    anything,
)


@pytest.fixture
def odd_items(indexed_shop: Shop) -> Shop:
    payloads: list[Any] = [{"n": 1, "at": "2026-01-01T00:00:00Z"}, {"n": "1", "at": "never"}, {"n": [1], "at": []},
                           {"deep": {"n": {"n": 1}}, "title": "x y " * 25_000}, {}]  # fmt: skip
    upsert("shop", [ItemWrite(f"w{i}", "red lamp", payload) for i, payload in enumerate(payloads)])
    return indexed_shop


def test_any_query_is_answered_or_refused(odd_items: Shop) -> None:
    @BOUNDED
    @given(texts, st.sampled_from(["hybrid", "vector", "words"]))
    def ask(query: str, mode: Mode) -> None:
        if "\0" in query or not query.strip() or any("\ud800" <= letter <= "\udfff" for letter in query):
            with pytest.raises(ConfigurationError):
                search("shop", query, mode=mode, limit=3)
        else:
            assert len(search("shop", query, mode=mode, limit=3).hits) <= 3

    ask()


def test_any_filter_is_answered_or_refused(odd_items: Shop) -> None:
    answered = []

    @BOUNDED
    @given(filters)
    def ask(wanted: Any) -> None:
        try:
            answered.append(len(search("shop", "lamp", filter=wanted, limit=100, mode="vector").hits))
        except ConfigurationError:
            answered.append(-1)

    ask()
    assert len(set(answered)) >= 3, "some filters match all, some none, some are refused"


def test_any_argument_is_answered_or_refused(odd_items: Shop) -> None:
    @BOUNDED
    @given(
        st.fixed_dictionaries(
            {},
            optional={
                "plugin": scalars, "query": scalars, "limit": scalars, "offset": scalars, "max_distance": scalars,
                "sort_by": st.one_of(anything, st.builds(SortBy, fields)), "user_id": scalars, "mode": scalars,
            },
        )
    )  # fmt: skip
    def ask(arguments: dict[str, Any]) -> None:
        with suppress(ConfigurationError, DataError, ItemError, NothingLiveError):
            search(**{"plugin": "shop", "query": "lamp", **arguments})

    ask()


def test_any_write_is_done_or_refused(odd_items: Shop) -> None:
    @BOUNDED
    @given(st.sampled_from(["upsert", "delete", "refresh"]), anything, anything, st.one_of(st.none(), anything))
    def write(kind: str, key: Any, data: Any, payload: Any) -> None:
        try:
            if kind == "upsert":
                upsert("shop", [ItemWrite(key, data, payload)])
            else:
                {"delete": delete, "refresh": refresh}[kind]("shop", [key] if payload is None else key)
        except (ConfigurationError, DataError):
            return
        else:
            if kind == "upsert" and payload:
                stored = {hit.object_id: hit.payload for hit in search("shop", "lamp", limit=500).hits}
                assert stored[str(key)] == payload

    write()


@pytest.mark.parametrize("words", [20_000, 300_000])
def test_a_query_of_very_many_words_finds_by_its_beginning(odd_items: Shop, words: int) -> None:
    many = "red lamp " + " ".join(f"w{number}-{number}" for number in range(words))
    for mode in ("hybrid", "words", "vector"):
        assert len(search("shop", many, mode=mode, limit=5).hits) == 5  # type: ignore[arg-type]


@pytest.mark.parametrize("query", ["", " ", "\t\n", "\u3000"])
def test_an_empty_query_lists_in_an_order_or_is_refused(odd_items: Shop, query: str) -> None:
    for mode in ("hybrid", "words", "vector"):
        with pytest.raises(ConfigurationError, match="query is empty"):
            search("shop", query, mode=mode)  # type: ignore[arg-type]
        listed = search("shop", query, mode=mode, sort_by=SortBy("title", descending=True), limit=500)  # type: ignore[arg-type]
        titles = [hit.payload["title"] for hit in listed.hits if "title" in hit.payload]
        assert len(listed.hits) == 65
        assert titles == sorted(titles, reverse=True)
        assert {(hit.similarity, hit.words, hit.score) for hit in listed.hits} == {(None, None, 0.0)}
    kettles = search("shop", query, sort_by="title", filter={"term": {"kind": "kettle"}}, limit=3, offset=8).hits
    assert [hit.payload["kind"] for hit in kettles] == ["kettle", "kettle"]
    with pytest.raises(ConfigurationError, match="no max_distance"):
        search("shop", query, sort_by="title", max_distance=1.0)


HUGE = 10**5000
"""Python writes no integer of so many digits, not even into an error."""


@pytest.mark.parametrize(
    "arguments",
    [{"limit": HUGE}, {"offset": -HUGE}, {"user_id": HUGE}, {"max_distance": HUGE}, {"query": HUGE}, {"mode": HUGE},
     {"plugin": HUGE}, {"sort_by": HUGE}, {"sort_by": SortBy(HUGE)}, {"filter": HUGE}, {"filter": {HUGE: 1}},  # type: ignore[arg-type]
     {"filter": {"term": {"a": HUGE}}}, {"filter": {"range": {"a": {"gt": HUGE}}}},
     {"filter": {"terms": {"a": [HUGE]}}}, {"filter": {"bool": {HUGE: 1}}}],
)  # fmt: skip
def test_a_number_that_cannot_be_written_is_refused(odd_items: Shop, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        search(**{"plugin": "shop", "query": "lamp", **arguments})


@pytest.mark.parametrize("write", [lambda: delete("shop", [HUGE]), lambda: refresh("shop", [HUGE]),
                                   lambda: upsert("shop", [ItemWrite(HUGE, "a lamp")]),  # type: ignore[arg-type]
                                   lambda: upsert("shop", [ItemWrite("a", HUGE)]),
                                   lambda: upsert("shop", [ItemWrite("a", "a lamp", {"a": HUGE})])])  # fmt: skip
def test_such_a_number_is_not_written(odd_items: Shop, write: Callable[[], Any]) -> None:
    with pytest.raises((ConfigurationError, ItemError)):
        write()


def test_a_limit_of_the_database_is_named(odd_items: Shop) -> None:
    from estudio_core import database

    database.forget_pools()
    name = odd_items.database_url.partition("?")[0].rpartition("/")[2]
    odd_items.sql(f"ALTER DATABASE {name} SET statement_timeout = 50")
    slow = {"bool": {"must": [{"match": {"title": "x y"}}] * 400}}
    with pytest.raises(DatabaseUnavailableError, match=r"statement timeout.*ALTER ROLE"):
        search("shop", "lamp", filter=slow, mode="vector")
    assert upsert("shop", [ItemWrite("fine", "a lamp")]).upserted == 1, "writes take as long as there is work"
    database.forget_pools()


LEAVES: dict[str, Callable[[Any], Any]] = {
    f"{name} {form}": lambda odd, name=name, made=made: {name: made(odd)}
    for name in (*_LEAVES, "bool")
    for form, made in {
        "body": lambda odd: odd, "value": lambda odd: {"title": odd}, "list": lambda odd: {"title": [odd]},
        "field": lambda odd: {"field": odd, "value": 1}, "bound": lambda odd: {"title": {"gt": odd}},
        "must": lambda odd: {"must": odd},
    }.items()
}  # fmt: skip


def test_any_value_of_any_argument_is_taken_or_refused_by_us_in_few_words(indexed_shop: Shop) -> None:
    arguments = ("plugin", "query", "limit", "offset", "max_distance", "filter", "sort_by", "user_id", "mode", "exact",
                 "release", "deadline_s")  # fmt: skip
    asked: dict[str, Callable[[Any], object]] = {
        name: lambda odd, name=name: search(**{"plugin": "shop", "query": "lamp"} | {name: odd}) for name in arguments
    }
    asked |= {
        "field to sort by": lambda odd: search("shop", "", sort_by=SortBy(odd)),
        "descending": lambda odd: search("shop", "", sort_by=SortBy("title", odd)),
        "items": lambda odd: upsert("shop", odd),
        "item": lambda odd: upsert("shop", [odd]),
        "plugin of items": lambda odd: upsert(odd, []),
        "id": lambda odd: upsert("shop", [ItemWrite(odd, "lamp")]),
        "data": lambda odd: upsert("shop", [ItemWrite("a", odd)]),
        "column": lambda odd: upsert("shop", [ItemWrite("a", {"title": odd})]),
        "payload": lambda odd: upsert("shop", [ItemWrite("a", "lamp", odd)]),
        "payload's field": lambda odd: upsert("shop", [ItemWrite("a", "lamp", {"a": odd})]),
        "user": lambda odd: upsert("shop", [ItemWrite("a", "lamp", None, odd, "7")]),
        "original": lambda odd: upsert("shop", [ItemWrite("a", "lamp", None, "u", odd)]),
        "ids to delete": lambda odd: delete("shop", odd),
        "id to delete": lambda odd: delete("shop", [odd]),
        "ids to refresh": lambda odd: refresh("shop", odd),
        "id to refresh": lambda odd: refresh("shop", [odd]),
        "plugin to refresh": lambda odd: refresh(odd, ["1"]),
    }
    asked |= {
        name: lambda odd, made=made: search("shop", "", sort_by="title", filter=made(odd))
        for name, made in LEAVES.items()
    }
    require_taken_or_refused(asked)
