from __future__ import annotations

from typing import Any

import pytest

from estudio_core.clickstream.converter import ClickstreamSessionConverter
from estudio_core.clickstream.sessions import SearchResult, SessionEvent, SessionWithEvents
from estudio_core.clickstream.text_query_retriever import TextQueryRetriever
from estudio_core.errors import ConfigurationError, DataError
from estudio_core.sources.item_meta import ItemMeta, PgsqlFileMeta


class ShopMeta(ItemMeta):
    shop: str = "main"


def session(**changes: Any) -> SessionWithEvents:
    given: dict[str, Any] = {
        "session_id": "s1",
        "query": "usb charger",
        "created_at": 1_700_000_000,
        "user_id": "u1",
        "release": "r7",
        "search_results": [
            SearchResult(object_id="a", rank=0.9),
            SearchResult(object_id="b", rank=0.8),
            SearchResult(object_id="c", rank=None),
        ],
        "events": [SessionEvent(event_id="e1", object_id="b")],
    }
    return SessionWithEvents(**(given | changes))


@pytest.fixture
def converter() -> ClickstreamSessionConverter:
    return ClickstreamSessionConverter(item_type=PgsqlFileMeta)


def test_a_session_becomes_input_and_item_metas(converter: ClickstreamSessionConverter) -> None:
    converted = converter.convert(session())
    made = converted.input
    assert (made.session_id, made.query, made.timestamp) == ("s1", "usb charger", 1_700_000_000)
    assert (made.user_id, made.release) == ("u1", "r7")
    assert made.results == ("a", "b", "c")
    assert made.positions == (0, 1, 2)
    assert made.ranks == (0.9, 0.8, None)
    assert made.click_weights == (0.0, 1.0, 0.0)
    assert made.events == ("b",)
    assert made.not_events == ("a", "c")
    assert [item.id for item in converted.items] == ["a", "b", "c"]
    assert all(isinstance(item, PgsqlFileMeta) for item in converted.items)


def test_a_dict_converts_like_the_session_it_describes(converter: ClickstreamSessionConverter) -> None:
    assert converter.convert(session().model_dump()) == converter.convert(session())


def test_the_tutorials_name_of_the_query_is_read_too(converter: ClickstreamSessionConverter) -> None:
    told = session().model_dump()
    assert converter.convert({"search_query": told.pop("query"), **told}) == converter.convert(session())


def test_query_may_be_a_dict(converter: ClickstreamSessionConverter) -> None:
    assert converter.convert(session(query={"text": " usb  charger"})).input.query == "usb charger"


def test_a_repeated_result_keeps_its_first_position_and_rank(converter: ClickstreamSessionConverter) -> None:
    results = [SearchResult(object_id=i, rank=r) for i, r in [("a", 0.9), ("b", 0.8), ("a", 0.7), ("c", 0.6)]]
    made = converter.convert(session(search_results=results)).input
    assert made.results == ("a", "b", "c")
    assert made.positions == (0, 1, 3)
    assert made.ranks == (0.9, 0.8, 0.6)


def test_results_are_put_in_the_order_of_their_positions(converter: ClickstreamSessionConverter) -> None:
    results = [SearchResult(object_id=i, position=p) for i, p in [("a", 12), ("b", 10), ("c", 11)]]
    made = converter.convert(session(search_results=results)).input
    assert made.results == ("b", "c", "a")
    assert made.positions == (10, 11, 12)
    assert made.click_weights == (1.0, 0.0, 0.0)


def test_click_weight_is_the_greatest_weighted_importance() -> None:
    events = [
        SessionEvent(event_id="1", object_id="a", event_type="click", importance=2.5),
        SessionEvent(event_id="2", object_id="a", event_type="add_to_cart"),
        SessionEvent(event_id="3", object_id="b", event_type="purchase", importance=0.5),
        SessionEvent(event_id="4", object_id="c", event_type="hover"),
    ]
    weights = {"click": 1, "add_to_cart": 2, "purchase": 3, "hover": 0}
    weighted = ClickstreamSessionConverter(PgsqlFileMeta, event_weights=weights).convert(session(events=events))
    assert weighted.input.click_weights == (2.5, 1.5, 0.0)
    plain = ClickstreamSessionConverter(PgsqlFileMeta).convert(session(events=events))
    assert plain.input.click_weights == (2.5, 0.5, 1.0)


def test_a_negative_event_weight_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="purchase"):
        ClickstreamSessionConverter(PgsqlFileMeta, event_weights={"purchase": -1})
    with pytest.raises(ConfigurationError, match="purchase"):
        ClickstreamSessionConverter(PgsqlFileMeta, event_weights={"purchase": float("nan")})


def test_events_of_results_never_shown_are_dropped_and_counted(converter: ClickstreamSessionConverter) -> None:
    events = [SessionEvent(event_id=str(i), object_id=o) for i, o in enumerate(["x", "b", "x", "y"])]
    converted = converter.convert(session(events=events))
    assert converted.input.events == ("b",)
    assert converted.dropped_events == 3


def test_a_session_marked_irrelevant_has_no_clicks(converter: ClickstreamSessionConverter) -> None:
    made = converter.convert(session(is_irrelevant=True)).input
    assert made.click_weights == (0.0, 0.0, 0.0)
    assert made.is_clickless


def test_meta_of_a_result_goes_into_the_item_meta() -> None:
    results = [SearchResult(object_id="a", meta={"shop": "outlet", "color": "red"}), SearchResult(object_id="b")]
    items = ClickstreamSessionConverter(ShopMeta).convert(session(search_results=results)).items
    assert items[0] == ShopMeta(object_id="a", shop="outlet", payload={"shop": "outlet", "color": "red"})
    assert isinstance(items[0], ShopMeta)
    assert items[0].shop == "outlet"
    assert items[0].payload == {"shop": "outlet", "color": "red"}
    assert items[1].payload is None


def test_a_meta_that_names_another_id_does_not_change_which_item_it_is(converter: ClickstreamSessionConverter) -> None:
    results = [SearchResult(object_id="a", meta={"object_id": "z"})]
    assert converter.convert(session(search_results=results)).items[0].id == "a"


@pytest.mark.parametrize("results", [[], [SearchResult(object_id="a")]])
def test_sessions_with_few_results_convert(converter: ClickstreamSessionConverter, results: list[SearchResult]) -> None:
    assert len(converter.convert(session(search_results=results)).input.results) == len(results)


def test_errors_name_the_session(converter: ClickstreamSessionConverter) -> None:
    with pytest.raises(DataError, match=r"'s1'.*empty"):
        converter.convert(session(query="  "))
    with pytest.raises(DataError, match=r"'s9' is malformed: query: Field required"):
        converter.convert({"session_id": "s9"})
    with pytest.raises(DataError, match=r"'s9' is malformed: serch_query"):
        converter.convert({"session_id": "s9", "query": "x", "serch_query": "x"})


def test_a_given_query_retriever_goes_before_the_converters_own(converter: ClickstreamSessionConverter) -> None:
    class Upper(TextQueryRetriever):
        def _convert_query(self, query: Any) -> str:
            return super()._convert_query(query).upper()

    assert converter.convert(session(), Upper()).input.query == "USB CHARGER"
    assert ClickstreamSessionConverter(PgsqlFileMeta, Upper()).convert(session()).input.query == "USB CHARGER"
