"""Lists that are sorted otherwise, filtered, or a further page are no rankings by relevance."""

from __future__ import annotations

from typing import Any

import pytest

from estudio_core.clickstream.converter import ClickstreamSessionConverter, usable_inputs
from estudio_core.clickstream.refinements import Usual, is_by_relevance, offset_of
from estudio_core.clickstream.sessions import SearchResult, SessionWithEvents
from estudio_core.clickstream.text_query_retriever import TextQueryRetriever
from estudio_core.sources.item_meta import ItemMeta


def session(number: int = 0, fields: dict[str, Any] | None = None, **said: Any) -> SessionWithEvents:
    return SessionWithEvents(
        session_id=str(number),
        query="lamp",
        search_results=[SearchResult(object_id=object_id) for object_id in "abcde"],
        search_meta=said,
        **(fields or {}),
    )


@pytest.mark.parametrize(
    "said",
    [
        {"sort": "price"},
        {"sort": "-price"},
        {"sort": "price:asc"},
        {"sort": ["price", "_score"]},
        {"sort": [{"price": {"order": "asc"}}, "_score"]},
        {"sort_by": {"field": "price", "order": "asc"}},
        {"order_by": "newest"},
        {"filter": "brand:acme"},
        {"filters": {"brand": ["acme"]}},
        {"filter": [{"term": {"brand": "acme"}}]},
        {"facetFilters": [["brand:acme"]]},
        {"refinementList": {"brand": ["acme"], "colour": []}},
        {"filters": {"sale": True}},
        {"from": 20},
        {"offset": "10"},
        {"page": 2, "size": 10},
        {"page": 1, "hitsPerPage": 10},
        {"page": 2},
    ],
)
def test_what_attributes_say_is_read(said: dict[str, Any]) -> None:
    assert not is_by_relevance(session(**said))


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"sort": "relevance"},
        {"sort": "_score:desc"},
        {"sort": [{"_score": "desc"}]},
        {"sort": ["_score", "price"]},
        {"sort": None, "filter": None},
        {"sort": "", "filter": ""},
        {"filter": {}},
        {"filters": {"brand": [], "colour": None, "category": "all"}},
        {"from": 0, "size": 20},
        {"page": 1, "size": 20},
        {"page": 0, "hitsPerPage": 20},
        {"page": "results"},
        {"from": -1},
        {"from": float("nan")},
        {"release": "7", "simulated": True},
    ],
)
def test_what_means_nothing_changes_nothing(said: dict[str, Any]) -> None:
    assert is_by_relevance(session(**said))


@pytest.mark.parametrize(
    "fields",
    [
        {"sort_by": {"price": "asc"}},
        {"payload_filter": {"brand": "acme"}},
        {"is_payload_search": True},
        {"is_refined": True},
    ],
)
def test_what_a_session_says_of_itself_is_read(fields: dict[str, Any]) -> None:
    assert not is_by_relevance(session(0, fields))


def test_a_further_page_stands_where_it_stood() -> None:
    converter = ClickstreamSessionConverter(ItemMeta)
    for said, top in (({"from": 20}, 20), ({"page": 3, "per_page": "12"}, 24), ({"page": 3}, 10), ({"page": 1}, 0)):
        assert offset_of(session(**said)) == top
        found = converter.convert(session(**said)).input
        assert found.positions == tuple(range(top, top + 5))
        assert found.by_relevance == (top == 0)
    counted_through = session(**{"from": 20})
    for place, result in enumerate(counted_through.search_results):
        result.position = 20 + place
    assert converter.convert(counted_through).input.positions == (20, 21, 22, 23, 24)


def test_what_most_searches_have_is_the_shop_s_own() -> None:
    in_stock = {"in_stock": True, "market": "de"}
    shop = [session(number, filter=in_stock, sort="popularity") for number in range(8)]
    brand = session(8, filter={**in_stock, "brand": "acme"}, sort="popularity")
    price = session(9, filter=in_stock, sort="price")
    usual = Usual.of([*shop, brand, price])
    assert [is_by_relevance(one, usual) for one in (shop[0], brand, price)] == [True, False, False]
    converter = ClickstreamSessionConverter(ItemMeta)
    found = [one.by_relevance for one in usable_inputs([*shop, brand, price], converter, TextQueryRetriever())]
    assert found == [True] * 8 + [False, False]


def test_clients_visits_and_users_are_kept_apart() -> None:
    def asked(**who: str) -> tuple[str | None, str | None, str | None]:
        found = ClickstreamSessionConverter(ItemMeta).convert(session(0, who)).input
        return found.client_id, found.user_id, found.client

    assert asked(client_id="phone", user_id="ana", visit_id="evening") == ("phone", "ana", "phone")
    assert asked(user_id="ana", visit_id="evening") == (None, "ana", "ana")
    assert asked(visit_id="evening") == ("evening", None, "evening")
    assert asked() == (None, None, None)
