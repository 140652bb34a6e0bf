"""What a stranger's requests cost: they are counted before anything is done for them, and looked at once for all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from estudio_core.service import access, operating
from estudio_core.service.access import address_of
from estudio_core.service.kept import Kept
from estudio_core.service.keys import Key, KnownKeys
from estudio_core.service.rates import Rates
from estudio_core.settings import get_settings
from tests.service.conftest import Service, running

RATE = 6
LIBRARY = '{"index": "library"}\n{"query": "lamp", "size": 1}\n'


def counting(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> list[int]:
    """Have calls of a function noted in the list that is returned."""
    calls: list[int] = []
    real = getattr(module, name)

    def called() -> Any:
        calls.append(1)
        return real()

    monkeypatch.setattr(module, name, called)
    return calls


@pytest.fixture
def narrow(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The same shop, served to each stranger `RATE` times a minute."""
    monkeypatch.setenv("ESTUDIO_SERVICE_ANONYMOUS_RATE", str(RATE))
    get_settings.cache_clear()
    with running() as address:
        yield Service(address, service.database_url)
    get_settings.cache_clear()


def test_a_stranger_is_counted_before_plugins_are_opened(narrow: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = counting(monkeypatch, access, "_public_plugins")
    with httpx.Client(base_url=narrow.address) as stranger:
        statuses = [stranger.post(f"/nothing{n}/_search", json={}).status_code for n in range(RATE + 2)]
        assert statuses == [401] * RATE + [429] * 2
        assert stranger.post("/library/_search", json={"query": "lamp"}).status_code == 429
    assert looks == [1]


@pytest.mark.parametrize("form", ["opensearch", "algolia"])
def test_several_searches_of_one_request_cost_as_many(narrow: Service, form: str) -> None:
    def status(searches: int, headers: dict[str, str] | None = None) -> int:
        if form == "opensearch":
            return httpx.post(f"{narrow.address}/_msearch", content=LIBRARY * searches, headers=headers).status_code
        queries = {"requests": [{"indexName": "library", "query": "lamp"}] * searches}
        return httpx.post(f"{narrow.address}/1/indexes/*/queries", json=queries, headers=headers).status_code

    assert status(RATE - 1) == 200
    assert status(2) == 429  # one was left, and is counted for the request itself
    assert status(1) == 429
    key = {"Authorization": f"Bearer {narrow.key('search', plugins=('library',), rate=4)}"}
    assert [status(n, key) for n in (5, 3)] == [429, 200]
    free = {"Authorization": f"Bearer {narrow.key('search', plugins=('library',))}"}
    assert [status(10, free), status(10, free)] == [200, 200]


def test_keys_are_guessed_no_faster_than_the_rate_and_good_ones_go_on(narrow: Service) -> None:
    good, other = narrow.key("search"), narrow.key("search")

    def status(key: str) -> int:
        return httpx.post(
            f"{narrow.address}/shop/_search", json={}, headers={"Authorization": f"Bearer {key}"}
        ).status_code

    assert [status(good) for _ in range(RATE + 3)] == [200] * (RATE + 3)
    wrong = good[:-1] + ("A" if good[-1] != "A" else "B")
    guesses = [f"est_{'a' * 11}{letter}_" + "A" * 43 for letter in "abcdefg"]
    assert [status(key) for key in (wrong, *guesses)] == [401] * RATE + [429] * 2
    assert status(good) == 200
    assert status(other) == 429  # nothing tells it from a guess
    assert httpx.post(f"{narrow.address}/library/_search", json={}).status_code == 200  # counted by itself


def test_guesses_never_push_out_a_key_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("estudio_core.service.keys.MOST_KNOWN", 3)
    made = {name * 12: key(name * 12) for name in "abcd"}
    asked: list[str] = []

    def read(key_id: str) -> Key | None:
        asked.append(key_id)
        return made.get(key_id)

    known = KnownKeys(read)
    for name in "abc":
        known.find(text(name * 12))
    for number in range(50):
        assert (
            known.find(
                text(f"guess{number:07d}".replace("0", "z").replace("1", "y").replace("8", "x").replace("9", "w"))
            )
            is None
        )
    known.find(text("a" * 12))  # used lately: the fourth takes the place of another
    known.find(text("d" * 12))
    asked.clear()
    assert not known.is_new(text("a" * 12))
    for name in "acd":
        known.find(text(name * 12))
    assert asked == []
    assert known.is_new(text("b" * 12))


def text(key_id: str) -> str:
    return f"est_{key_id}_" + "A" * 43


def key(key_id: str) -> Key:
    return Key(key_id, "test", ("search",), ("*",), (), None, None, datetime.now(UTC), None, None, b"", b"")


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("a socket", "a socket"),
    ],
)
def test_addresses_are_counted_by_household(host: str, counted: str) -> None:
    assert address_of(Request({"type": "http", "client": (host, 1), "headers": []})) == counted


def test_several_at_once_are_counted_or_none(tmp_path: Path) -> None:
    rates = Rates(tmp_path / "rates")
    assert rates.take("a", 60, 50) == 0
    assert rates.take("a", 60, 20) == pytest.approx(10, abs=0.5)
    assert rates.take("a", 60, 10) == 0
    assert rates.take("a", 60, 61) == float("inf")
    rates.give_back("a", 60)
    assert rates.take("a", 60) == 0
    for _ in range(100):
        rates.give_back("b", 5)
    assert [rates.take("b", 5) == 0 for _ in range(6)] == [True] * 5 + [False]


def test_readiness_is_looked_at_once_however_many_ask(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = counting(monkeypatch, operating, "readiness")

    async def ask() -> list[Any]:
        async with httpx.AsyncClient(base_url=address) as client:
            return await asyncio.gather(*(client.get("/readyz") for _ in range(30)))

    with running() as address:
        answers = asyncio.run(ask()) + asyncio.run(ask())
    assert {answer.status_code for answer in answers} == {200}
    assert looks == [1]


def test_an_answer_is_kept_for_its_time_and_an_error_is_not() -> None:
    async def scenario() -> None:
        kept: Kept[int] = Kept(60, 2)
        looks: list[str] = []

        async def look(name: str, found: int | Exception) -> int:
            looks.append(name)
            await asyncio.sleep(0)
            if isinstance(found, Exception):
                raise found
            return found

        async def get(name: str, found: int | Exception) -> int:
            return await kept.get(name, lambda: look(name, found))

        several = await asyncio.gather(*(get("a", ValueError()) for _ in range(3)), return_exceptions=True)
        assert [type(each) for each in several] == [ValueError] * 3
        gone = asyncio.ensure_future(get("a", 1))
        await asyncio.sleep(0)
        gone.cancel()  # whoever asked first goes: the others are answered all the same
        assert await asyncio.gather(*(get("a", 2) for _ in range(3))) == [1, 1, 1]
        assert looks == ["a", "a"]
        assert [await get(name, 3) for name in ("b", "a", "c", "a")] == [3, 1, 3, 1]
        assert await get("b", 4) == 4
        past: Kept[int] = Kept(0)
        assert [await past.get("a", lambda: look("a", 5)), await past.get("a", lambda: look("a", 6))] == [5, 6]

    asyncio.run(scenario())
