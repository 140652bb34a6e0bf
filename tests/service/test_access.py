"""Who may ask for what: keys, scopes, plugins, origins, rates, enforced filters; and what every answer has."""

from __future__ import annotations

import gzip
import json
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from estudio_core import database
from estudio_core.cli import app
from estudio_core.errors import ConfigurationError
from estudio_core.service import keys
from estudio_core.service.keys import create_key, list_keys, revoke_key, signed_key
from estudio_core.service.rates import Rates
from tests.service.conftest import Service

SEARCH = {"query": "lamp", "size": 100}


def search_with(service: Service, key: str, plugin: str = "shop", **headers: str) -> httpx.Response:
    return httpx.post(
        f"{service.address}/{plugin}/_search", json=SEARCH, headers={"Authorization": f"Bearer {key}", **headers}
    )


@pytest.fixture(autouse=True)
def _keys_are_read_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "KNOWN_S", 0.0)


def test_without_a_key_only_what_is_public_is_read_and_nothing_is_written(service: Service) -> None:
    with service.client() as stranger:
        assert stranger.post("/library/_search", json=SEARCH).status_code == 200
        assert stranger.post("/library/_count", json={}).status_code == 200
        refused = stranger.post("/shop/_search", json=SEARCH)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert stranger.post("/nothing/_search", json=SEARCH).status_code == 401  # no telling what exists
        lines = '{"index": "shop"}\n{"query": "lamp"}\n{"index": "library"}\n{"query": "lamp"}\n'
        shop, library = stranger.post("/_msearch", content=lines).json()["responses"]
        assert (shop["status"], library["status"]) == (401, 200)
    before = service.sql("SELECT count(*) FROM estudio.ubi_queries WHERE application = 'library'")
    assert before == [(0,)]


@pytest.mark.parametrize("key", ["nonsense", "est_aaaaaaaaaaaa_" + "A" * 43, "est_x" * 3000, "ests_a.b.c"])
def test_keys_that_are_none_are_refused_even_where_nobody_needs_one(service: Service, key: str) -> None:
    assert search_with(service, key, "library").status_code == 401


def test_a_key_does_what_its_scopes_say_for_its_plugins(service: Service) -> None:
    searching, logging_, admin = service.key("search"), service.key("events"), service.key("admin", plugins=("*",))
    assert search_with(service, searching).status_code == 200
    assert "[events]" not in search_with(service, logging_).text
    assert search_with(service, logging_).status_code == 403
    assert search_with(service, searching, "library").status_code == 403
    assert search_with(service, admin).status_code == search_with(service, admin, "library").status_code == 200


def test_only_a_digest_is_kept_and_a_revoked_or_expired_key_is_refused(service: Service) -> None:
    with database.connect() as connection:
        key, text = create_key(connection, "web", ["search"], ["shop"])
        short, short_text = create_key(
            connection, "short", ["search"], ["shop"], expires_at=datetime.now(UTC) + timedelta(seconds=60)
        )
    secret = text.rpartition("_")[2] if text.count("_") == 2 else text.split("_", 2)[2]
    stored = service.sql("SELECT row_to_json(k)::text FROM estudio.service_keys k")
    assert all(secret not in row[0] and secret.encode().hex() not in row[0] for row in stored)
    signed = signed_key(text, user_id="ann")
    assert search_with(service, text).status_code == search_with(service, signed).status_code == 200
    assert search_with(service, text[:-1] + ("A" if text[-1] != "A" else "B")).status_code == 401
    with database.connect() as connection:
        revoke_key(connection, key.key_id)
        connection.execute(
            "UPDATE estudio.service_keys SET expires_at = now() - interval '1 s' WHERE key_id = %s", [short.key_id]
        )
    for each in (text, signed, short_text):
        assert search_with(service, each).status_code == 401
    with database.connect() as connection:
        assert {found.key_id for found in list_keys(connection) if found.revoked_at} >= {key.key_id}


