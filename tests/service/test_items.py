"""Items over HTTP: found when acknowledged, each mistake told beside its item."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import opensearchpy
import opensearchpy.helpers
import pytest

from estudio_core.searching import search
from estudio_core.service import items
from estudio_core.vectordb.change_log import ItemWrite
from tests.service.conftest import Service


@pytest.fixture
def writer(make_client: Any) -> httpx.Client:
    found: httpx.Client = make_client("items", "search", plugins=("shop", "library"))
    return found


def found(text: str) -> dict[str, Any]:
    return {hit.object_id: hit.payload for hit in search("shop", text, limit=100).hits}


def test_an_item_is_written_read_and_deleted(writer: httpx.Client) -> None:
    row = {"title": "green sofa", "blurb": "for two", "price": 99.125, "tags": ["green"], "kind": "sofa"}
    made = writer.put("/shop/_doc/sofa/1", json=row)
    assert (made.status_code, made.json()["result"], made.json()["_id"]) == (201, "created", "sofa/1")
    assert found("green sofa")["sofa/1"] == row
    assert writer.get("/shop/_doc/sofa/1").json()["_source"] == row
    changed = writer.post("/shop/_doc/sofa/1", json={"data": {"title": "green sofa", "blurb": ""}, "payload": {"a": 1}})
    assert (changed.status_code, changed.json()["result"]) == (200, "updated")
    assert found("green sofa")["sofa/1"] == {"a": 1}
    assert writer.delete("/shop/_doc/sofa/1").json()["result"] == "deleted"
    assert writer.delete("/shop/_doc/sofa/1").status_code == 404
    assert writer.get("/shop/_doc/sofa/1").json() == {"_index": "shop", "_id": "sofa/1", "found": False}
    assert "sofa/1" not in found("green sofa")


def test_numbers_are_kept_as_they_were_written(writer: httpx.Client) -> None:
    text = '{"title": "scale", "price": 0.12345678901234567890}'
    assert writer.put("/shop/_doc/exact", content=text).status_code == 201
    assert '"price": 0.12345678901234567890' in writer.get("/shop/_doc/exact").text
    writer.delete("/shop/_doc/exact")


@pytest.mark.parametrize(
    ("item", "named"),
    [
        ({"title": "a", "colour": "red"}, "[colour]"),
        ({"price": 1}, "title, blurb"),
        ({"title": "", "blurb": " "}, "blank"),
        ([1], "object"),
        ({"data": "x", "payload": 7}, "[payload]"),
        ({"title": "a", "tags": "\x00"}, "storable text"),
    ],
)
def test_an_item_that_cannot_be_used_says_why(writer: httpx.Client, item: Any, named: str) -> None:
    answer = writer.put("/shop/_doc/bad", json=item)
    assert answer.status_code == 400, answer.text
    assert named in answer.json()["error"]["reason"]
    assert "bad" not in found("a")


def test_a_client_of_opensearch_writes_in_bulk(service: Service) -> None:
    address = urlsplit(service.address)
    client = opensearchpy.OpenSearch(
        [{"host": address.hostname, "port": address.port}],
        http_auth=("shop", service.key("items", "search")),
        max_retries=0,
    )
    rows = [{"_index": "shop", "_id": f"b{n}", "title": f"violet bench {n}"} for n in range(5)]
    done, problems = opensearchpy.helpers.bulk(
        client, [*rows, {"_index": "shop", "_id": "b9", "colour": "red"}], raise_on_error=False
    )
    assert done == 5
    assert [each["index"]["_id"] for each in problems] == ["b9"]
    assert {f"b{n}" for n in range(5)} <= set(found("violet bench"))
    assert "b9" not in found("violet bench")
    lines = [
        {"create": {"_id": "b0"}}, {"title": "again"},
        {"update": {"_id": "b0"}}, {"doc": {}},
        {"delete": {"_id": "b1"}},
        {"index": {"_id": "b1"}}, {"title": "violet bench, once more"},
        {"delete": {"_id": "b1"}},
        {"delete": {"_index": "library", "_id": "1"}},
    ]  # fmt: skip
    results = [next(iter(each.values())) for each in client.bulk(index="shop", body=lines)["items"]]
    assert [result["status"] for result in results] == [409, 400, 200, 201, 200, 403]
    assert "b1" not in found("violet bench")
    client.delete(index="shop", id="b2")
    assert not client.exists(index="shop", id="b2")
    client.index(index="shop", id="b2", body={"title": "violet bench"}, refresh=True)
    assert client.get(index="shop", id="b2")["_source"] == {"title": "violet bench"}
    for n in (0, 2, 3, 4):
        client.delete(index="shop", id=f"b{n}")


def test_items_follow_their_table_when_asked(service: Service, writer: httpx.Client) -> None:
    service.sql("UPDATE library SET title = 'a golden harp' WHERE id = '7'")
    service.sql("DELETE FROM library WHERE id = '8'")
    answer = writer.post("/library/_refresh", json={"ids": [7, "8"]})
    assert (answer.json()["embedded"], answer.json()["deleted"]) == (1, 1)
    assert search("library", "golden harp", limit=1).hits[0].object_id == "7"
    assert writer.post("/library/_refresh").status_code == 200
    assert writer.get("/library/_doc/8").status_code == 404


def test_only_a_key_for_items_writes(service: Service, client: httpx.Client) -> None:
    for method, path in (("PUT", "/shop/_doc/1"), ("DELETE", "/shop/_doc/1"), ("POST", "/shop/_bulk")):
        assert client.request(method, path, content=b"{}").status_code == 403
        assert httpx.request(method, service.address + path).status_code == 401
    assert httpx.delete(f"{service.address}/library/_doc/1").status_code == 401
    assert httpx.get(f"{service.address}/library/_doc/1").json()["found"]
    hidden = service.client("search", filter={"term": {"brand": "acme"}})
    assert hidden.get("/shop/_doc/0").json()["found"]
    assert hidden.get("/shop/_doc/1").status_code == 404
    hidden.close()


def test_what_became_of_each_write_is_told_whatever_happens_to_its_neighbours(
    writer: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = items.upsert

    def failing(plugin: str, written: Sequence[ItemWrite]) -> Any:
        if plugin == "library":
            raise RuntimeError("a secret of the installation")
        return real(plugin, written)

    monkeypatch.setattr(items, "upsert", failing)
    lines = (
        '{"index": {"_index": "shop", "_id": "n1"}}\n{"title": "green bench"}\n'
        '{"index": {"_index": "library", "_id": "n2"}}\n{"title": "green bench"}\n'
        '{"index": {"_index": "shop", "_id": "n3"}}\n{"title": "green bench"}\n'
    )
    begun = time.perf_counter()
    answer = writer.post("/_bulk", content=lines)
    elapsed = (time.perf_counter() - begun) * 1000
    assert [each["index"]["status"] for each in answer.json()["items"]] == [201, 500, 201]
    assert "secret" not in answer.text
    assert 0 < answer.json()["took"] <= elapsed
    assert {"n1", "n3"} <= set(found("green bench"))
    for name in ("n1", "n3"):
        assert writer.delete(f"/shop/_doc/{name}").status_code == 200


def test_items_are_read_while_others_are_written(
    service: Service, writer: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on, begun = threading.Event(), threading.Semaphore(0)
    real = items.upsert

    def slow(plugin: str, written: Sequence[ItemWrite]) -> Any:
        begun.release()
        going_on.wait(30)
        return real(plugin, written)

    monkeypatch.setattr(items, "upsert", slow)

    def write(number: int) -> int:
        with service.client("items") as own:
            return own.put(f"/shop/_doc/slow{number}", json={"title": "slow sofa"}).status_code

    with ThreadPoolExecutor(2) as pool:
        writes = [pool.submit(write, number) for number in range(2)]
        try:
            assert all(begun.acquire(timeout=30) for _ in writes)
            assert writer.get("/shop/_doc/7", timeout=10).json()["_source"]["brand"] == "zeta"
        finally:
            going_on.set()
        assert [each.result() for each in writes] == [201, 201]
    for number in range(2):
        assert writer.delete(f"/shop/_doc/slow{number}").status_code == 200
