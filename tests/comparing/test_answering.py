"""What a search waits for while an experiment is under way."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest

from estudio_core.comparing.answering import PartAnswer, answer
from estudio_core.comparing.ledger import Experiment
from estudio_core.comparing.settings import ExperimentSettings, Form
from estudio_core.errors import InferenceUnavailableError
from estudio_core.searching import Hit, SearchAnswer

CHAMPION, CHALLENGER = 1, 2


def experiment(form: Form = "interleaving") -> Experiment:
    return Experiment(
        experiment_id="one", plugin="shop", form=form, champion=CHAMPION, challenger=CHALLENGER,
        settings=ExperimentSettings(), state="running", verdict=None, reason="", standing=None, started_by="test",
        ended_by=None, started_at=datetime.now(UTC), looked_at=None, decided_at=None, ended_at=None,
    )  # fmt: skip


def found(release: int, ids: str) -> SearchAnswer:
    return SearchAnswer("shop", release, str(release), [Hit(each, 0.5, {}, 0.5) for each in ids])


def ask(challenger_s: float | Exception) -> tuple[SearchAnswer, list[str], float, bool]:
    """Search once, with a challenger that takes so long, or fails; return answer, what was told, seconds, ended."""
    told: list[str] = []
    ended: list[bool] = []

    async def search(release: int | None, limit: int, offset: int) -> SearchAnswer:
        if release is None:
            return found(CHAMPION, "abc")
        if isinstance(challenger_s, Exception):
            raise challenger_s
        try:
            await asyncio.sleep(challenger_s)
        finally:
            ended.append(True)
        return found(CHALLENGER, "cba")

    async def asked() -> SearchAnswer:
        found = await answer(experiment(), search, drafted_by="q", client="c", limit=3, offset=0, left_out=told.append)
        await asyncio.sleep(0)  # what was called off ends in its own step
        return found

    began = time.monotonic()
    return asyncio.run(asked()), told, time.monotonic() - began, bool(ended)


def test_a_challenger_in_time_has_a_part() -> None:
    answered, told, _, _ = ask(0.01)
    assert isinstance(answered, PartAnswer)
    assert told == []


def test_a_slow_challenger_costs_the_champion_no_answer_and_little_time_and_is_counted() -> None:
    answered, told, seconds, ended = ask(60)
    assert not isinstance(answered, PartAnswer)
    assert [hit.object_id for hit in answered.hits] == ["a", "b", "c"]
    assert (told, ended) == (["late"], True)
    assert seconds < 1.5


@pytest.mark.parametrize("error", [InferenceUnavailableError("away"), RuntimeError("a fault")])
def test_a_challenger_that_fails_is_left_out_and_counted(error: Exception) -> None:
    answered, told, _, _ = ask(error)
    assert not isinstance(answered, PartAnswer)
    assert told == ["failed"]
