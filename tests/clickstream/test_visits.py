from __future__ import annotations

from estudio_core.clickstream.clients import counted_sessions
from estudio_core.clickstream.converter import ClickstreamSessionConverter, usable_inputs
from estudio_core.clickstream.sessions import SearchResult, SessionWithEvents
from estudio_core.clickstream.text_query_retriever import TextQueryRetriever
from estudio_core.sources.item_meta import ItemMeta


def asked(number: int, **who: str) -> SessionWithEvents:
    shown = [SearchResult(object_id="a"), SearchResult(object_id="b")]
    return SessionWithEvents(session_id=str(number), query="lamp", search_results=shown, **who)


def clients(*sessions: SessionWithEvents) -> list[str | None]:
    converter = ClickstreamSessionConverter(ItemMeta)
    return [one.client for one in usable_inputs(sessions, converter, TextQueryRetriever())]


def test_one_person_counts_once_whether_named_as_client_or_by_the_visit() -> None:
    named = [asked(number, client_id="ana", visit_id="v") for number in range(3)]
    alone = [asked(number, visit_id="v") for number in range(3, 6)]
    inputs = list(usable_inputs([*named, *alone], ClickstreamSessionConverter(ItemMeta), TextQueryRetriever()))
    assert {one.client for one in inputs} == {"ana"}
    kept, left_out = counted_sessions(inputs)
    assert [one.session_id for one in kept] == ["0", "1", "2"]
    assert (left_out.beyond_cap, left_out.capped_clients) == (3, 1)


def test_a_visit_is_of_its_client_even_where_a_search_names_the_user_alone() -> None:
    assert clients(asked(1, client_id="phone", visit_id="v"), asked(2, user_id="ana", visit_id="v")) == ["phone"] * 2


def test_a_visit_that_names_a_user_alone_is_the_users() -> None:
    assert clients(asked(1, visit_id="v"), asked(2, user_id="ana", visit_id="v")) == ["ana", "ana"]


def test_visits_that_nothing_joins_stay_apart() -> None:
    assert clients(asked(1, visit_id="v"), asked(2, visit_id="w"), asked(3)) == ["v", "w", None]
