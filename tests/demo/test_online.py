"""Simulated people decide between two releases that both answer: over HTTP, with real models."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from estudio_core import database
from estudio_core.comparing.ledger import under_way
from estudio_core.demo.online import end_what_is_left, let_people_decide, told, worth_proving
from estudio_core.demo.people import SimulatedPeople
from estudio_core.demo.traffic import key_of
from estudio_core.pipeline.challenging.starting import start
from estudio_core.searching import search
from estudio_core.service import metrics
from estudio_core.vectordb.releases import list_releases, live_release
from tests.comparing.conftest import estudio_home, shop, small_model_folder, snapshot, two
from tests.demo.test_truth import decision
from tests.service.conftest import running

if TYPE_CHECKING:
    from tests.comparing.conftest import Two

__all__ = ["estudio_home", "shop", "small_model_folder", "snapshot", "two"]

LEFT_OUT = "estudio_experiment_searches_left_out_total"
SETTLE = 0.5
"""Seconds."""
QUERIES = ("lamp for a desk", "old chair", "red kettle", "small radio", "camera", "a tent for two")


def liked(release: int) -> dict[str, dict[str, float]]:
    """Return ratings of people who like what a release has in its first places, and nothing else."""
    return {
        query: {hit.object_id: 3.0 for hit in search("shop", query, limit=4, release=release, exact=True).hits}
        for query in QUERIES
    }


def answered_alone() -> int:
    """Return how many searches the champion has answered alone in this process, as `/metrics` tells it."""
    lines = metrics.exposition()[0].decode().splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith(f"{LEFT_OUT}{{"))


def decided(two: Two, grades_of: Callable[[], dict[str, dict[str, float]]], at_most: int) -> tuple[str | None, str]:
    """Run an experiment with people of these ratings; return its verdict and what was shown."""
    console = Console(file=io.StringIO(), width=160)
    start("shop", two.challenger, {"settle_minutes": SETTLE / 60}, "demo", "a test")
    grades = grades_of()
    alone = answered_alone()
    with running() as address, key_of("people", "shop") as key:
        people = SimulatedPeople(address, key, "shop", grades)
        experiment, made = let_people_decide(
            console, "shop", "demo", people, grades, at_once=120, at_most=at_most, settle_s=SETTLE
        )
    assert experiment.state == "ended"
    assert experiment.standing is not None
    assert made.searches % 120 == 0
    # On a busy machine a challenger is late now and then: such a search has no part, and is counted as one without.
    assert experiment.standing.searches + answered_alone() - alone == made.searches
    assert experiment.standing.searches >= 0.8 * made.searches
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert told(experiment) in shown
    return experiment.verdict, shown


def test_people_who_like_the_challenger_make_it_live(two: Two) -> None:
    verdict, shown = decided(two, lambda: liked(two.challenger), at_most=1_200)
    assert verdict == "better"
    assert "Simulated people search; both releases answer" in shown
    with database.connect() as connection:
        live = live_release(connection, "shop")
    assert live is not None
    assert live.release_id == two.challenger


def test_an_experiment_that_does_not_decide_is_stopped_and_the_champion_stays(two: Two) -> None:
    verdict, _ = decided(two, lambda: {query: {"0": 0.0} for query in QUERIES}, at_most=120)
    assert verdict == "stopped"
    with database.connect() as connection:
        live = live_release(connection, "shop")
        states = {release.release_id: release.state for release in list_releases(connection, "shop")}
    assert live is not None
    assert live.release_id == two.champion
    assert states.get(two.challenger) not in ("live", "challenger")


def test_an_experiment_that_a_broken_run_left_is_over_before_the_next(two: Two) -> None:
    console = Console(file=io.StringIO(), width=160)
    end_what_is_left(console, "shop")
    start("shop", two.challenger, {"settle_minutes": SETTLE / 60}, "left", "a test")
    end_what_is_left(console, "shop")
    assert console.file.getvalue() == "Experiment left of an earlier run is over.\n"  # type: ignore[attr-defined]
    with database.connect() as connection:
        assert under_way(connection, "shop") is None
        live = live_release(connection, "shop")
    assert live is not None
    assert live.release_id == two.champion


@pytest.mark.parametrize(("verdict", "proven"), [("better", True), ("cannot tell", True), ("not better", False)])
def test_what_the_gate_does_not_refuse_is_proven(verdict: str, proven: bool) -> None:
    found = decision(verdict, 0.01).model_copy(update={"undecided": verdict == "cannot tell"})
    assert worth_proving(found) is proven
