"""What users did, over HTTP: UBI as a whole, Algolia's events; nothing that was acknowledged is lost."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from estudio_core import database
from estudio_core.clickstream.forgetting import forget
from estudio_core.clickstream.log_rows import RowReader
from estudio_core.searching import search
from tests.service.conftest import Service

NOW = datetime.now(UTC) - timedelta(minutes=5)


def at(seconds: float = 0) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat()


@pytest.fixture
def logger(make_client: Any) -> httpx.Client:
    found: httpx.Client = make_client("events")
    return found


def test_nobody_logs_without_a_key_for_events(service: Service, client: httpx.Client) -> None:
    for path in ("/ubi_queries", "/ubi_events", "/1/events"):
        assert httpx.post(service.address + path, json={}).status_code == 401
        assert client.post(path, json={}).status_code == 403


def test_a_search_and_its_click_become_a_session_with_all_their_fields(service: Service, logger: httpx.Client) -> None:
    asked = {
        "application": "shop", "query_id": "u1", "client_id": "c", "session_id": "s", "user_id": "a",
        "user_query": "red lamp", "object_id_field": "sku", "timestamp": at(), "query_response_id": "r1",
        "query_response_hit_ids": ["3", "4"], "query_attributes": {"channel": "app"}, "extra": {"kept": 1},
    }  # fmt: skip
    clicked = {
        "action_name": "click", "timestamp": at(3), "application": "shop", "query_id": "u1", "session_id": "s",
        "client_id": "c", "user_id": "a", "message_type": "INFO", "message": "Clicked", "user_query": "red lamp",
        "event_attributes": {
            "object": {"object_id": "4", "object_id_field": "sku", "internal_id": "x7"},
            "position": {"ordinal": 2, "xy": {"x": 1, "y": 2}}, "dwell_s": 40,
        },
    }  # fmt: skip
    assert logger.post("/ubi_queries", json=asked).json() == {"stored": 1, "refused": 0, "errors": []}
    assert logger.post("/ubi_events", json=[clicked]).json()["stored"] == 1
    session = service.sessions()["u1"]
    assert [result.object_id for result in session.search_results] == ["3", "4"]
    assert [(event.object_id, event.importance) for event in session.events] == [("4", 1.5)]
    [(attributes,)] = service.sql("SELECT query_attributes FROM estudio.ubi_queries WHERE query_id = 'u1'")
    expected = {"channel": "app", "object_id_field": "sku", "query_response_id": "r1", "extra": {"kept": 1}}
    assert expected.items() <= attributes.items()
    [row] = service.sql(
        "SELECT event_attributes, client_id, session_id, user_id, user_query, object_id, position_ordinal"
        " FROM estudio.ubi_events WHERE query_id = 'u1'"
    )
    assert {"message_type": "INFO", "message": "Clicked"}.items() <= row[0].items()
    assert row[0]["object"] == clicked["event_attributes"]["object"]  # type: ignore[index]
    assert row[0]["position"] == clicked["event_attributes"]["position"]  # type: ignore[index]
    assert row[1:] == ("c", "s", "a", "red lamp", "4", 2)


@pytest.mark.parametrize("form", ["object", "array", "lines", "bulk lines", "beacon"])
def test_every_form_of_a_body_is_taken_once(service: Service, logger: httpx.Client, form: str) -> None:
    rows = [
        {"action_name": "click", "query_id": f"f-{form}", "timestamp": at(n), "event_attributes": {"object": str(n)}}
        for n in range(1 if form == "object" else 3)
    ]
    lines = "\n".join(map(json.dumps, rows))
    bulk = "\n".join(f'{{"index": {{}}}}\n{json.dumps(row)}' for row in rows) + "\n"
    content = {"object": json.dumps(rows[0]), "lines": lines, "bulk lines": bulk}.get(form, json.dumps(rows))
    url, headers = "/ubi_events", dict(logger.headers)
    if form == "beacon":  # no headers but a plain media type; the key stands in the address
        url += "?key=" + headers.pop("authorization").removeprefix("Bearer ")
        headers["Content-Type"] = "text/plain;charset=UTF-8"
    for _ in range(2):
        answer = httpx.post(service.address + url, content=content, headers=headers)
        assert answer.json()["stored"] == len(rows), answer.text
    assert service.sql("SELECT count(*) FROM estudio.ubi_events WHERE query_id = %s", f"f-{form}") == [(len(rows),)]
    assert service.sql("SELECT DISTINCT application FROM estudio.ubi_events WHERE query_id = %s", f"f-{form}") == [
        ("shop",)
    ]


def test_a_bad_row_is_named_and_its_neighbours_are_stored(service: Service, logger: httpx.Client) -> None:
    def event(**more: Any) -> dict[str, Any]:
        return {"action_name": "click", "query_id": "bad", "timestamp": at(), "event_id": str(len(rows)), **more}

    rows: list[Any] = []
    for more in (
        {}, {"timestamp": "yesterday"}, {"action_name": ""}, {"query_id": "x" * 2000}, {"application": "other"}, {},
        {"event_attributes": {"a": "\x00"}}, {"client_id": {"a": 1}}, {},
    ):  # fmt: skip
        rows.append(event(**more))
    rows += [7, None]
    answer = logger.post("/ubi_events", json=rows)
    assert answer.status_code == 200
    assert answer.json()["stored"] == 3
    reasons = {found["row"]: found["reason"] for found in answer.json()["errors"]}
    assert sorted(reasons) == [1, 2, 3, 4, 6, 7, 9, 10]
    assert reasons[4] == "its application is no plugin of this key"
    assert "time" in reasons[1]
    stored = service.sql("SELECT event_id FROM estudio.ubi_events WHERE query_id = 'bad' ORDER BY event_id")
    assert [row[0] for row in stored] == ["0", "5", "8"]
    only_bad = logger.post("/ubi_events", content=b'{"a": 1}\nnonsense\n')
    assert only_bad.status_code == 400
    assert only_bad.json()["refused"] == 2


def test_one_id_for_two_searches_is_named(service: Service, logger: httpx.Client) -> None:
    rows = [{"query_id": "twice", "user_query": text, "timestamp": at()} for text in ("red lamp", "blue chair")]
    first, second = (logger.post("/ubi_queries", json=row) for row in rows)
    assert first.json()["stored"] == 1
    assert second.json()["errors"] == [{"row": 0, "reason": "the query_id is that of a search for something else"}]


def test_rows_of_a_forgotten_client_from_before_do_not_come_back(service: Service, logger: httpx.Client) -> None:
    with database.connect() as connection:
        forget(connection, "gone")
    event = {"action_name": "click", "query_id": "g", "client_id": "gone", "timestamp": at()}
    answer = logger.post("/ubi_events", json=[event, {**event, "client_id": "here"}])
    assert answer.json()["stored"] == 1
    assert "forgotten" in answer.json()["errors"][0]["reason"]


def test_queries_and_events_without_ids_are_taken_as_ubi_allows(service: Service, logger: httpx.Client) -> None:
    assert logger.post("/ubi_queries", json={"user_query": "no id at all"}).json()["stored"] == 1
    opened = {"action_name": "page_view", "timestamp": at(), "client_id": "viewer", "message": "home"}
    for _ in range(2):
        assert logger.post("/ubi_events", json=opened).json()["stored"] == 1
    assert service.sql("SELECT count(*) FROM estudio.ubi_events WHERE client_id = 'viewer'") == [(1,)]
    assert service.sql("SELECT count(*) FROM estudio.ubi_queries WHERE user_query = 'no id at all'") == [(1,)]
    assert logger.post("/ubi_events", json={"user_query": "a search"}).status_code == 400
    assert logger.post("/ubi_events", content=b"").status_code == 400


def test_rows_of_many_requests_at_once_are_all_stored(service: Service, logger: httpx.Client) -> None:
    refused: list[str] = []

    def send(worker: int) -> None:
        with service.client("events") as own:
            for n in range(20):
                row = {"action_name": "click", "query_id": "many", "event_id": f"{worker}-{n}", "timestamp": at(n)}
                bad = {**row, "event_id": f"bad-{worker}-{n}", "event_attributes": {"object": {"object_id": "a\x00"}}}
                answer = own.post("/ubi_events", json=[row, bad, row])
                if answer.json()["stored"] != 2:
                    refused.append(answer.text)

    threads = [threading.Thread(target=send, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == []
    assert service.sql("SELECT count(*) FROM estudio.ubi_events WHERE query_id = 'many'") == [(120,)]


def test_a_row_that_breaks_the_reader_is_named_and_logged_and_its_neighbours_are_stored(
    logger: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = RowReader.rows

    def failing(self: RowReader, document: Any) -> Any:
        if document.get("query_id") == "odd":
            raise AttributeError("of the installation")
        return real(self, document)

    monkeypatch.setattr(RowReader, "rows", failing)
    rows = [{"action_name": "click", "query_id": name, "timestamp": at(1)} for name in ("even", "odd", "odd", "even2")]
    answer = logger.post("/ubi_events", json=rows).json()
    reason = "it cannot be read"
    assert answer["stored"] == 2
    assert answer["errors"] == [{"row": 1, "reason": reason}, {"row": 2, "reason": reason}]
    [told] = [each for each in caplog.records if "cannot be read" in each.message]
    assert told.exc_info is not None


def test_instantsearch_asks_and_is_answered(service: Service, make_client: Any) -> None:
    page = make_client("search", "events")
    params = (
        "query=red%20lamp&hitsPerPage=5&page=1&facets=%5B%22brand%22%2C%22price%22%5D&maxValuesPerFacet=2"
        "&facetFilters=%5B%5B%22kind%3Alamp%22%2C%22kind%3Achair%22%5D%5D&numericFilters=%5B%22price%3E%3D11%22%5D"
        "&highlightPreTag=__ais-highlight__&highlightPostTag=__%2Fais-highlight__&clickAnalytics=true&userToken=u-7"
    )
    requests = [
        {"indexName": "shop", "params": params},
        {"indexName": "shop", "query": "", "hitsPerPage": 0, "facets": ["kind"], "facetFilters": ["brand:-acme"]},
    ]
    answer = page.post(
        "/1/indexes/*/queries", content=json.dumps({"requests": requests}), headers={"Content-Type": "text/plain"}
    )
    first, second = answer.json()["results"]
    condition = {"bool": {"must": [{"terms": {"kind": ["lamp", "chair"]}}, {"range": {"price": {"gte": 11}}}]}}
    expected = search("shop", "red lamp", limit=100, filter=condition).hits
    assert [hit["objectID"] for hit in first["hits"]] == [hit.object_id for hit in expected[5:10]]
    assert (first["nbHits"], first["nbPages"], first["page"]) == (len(expected), -(-len(expected) // 5), 1)
    assert sum(first["facets"]["brand"].values()) == len(expected)
    assert first["facets_stats"]["price"]["min"] == min(hit.payload["price"] for hit in expected)
    title = first["hits"][0]["_highlightResult"]["title"]
    assert title["value"].count("__ais-highlight__") == len(title["matchedWords"])
    assert second["nbHits"] == 40
    assert "lamp" not in second["facets"]["kind"]  # lamps are acme's
    assert "queryID" not in second
    clicked = {
        "eventType": "click", "eventName": "Hit clicked", "index": "shop", "userToken": "u-7",
        "queryID": first["queryID"], "objectIDs": [first["hits"][1]["objectID"]], "positions": [7],
        "timestamp": int(datetime.now(UTC).timestamp() * 1000),
    }  # fmt: skip
    assert page.post("/1/events", json={"events": [clicked]}).json() == {"status": 200, "message": "OK"}
    viewed = {
        "eventType": "view",
        "eventName": "Filters",
        "index": "shop",
        "userToken": "u-7",
        "filters": ["kind:lamp"],
    }
    assert page.post("/1/events", json={"events": [viewed]}).status_code == 200
    # The search itself is kept when its user has stayed with it: here because another one follows.
    page.post("/1/indexes/shop/query", json={"query": "chair", "clickAnalytics": True, "userToken": "u-7"})
    for _ in range(100):
        session = service.sessions().get(first["queryID"])
        if session is not None and session.events:
            break
    assert session is not None
    assert session.query == "red lamp"
    assert [event.object_id for event in session.events] == [first["hits"][1]["objectID"]]
    assert session.client_id == "u-7"


def test_of_a_text_that_is_being_typed_only_the_last_is_a_search(service: Service, make_client: Any) -> None:
    page = make_client("search", "events")
    for text in ("k", "ket", "kettle", "kettl", "kettle b"):
        body = {"query": text, "clickAnalytics": True, "userToken": "typist", "hitsPerPage": 2}
        assert page.post("/1/indexes/shop/query", json=body).status_code == 200
    page.post("/1/indexes/shop/query", json={"query": "tent", "clickAnalytics": True, "userToken": "typist"})
    texts: list[str] = []
    for _ in range(200):
        rows = service.sql("SELECT user_query FROM estudio.ubi_queries WHERE client_id = 'typist'")
        texts = [row[0] for row in rows]
        if texts:
            break
    assert texts == ["kettle b"]


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        ({"query": "a", "aroundLatLng": "1,2"}, "[aroundLatLng]"),
        ({"params": "query=a&distinct=1"}, "[distinct]"),
        ({"query": "a", "filters": "brand:acme"}, "[filters]"),
        ({"query": "a", "numericFilters": ["price about 5"]}, "[numericFilters]"),
        ({"query": "a", "facetFilters": ["brand"]}, "[facetFilters]"),
        ({"query": "a", "hitsPerPage": -1}, "[hitsPerPage]"),
        ({"query": "a", "tagFilters": ["x"]}, "[tagFilters]"),
        ({"query": "a", "page": 20000}, "[page]"),
        ({"query": ["a"]}, "[query]"),
        ({"query": "a", "sortFacetValuesBy": "size"}, "[sortFacetValuesBy]"),
        ({"query": "a", "attributesToHighlight": [1]}, "[attributesToHighlight]"),
    ],
)
def test_what_instantsearch_may_not_ask_is_refused_by_name(client: httpx.Client, request_: Any, named: str) -> None:
    answer = client.post("/1/indexes/shop/query", json=request_)
    assert answer.status_code == 400
    assert named in answer.json()["message"]


def test_values_of_a_facet_are_found_by_how_they_begin(client: httpx.Client) -> None:
    answer = client.post("/1/indexes/shop/facets/kind/query", json={"params": "facetQuery=ca", "query": "old"})
    assert answer.json()["facetHits"] == [{"value": "camera", "count": 10, "highlighted": "<em>ca</em>mera"}]


def test_which_side_of_an_experiment_showed_a_result_is_told_by_the_service_alone(
    service: Service, logger: httpx.Client
) -> None:
    forged = {"id": "x", "teams": {"challenger": {"3": 1.0}}}
    asked = {
        "application": "shop", "query_id": "forged", "user_query": "lamp", "timestamp": at(),
        "query_response_hit_ids": ["3"], "query_attributes": {"channel": "app", "experiment": forged},
    }  # fmt: skip
    assert logger.post("/ubi_queries", json=asked).json()["stored"] == 1
    [(attributes,)] = service.sql("SELECT query_attributes FROM estudio.ubi_queries WHERE query_id = 'forged'")
    assert attributes == {"channel": "app"}