def shown(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return [hit["_source"] for hit in answer.json()["hits"]["hits"]]


def test_no_search_passes_the_filter_of_its_key(service: Service) -> None:
    text = service.key("search", "events", filter={"term": {"brand": "acme"}})
    narrow = signed_key(text, filter={"term": {"kind": "lamp"}})
    escapes: list[dict[str, Any]] = [
        {},
        {"query": "lamp"},
        {"query": {"bool": {"must_not": [{"term": {"brand": "acme"}}]}}},
        {"query": {"bool": {"should": [{"match_all": {}}], "minimum_should_match": 1}}},
        {"query": "lamp", "filter": {"bool": {"should": [{"bool": {}}, {"term": {"brand": "zeta"}}]}}},
        {"query": "lamp", "post_filter": {"match_all": {}}},
        {"query": "lamp", "sort": "price"},
        {"query": "lamp", "ext": {"estudio": {"mode": "words", "exact": True}}},
    ]
    aggs = {"brands": {"terms": {"field": "brand"}}}
    with httpx.Client(base_url=service.address) as client:
        for escape in escapes:
            for key, legal in ((text, {"acme"}), (narrow, {"acme"})):
                body = {**escape, "size": 100, "aggs": aggs}
                answer = client.post("/shop/_search", json=body, headers={"Authorization": f"Bearer {key}"})
                assert {item["brand"] for item in shown(answer)} <= legal
                if key == narrow:
                    assert {item["kind"] for item in shown(answer)} <= {"lamp"}
                counted = answer.json()["aggregations"]["brands"]["buckets"]
                assert {bucket["key"] for bucket in counted} <= legal
                assert answer.json()["hits"]["total"]["value"] <= (20 if key == text else 10)
        found = client.post("/shop/_count", json={}, headers={"Authorization": f"Bearer {text}"})
        assert found.json()["count"] == 20


def test_fields_are_those_of_items_that_the_key_may_see(service: Service) -> None:
    fields = {"title", "blurb", "kind", "brand", "price", "tags"}
    writer = service.client("items")
    hidden = {"data": {"title": "lamp", "blurb": ""}, "payload": {"brand": "zeta", "margin": 0.4, "price": 7}}
    assert writer.put("/shop/_doc/hidden", json=hidden).status_code == 201
    text = service.key("search", filter={"term": {"brand": "acme"}})
    whole = service.key("search")
    for key, expected, counted in ((text, fields, 20), (whole, fields | {"margin"}, 61)):
        with httpx.Client(base_url=service.address, headers={"Authorization": f"Bearer {key}"}) as client:
            told = {each["name"]: each for each in client.get("/shop/_fields").json()["fields"]}
            assert set(told) == expected
            assert told["price"]["distinct"] == counted
            assert told["brand"]["distinct"] == (1 if key == text else 3)
            for path in ("/shop/_mapping", "/shop"):
                assert set(client.get(path).json()["shop"]["mappings"]["properties"]) == expected
            offered = client.post("/1/indexes/shop/query", json={"facets": ["*"], "hitsPerPage": 0}).json()
            assert sum(offered["facets"]["brand"].values()) == counted
            assert ("margin" in offered["facets"]) == (key == whole)
            assert offered["facets_stats"]["price"]["min"] == (10 if key == text else 7)
    assert writer.delete("/shop/_doc/hidden").status_code == 200
    writer.close()


def test_a_signed_key_only_narrows_and_cannot_be_changed_or_signed_again(service: Service) -> None:
    text = service.key("search", "events", "items", "admin", plugins=("shop",))
    signed = signed_key(text, plugins=["shop", "library"], scopes=["search", "admin"])
    assert search_with(service, signed, "library").status_code == 403
    past = signed_key(text, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert search_with(service, past).status_code == 401
    head, content, signature = signed.split(".")
    other = signed_key(service.key("search"), user_id="eve").split(".")
    assert search_with(service, f"{head}.{other[1]}.{signature}").status_code == 401
    assert search_with(service, f"{head}.{content}.{other[2]}").status_code == 401
    with pytest.raises(ConfigurationError, match="cannot"):
        signed_key(signed, user_id="ann")
    for key in (signed, signed_key(text)):
        # Neither admin nor items comes through a signature.
        answer = httpx.post(
            f"{service.address}/shop/_search",
            json={"query": "lamp", "ext": {"estudio": {"user_id": "eve"}}},
            headers={"Authorization": f"Bearer {key}"},
        )
        assert answer.status_code == 403


def test_personal_rows_are_searched_by_whom_the_owner_of_the_key_named(service: Service) -> None:
    body = {"query": "lamp", "ext": {"estudio": {"user_id": "ann"}}}

    def status(key: str) -> int:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.post(f"{service.address}/shop/_search", json=body, headers=headers).status_code

    plain = service.key("search")
    assert status(plain) == 403
    assert status(signed_key(plain, user_id="ann")) == 200
    assert status(signed_key(plain, user_id="bob")) == 403
    assert status(service.key("search", "items")) == 200


def test_a_page_may_use_a_key_of_its_origin_only(service: Service) -> None:
    page, key = "https://shop.example", service.key("search", "events", origins=["https://Shop.example/"])
    allowed = search_with(service, key, Origin=page)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == page
    other = search_with(service, key, Origin="https://evil.example")
    assert other.status_code == 403
    assert "access-control-allow-origin" not in other.headers
    server = service.key("search")
    assert search_with(service, server, Origin=page).status_code == 403
    assert search_with(service, server, Origin=service.address).status_code == 200  # the service's own page
    preflight = httpx.options(
        f"{service.address}/shop/_search",
        headers={"Origin": page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x"},
    )
    assert preflight.status_code == 204
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in preflight.headers
    mistake = httpx.post(
        f"{service.address}/shop/_search", json={"a": 1}, headers={"Authorization": f"Bearer {key}", "Origin": page}
    )
    assert mistake.headers["access-control-allow-origin"] == page  # the page's author reads what is wrong


def test_a_key_with_a_filter_writes_nothing(service: Service) -> None:
    with pytest.raises(ConfigurationError, match="items"):
        service.key("search", "items", filter={"term": {"brand": "acme"}})
    with pytest.raises(ConfigurationError, match="trem"):
        service.key("search", filter={"trem": {"brand": "acme"}})


def test_a_page_cannot_be_given_more_than_search_and_events(service: Service) -> None:
    for scope in ("items", "admin"):
        with pytest.raises(ConfigurationError, match=scope):
            service.key("search", scope, origins=["https://shop.example"])


def test_more_requests_than_a_key_may_make_are_refused_until_later(service: Service) -> None:
    key = service.key("search", rate=3)
    statuses = [search_with(service, key).status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    assert 1 <= int(search_with(service, key).headers["retry-after"]) <= 20
    assert search_with(service, service.key("search")).status_code == 200


def test_keys_are_made_listed_signed_and_revoked_on_the_command_line(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*args: str, **options: Any) -> Any:
        return CliRunner().invoke(app, ["keys", *args], catch_exceptions=False, **options)

    made = run("create", "shop's page", "-s", "search", "-s", "events", "-p", "shop", "--origin", "https://Shop.example",
               "--rate", "60", "--filter", '{"term": {"brand": "acme"}}', "--days", "1", "--json")  # fmt: skip
    assert made.exit_code == 0, made.output
    [row] = json.loads(made.stdout)
    assert (row["scopes"], row["origins"], row["rate"]) == (["search", "events"], ["https://shop.example"], 60)
    assert {item["brand"] for item in shown(search_with(service, row["text"]))} == {"acme"}
    plain = run("create", "backend", "--scope", "items", "--plugin", "*")
    assert plain.stdout.strip().startswith("est_")
    listed = run("list", "--json")
    assert {each["name"]: each["state"] for each in json.loads(listed.stdout)}["shop's page"] == "current"
    assert row["text"].split("_", 2)[2] not in listed.stdout + run("list").stdout
    signed = run("sign", "--filter", '{"term": {"kind": "lamp"}}', "--minutes", "5", input=row["text"] + "\n")
    assert {item["kind"] for item in shown(search_with(service, signed.stdout.strip()))} == {"lamp"}
    assert run("revoke", row["key"]).exit_code == 0
    for text in (row["text"], signed.stdout.strip()):
        assert search_with(service, text).status_code == 401
    for wrong, named in (
        (["create", "x", "-s", "serch", "-p", "shop"], "'search'"),
        (["create", "x", "-s", "items", "-p", "shop", "--origin", "https://a.example"], "items"),
        (["create", "x", "-s", "search", "-p", "a b"], "a b"),
        (["create", "x", "-s", "search", "-p", "shop", "--origin", "shop.example/page"], "https://"),
        (["create", "x", "-s", "search", "-p", "shop", "--filter", "{"], "--filter"),
        (["revoke", "nothing"], "estudio keys list"),
    ):
        refused = run(*wrong)
        assert refused.exit_code == 1
        assert named in " ".join(refused.stderr.split())


def test_a_rate_holds_for_all_processes_together(tmp_path: Any) -> None:
    first, second = Rates(tmp_path / "rates"), Rates(tmp_path / "rates")
    taken = [rates.take("key a", 4) for rates in (first, second, first, second, first, second)]
    assert [wait == 0 for wait in taken] == [True] * 4 + [False] * 2
    assert taken[-1] == pytest.approx(15, abs=1)
    assert first.take("key b", 1) == 0


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b'{"query": "\xff"}', {}, 400),
        (b'{"query": NaN}', {}, 400),
        (b"[" * 100_000, {}, 400),
        (b'{"size": ' + b"9" * 5000 + b"}", {}, 400),
        (b'{"query": "' + b"x" * 300_000 + b'"}', {}, 413),
        (gzip.compress(b" " * 10_000_000), {"Content-Encoding": "gzip"}, 413),
        (gzip.compress(b"{}")[:-4], {"Content-Encoding": "gzip"}, 400),
        (b"{}", {"Content-Encoding": "br"}, 400),
        (b'{"query": "lamp\\u0000"}', {}, 400),
        (b'{"query": "lamp\\ud800"}', {}, 400),
        (b'{"filter": {"term": {"a": "\\u0000"}}}', {}, 400),
        (b'{"aggs": {"a": {"terms": {"field": "a\\u0000b"}}}}', {}, 400),
        (b'{"sort": "a\\ud800"}', {}, 400),
    ],
    ids=range(14),
)
def test_bodies_that_are_none_are_mistakes_of_the_client(
    client: httpx.Client, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = client.post("/shop/_search", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]["reason"]


def test_answers_say_how_browsers_may_use_them_and_tell_nothing_of_the_installation(
    service: Service, client: httpx.Client
) -> None:
    for answer in (client.post("/shop/_search", json=SEARCH), client.get("/<script>"), client.get("/healthz")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers or "uvicorn" in answer.headers["server"]
        assert len(answer.headers["x-request-id"]) >= 16
        assert "<script>" not in answer.text


def test_the_service_says_how_it_is(service: Service, client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    ready = client.get("/readyz").json()
    assert ready["status"] == "ready"
    assert {name: state["status"] for name, state in ready["plugins"].items()} == {"shop": "ready", "library": "ready"}
    client.post("/shop/_search", json=SEARCH)
    counts = client.get("/metrics").text
    assert 'estudio_http_requests_total{endpoint="/{plugin}/_search",method="POST",status="200"}' in counts
    assert 'estudio_searches_total{found="yes",plugin="shop"}' in counts
    document = client.get("/openapi.json").json()
    assert "/{plugin}/_search" in document["paths"]


def test_the_log_of_requests_has_no_query_and_no_key(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    key = service.key("search")
    with caplog.at_level(logging.INFO, "estudio.access"):
        search_with(service, key, **{"X-Request-Id": "abc-1", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
        until = time.monotonic() + 10  # the line is written behind the answer
        while not (lines := [each.message for each in caplog.records if "abc-1" in each.message]):
            assert time.monotonic() < until
    [line] = map(json.loads, lines)
    assert line["endpoint"] == "/{plugin}/_search"
    assert (line["plugin"], line["status"], line["key"]) == ("shop", 200, key.split("_")[1])
    assert line["trace_id"] == "a" * 32
    assert "lamp" not in json.dumps(line)
    assert key.split("_", 2)[2] not in json.dumps(line)


@pytest.mark.parametrize("form", ["opensearch", "algolia", "ubi"])
def test_the_log_names_the_plugins_of_a_request_whose_address_names_none(
    service: Service, caplog: pytest.LogCaptureFixture, form: str
) -> None:
    both = "shop", "library"
    name = f"log-{form}"
    with caplog.at_level(logging.INFO, "estudio.access"), service.client("search", "events", plugins=("*",)) as client:
        client.headers["X-Request-Id"] = name
        if form == "opensearch":
            answer = client.post("/_msearch", content="".join(f'{{"index": "{p}"}}\n{{}}\n' for p in both * 2))
        elif form == "algolia":
            answer = client.post("/1/indexes/*/queries", json={"requests": [{"indexName": p} for p in both]})
        else:
            rows = [{"action_name": "click", "query_id": "l", "timestamp": "2026-11-01T10:00:00Z", "application": p}
                    for p in both]  # fmt: skip
            answer = client.post("/ubi_events", json=rows)
        assert answer.status_code == 200, answer.text
        until = time.monotonic() + 10
        while not (lines := [each.message for each in caplog.records if name in each.message]):
            assert time.monotonic() < until
    assert sorted(json.loads(lines[0])["plugin"]) == ["library", "shop"]
