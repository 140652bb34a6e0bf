"""The triggers that watch aliases and sessions: one event for each cause, patient with servers that are away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.triggers.base import TriggerEvent

from estudio_core.dag_factory import alias_trigger, fine_tune, sessions_trigger
from estudio_core.dag_factory.alias_trigger import AliasTrigger
from estudio_core.dag_factory.sessions_trigger import SessionsTrigger
from estudio_core.errors import NotEnoughDataError


async def looks(*given: Any) -> AsyncIterator[Any]:
    for waiting in given:
        yield waiting


def events(plugin: str, *given: Any) -> list[Any]:
    async def collect() -> list[TriggerEvent]:
        return [event async for event in AliasTrigger(plugin).filter_shared_stream(looks(*given))]

    return [event.payload for event in asyncio.run(collect())]


def test_each_request_rings_once_and_only_for_its_plugin() -> None:
    seen = ({}, {"shop": (4, "2")}, {"shop": (4, "2"), "books": (5, "9")}, {}, {"shop": (7, "3")})
    assert events("shop", *seen) == [{"promotion": 4, "version": "2"}, {"promotion": 7, "version": "3"}]
    assert events("books", *seen) == [{"promotion": 5, "version": "9"}]


def test_all_plugins_share_one_loop_and_the_trigger_comes_back_from_its_arguments() -> None:
    path, arguments = AliasTrigger("shop").serialize()
    assert path == "estudio_core.dag_factory.alias_trigger.AliasTrigger"
    assert AliasTrigger(**arguments).serialize() == (path, arguments)
    assert AliasTrigger("shop").shared_stream_key() == AliasTrigger("books").shared_stream_key() is not None


def test_a_server_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [ConnectionError("registry"), {"shop": (1, "2")}]

    def look() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(alias_trigger, "look", look)
    monkeypatch.setattr(alias_trigger, "POLL_S", 0.0)

    async def first() -> Any:
        async for event in AliasTrigger("shop").run():
            return event.payload
        return None

    assert asyncio.run(first()) == {"promotion": 1, "version": "2"}


def test_sessions_ring_at_each_multiple_and_anew_after_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([10, 499, 500, 510, 1003, 20, 501])

    async def collect() -> list[Any]:
        seen: list[Any] = []
        async for event in SessionsTrigger("shop", 500).run():
            seen.append(event.payload["sessions"])
            if len(seen) == 3:
                break
        return seen

    monkeypatch.setattr(sessions_trigger, "count", lambda plugin: next(counts))
    monkeypatch.setattr(sessions_trigger, "POLL_S", 0.0)
    assert asyncio.run(collect()) == [500, 1003, 501]
    assert SessionsTrigger(**SessionsTrigger("shop", 500).serialize()[1]).every == 500


@pytest.mark.parametrize(
    ("run_type", "reason"),
    [("asset_triggered", "0 clicked sessions .* since the last training"), ("manual", "0 clicked sessions .*; 50 are")],
)
def test_only_a_run_that_sessions_started_counts_whether_they_are_new(
    run_type: str, reason: str, shop_plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = {"dag_run": SimpleNamespace(run_type=run_type)}
    monkeypatch.setattr(fine_tune, "get_current_context", lambda: context)
    with pytest.raises(NotEnoughDataError, match=reason):
        fine_tune.extract("shop", 500, run_id="rung")


def test_a_request_that_no_run_has_taken_up_rings_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alias_trigger, "RING_AGAIN_S", 0.0)
    seen = ({}, {"shop": (4, "2")}, {"shop": (4, "2")}, {})
    assert events("shop", *seen) == [{"promotion": 4, "version": "2"}] * 2
