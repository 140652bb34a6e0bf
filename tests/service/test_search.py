"""Search over HTTP as clients of OpenSearch do it, and what is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import opensearchpy
import pytest

from estudio_core.searching import search
from tests.service.conftest import Service


@pytest.fixture
def opensearch(service: Service) -> opensearchpy.OpenSearch:
    """An unmodified client, which brings its key as a password."""
    address = urlsplit(service.address)
    return opensearchpy.OpenSearch(
        [{"host": address.hostname, "port": address.port}],
        http_auth=("shop", service.key("search", "events", "items")),
        max_retries=0,
    )


def test_a_client_of_opensearch_finds_what_python_finds(opensearch: opensearchpy.OpenSearch) -> None:
    assert opensearch.ping()
    found = opensearch.search(index="shop", body={"query": {"match": {"title": "red lamp"}}, "size": 5, "from": 5})
    expected = search("shop", "red lamp", limit=5, offset=5)
    assert [hit["_id"] for hit in found["hits"]["hits"]] == [hit.object_id for hit in expected.hits]
    assert [hit["_score"] for hit in found["hits"]["hits"]] == pytest.approx([hit.score for hit in expected.hits])
    assert found["hits"]["hits"][0]["_source"] == expected.hits[0].payload
    assert found["hits"]["total"] == {"value": 60, "relation": "eq"}
    assert found["ext"]["estudio"]["release"] == expected.release_id
    assert found["ext"]["ubi"]["query_id"]


def test_a_client_of_opensearch_searches_several_times_at_once_and_counts(opensearch: opensearchpy.OpenSearch) -> None:
    bodies = [
        {"index": "shop"}, {"query": {"match": {"title": "lamp"}}, "size": 1},
        {"index": "shop"}, {"query": {"fuzzy": {"title": "lamp"}}},
        {"index": "library"}, {"query": "lamp"},
    ]  # fmt: skip
    first, second, third = opensearch.msearch(body=bodies)["responses"]
    assert len(first["hits"]["hits"]) == 1
    assert "[fuzzy]" in second["error"]["reason"]
    assert second["status"] == 400
    assert third["status"] == 403
    assert opensearch.count(index="shop", body={"query": {"term": {"kind": "lamp"}}})["count"] == 10


def found_ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [hit["_id"] for hit in answer.json()["hits"]["hits"]]


@pytest.mark.parametrize(
    ("query", "matches"),
    [
        ({"term": {"kind": "lamp"}}, lambda p: p["kind"] == "lamp"),
        ({"term": {"kind.keyword": {"value": "lamp"}}}, lambda p: p["kind"] == "lamp"),
        ({"terms": {"brand": ["acme", "nord"]}}, lambda p: p["brand"] in ("acme", "nord")),
        ({"terms": {"brand": []}}, lambda p: False),
        ({"range": {"price": {"gte": 12, "lt": 14.5}}}, lambda p: 12 <= p["price"] < 14.5),
        ({"exists": {"field": "colour"}}, lambda p: False),
        ({"prefix": {"brand": "ac"}}, lambda p: p["brand"] == "acme"),
        ({"wildcard": {"brand": {"value": "*t?"}}}, lambda p: p["brand"] == "zeta"),
        ({"match_phrase": {"title": "lamp number"}}, lambda p: p["kind"] == "lamp"),
        ({"bool": {"filter": {"match": {"title": "lamp chair"}}}}, lambda p: p["kind"] in ("lamp", "chair")),
        (
            {"bool": {"filter": {"match": {"title": {"query": "lamp 12", "operator": "and"}}}}},
            lambda p: p["title"].endswith("lamp number 12"),
        ),
        ({"bool": {"must_not": [{"term": {"kind": "lamp"}}]}}, lambda p: p["kind"] != "lamp"),
        ({"bool": {"must_not": [{"match_all": {}}]}}, lambda p: False),
        (
            {"bool": {"should": [{"term": {"kind": "lamp"}}, {"term": {"kind": "tent"}}], "minimum_should_match": 1}},
            lambda p: p["kind"] in ("lamp", "tent"),
        ),
        (
            {"bool": {"filter": [{"term": {"brand": "acme"}}, {"bool": {"should": [{"term": {"kind": "lamp"}}]}}]}},
            lambda p: p["brand"] == "acme" and p["kind"] == "lamp",
        ),
        ({"match_all": {}}, lambda p: True),
    ],
)
def test_conditions_hold_as_opensearch_means_them(
    client: httpx.Client, query: dict[str, Any], matches: Callable[[dict[str, Any]], bool]
) -> None:
    everything = client.post("/shop/_search", json={"size": 100}).json()["hits"]["hits"]
    assert len(everything) == 60
    expected = {hit["_id"] for hit in everything if matches(hit["_source"])}
    found = client.post("/shop/_search", json={"query": query, "size": 100})
    assert set(found_ids(found)) == expected
    assert found.json()["hits"]["total"] == {"value": len(expected), "relation": "eq"}
    asked = {"bool": {"must": [{"match": {"title": "old lamp"}}], "filter": [query]}}
    assert set(found_ids(client.post("/shop/_search", json={"query": asked, "size": 100}))) == expected
    assert client.post("/shop/_count", json={"query": query}).json()["count"] == len(expected)


@pytest.mark.parametrize("query", ["old lamp", None, {"term": {"kind": "lamp"}}], ids=str)
def test_facets_are_counts_of_what_matches(client: httpx.Client, query: Any) -> None:
    aggs = {
        "brands": {"terms": {"field": "brand", "size": 2}},
        "tags": {"terms": {"field": "tags", "order": {"_key": "asc"}}},
        "prices": {"range": {"field": "price", "ranges": [{"to": 12}, {"from": 12, "to": 20, "key": "mid"}]}},
        "price": {"stats": {"field": "price"}},
        "cheapest": {"min": {"field": "price"}},
    }
    body = {"query": query, "size": 100, "aggs": aggs, "post_filter": {"term": {"brand": "acme"}}}
    answer = client.post("/shop/_search", json={name: value for name, value in body.items() if value is not None})
    assert {hit["_source"]["brand"] for hit in answer.json()["hits"]["hits"]} == {"acme"}
    unfiltered = client.post("/shop/_search", json={**({"query": query} if query else {}), "size": 100}).json()
    shown = [hit["_source"] for hit in unfiltered["hits"]["hits"]]
    counts = answer.json()["aggregations"]
    expected = {brand: sum(p["brand"] == brand for p in shown) for brand in ("acme", "zeta", "nord")}
    best = sorted(expected.items(), key=lambda pair: (-pair[1], pair[0]))
    best = [pair for pair in best if pair[1]]
    assert counts["brands"]["buckets"] == [{"key": brand, "doc_count": n} for brand, n in best[:2]]
    assert counts["brands"]["sum_other_doc_count"] == sum(n for _, n in best[2:])
    tags = sorted({tag for p in shown for tag in p["tags"]})
    assert [bucket["key"] for bucket in counts["tags"]["buckets"]] == tags
    assert counts["tags"]["buckets"][0] == {"key": "all", "doc_count": len(shown)}
    cheap = sum(p["price"] < 12 for p in shown)
    assert counts["prices"]["buckets"][0] == {"key": "*-12.0", "to": 12, "doc_count": cheap}
    assert counts["prices"]["buckets"][1]["doc_count"] == sum(12 <= p["price"] < 20 for p in shown)
    prices = [p["price"] for p in shown]
    assert counts["price"]["count"] == len(prices)
    assert counts["price"]["avg"] == pytest.approx(sum(prices) / len(prices))
    assert counts["cheapest"]["value"] == min(prices)


@pytest.mark.parametrize("query", [None, "lamp"])
def test_a_total_is_what_there_is_on_every_page(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, query: str | None
) -> None:
    def total(**body: Any) -> tuple[int, str]:
        asked = {**body, **({"query": query} if query else {})}
        found = client.post("/shop/_search", json=asked).json()["hits"]["total"]
        return found["value"], found["relation"]

    lamps = {"term": {"kind": "lamp"}}
    for start in (0, 8, 10, 50):
        assert total(filter=lamps, size=5, **{"from": start}) == (10, "eq")
    for matches, expected in ((1_000, (60, "eq")), (60, (60, "eq")), (59, (59, "gte"))):
        monkeypatch.setattr("estudio_core.service.finding.MATCHES", matches)
        listed = expected if query else (60, "eq")
        assert total(size=1) == total(size=1, track_total_hits=True) == listed
        assert total(size=1, track_total_hits=60) == listed
        assert total(size=1, track_total_hits=59) == (59, "gte")
        assert total(size=0, aggs={"a": {"terms": {"field": "brand"}}}) == listed
        assert total(size=2, sort="price", **{"from": 70}) == listed
    monkeypatch.setattr("estudio_core.service.finding.MATCHES", 10)
    assert total(filter=lamps, size=0, sort="price") == (10, "eq")


def test_hits_are_ordered_by_a_field_and_show_what_was_asked_for(client: httpx.Client) -> None:
    for query in (None, "lamp"):
        body = {"size": 7, "from": 3, "sort": [{"price": {"order": "desc"}}], "_source": {"includes": ["pri*"]}}
        answer = client.post("/shop/_search", json={**body, **({"query": query} if query else {})}).json()
        prices = [hit["_source"] for hit in answer["hits"]["hits"]]
        assert prices == [{"price": 10 + number / 4} for number in range(56, 49, -1)]
    bare = client.post("/shop/_search", json={"query": "lamp", "_source": False, "track_total_hits": False}).json()
    assert "_source" not in bare["hits"]["hits"][0]
    assert "total" not in bare["hits"]


def test_the_score_is_told_as_its_sum(client: httpx.Client) -> None:
    hit = client.post("/shop/_search", json={"query": "lamp number 12", "explain": True}).json()["hits"]["hits"][0]
    parts = hit["_explanation"]["details"]
    assert hit["_score"] == pytest.approx(sum(part["value"] for part in parts))
    reasons = hit["ext"]["estudio"]
    assert hit["_score"] == pytest.approx(reasons["similarity"] + reasons["words"] * reasons["words_weight"])


def test_by_words_alone_only_what_holds_one_is_found_and_counted(client: httpx.Client) -> None:
    body = {"query": "kettle", "size": 3, "ext": {"estudio": {"mode": "words"}}}
    answer = client.post("/shop/_search", json=body).json()
    assert answer["hits"]["total"] == {"value": 10, "relation": "eq"}
    assert all(hit["_source"]["kind"] == "kettle" for hit in answer["hits"]["hits"])


def test_a_search_from_a_shell(client: httpx.Client) -> None:
    answer = client.get(
        "/shop/_search",
        params={"q": "lamp", "size": 2, "filter": '{"term": {"brand": "zeta"}}', "_source_includes": "title,brand"},
    )
    assert [set(hit["_source"]) for hit in answer.json()["hits"]["hits"]] == [{"title", "brand"}] * 2
    assert {hit["_source"]["brand"] for hit in answer.json()["hits"]["hits"]} == {"zeta"}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"query": {"query_string": {"query": "lamp"}}}, "[query_string]"),
        ({"query": {"match": {"title": {"query": "lamp", "fuzziness": "AUTO"}}}}, "[fuzziness]"),
        ({"query": {"match": {"title": {"query": "lamp", "operator": "and"}}}}, "[and]"),
        ({"query": {"multi_match": {"query": "lamp", "fields": ["title^3"]}}}, "(^)"),
        ({"query": {"multi_match": {"query": "lamp", "type": "phrase"}}}, "[phrase]"),
        ({"query": {"bool": {"must": [{"match": {"a": "x"}}, {"match": {"b": "y"}}]}}}, "several texts"),
        ({"query": {"bool": {"must": {"term": {"a": 1}}, "should": [{"term": {"b": 1}}]}}}, "minimum_should_match"),
        ({"query": {"bool": {"filter": {"knn": {"v": {"vector": [1]}}}}}}, "[knn]"),
        ({"query": {"range": {"at": {"gte": "now-1d"}}}}, "now-1d"),
        ({"query": {"range": {"at": {"gte": 1, "time_zone": "+01:00"}}}}, "[time_zone]"),
        ({"query": {"term": {"a": {"value": 1, "boost": 2}}}}, "[boost]"),
        ({"query": {"terms": {"a": {"index": "b", "id": 1, "path": "c"}}}}, "[terms]"),
        ({"query": "x" * 10_001}, "10,000 characters"),
        ({"query": "lamp", "highlight": {"fields": {}}}, "[highlight]"),
        ({"query": "lamp", "search_after": [1]}, "[search_after]"),
        ({"query": "lamp", "suggest": {}}, "[suggest]"),
        ({"query": "lamp", "size": 1001}, "[size]"),
        ({"query": "lamp", "from": 9999, "size": 2}, "10,000"),
        ({"query": "lamp", "sort": ["price", "kind"]}, "[sort]"),
        ({"query": "lamp", "sort": [{"price": {"order": "asc", "missing": "_first"}}]}, "[missing]"),
        ({"query": "lamp", "aggs": {"a": {"histogram": {"field": "price", "interval": 5}}}}, "[histogram]"),
        ({"query": "lamp", "aggs": {"a": {"terms": {"field": "brand"}, "aggs": {}}}}, "[a]"),
        ({"query": "lamp", "aggs": {"a": {"terms": {"field": "brand", "missing": "-"}}}}, "[missing]"),
        ({"query": "lamp", "_source": {"only": "a"}}, "[only]"),
        ({"query": "lamp", "filter": {"trem": {"a": 1}}}, "trem"),
        ({"query": "lamp", "ext": {"ubi": {"queryid": "1"}}}, "[ext.ubi.queryid]"),
        ({"query": "lamp", "ext": {"ltr": {}}}, "[ext.ltr]"),
        ({"query": "lamp", "ext": {"estudio": {"mode": "magic"}}}, "[ext.estudio.mode]"),
    ],
)
def test_what_is_not_supported_is_refused_by_its_name(client: httpx.Client, body: Any, named: str) -> None:
    answer = client.post("/shop/_search", json=body)
    assert answer.status_code == 400, answer.text
    assert named in answer.json()["error"]["reason"]
    assert answer.json()["status"] == 400


def test_unknown_parameters_paths_methods_and_plugins_are_refused(client: httpx.Client, service: Service) -> None:
    assert "[routing]" in client.get("/shop/_search", params={"routing": "a"}).json()["error"]["reason"]
    assert client.get("/no/where").status_code == 404
    assert client.put("/shop/_search").status_code == 405
    with service.client("search", plugins=("*",)) as everywhere:
        answer = everywhere.post("/nothing/_search", json={"query": "lamp"})
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "index_not_found_exception"


def test_searches_that_were_served_are_sessions_of_training(service: Service, make_client: Any) -> None:
    logger = make_client("search", "events")
    ubi = {"query_id": "q-served", "client_id": "c1", "session_id": "s1", "query_attributes": {"page": "home"}}
    body = {"query": "red lamp", "size": 4, "ext": {"ubi": ubi}}
    first = logger.post("/shop/_search", json=body)
    assert first.json()["ext"]["ubi"] == {"query_id": "q-served"}
    logger.post("/shop/_search", json=body | {"from": 4})
    silent = {"query": "blue lamp", "ext": {"ubi": {"query_id": "q-silent"}, "estudio": {"log": False}}}
    logger.post("/shop/_search", json=silent)
    make_client("search").post("/shop/_search", json=body | {"ext": {"ubi": {"query_id": "q-no-scope"}}})
    sessions = service.sessions()
    assert {"q-silent", "q-no-scope"}.isdisjoint(sessions)
    found = sessions["q-served"]
    assert [result.object_id for result in found.search_results] == [
        hit.object_id for hit in search("shop", "red lamp", limit=8).hits
    ]
    assert found.search_results[0].rank == pytest.approx(first.json()["hits"]["max_score"])
    assert found.release == str(first.json()["ext"]["estudio"]["release"])
    assert (found.client_id, found.query) == ("c1", "red lamp")
    assert (found.search_meta or {})["page"] == "home"


def test_a_search_is_answered_though_it_cannot_be_kept(
    make_client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(*args: Any, **options: Any) -> Any:
        raise RuntimeError("the collector is broken")

    monkeypatch.setattr("estudio_core.service.collector.Collector.store", failing)
    assert found_ids(make_client("search", "events").post("/shop/_search", json={"query": "lamp"}))
    [told] = [each for each in caplog.records if "not in the clickstream" in each.message]
    assert told.exc_info is not None


@pytest.mark.parametrize("given", ["²", "9" * 5000, "-1", "1.5", "maybe"])
def test_a_number_in_the_address_that_is_none_is_refused(client: httpx.Client, given: str) -> None:
    for name in ("size", "from", "track_total_hits"):
        answer = client.get("/shop/_search", params={name: given})
        assert (answer.status_code, answer.json()["error"]["reason"][: len(name) + 2]) == (400, f"[{name}]")
