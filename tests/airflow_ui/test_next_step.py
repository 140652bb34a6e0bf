"""The one thing that comes next, over all states a plugin can be in."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from estudio_core.airflow_ui.next_step import KINDS, NextStep, Situation, next_step

WELL = Situation(live=3, dags=dict.fromkeys(KINDS, False), new_sessions=60, wanted_sessions=50)
"""Something is live, nothing is under way, and there is enough to learn from."""


def button(now: Situation) -> tuple[str | None, str | None, str]:
    step = next_step(now)
    return step.does, step.kind, step.label


def test_without_anything_live_the_plugin_is_initialized_whatever_was_clicked() -> None:
    for sessions in (0, 1_000):
        now = replace(WELL, live=None, new_sessions=sessions)
        assert button(now) == ("start", "initialize", "Initialize")
        assert next_step(now).conf == {}


def test_enough_sessions_start_fine_tuning_and_too_few_are_counted() -> None:
    assert button(WELL) == ("start", "fine_tune", "Start fine-tuning")
    assert button(replace(WELL, new_sessions=50)) == ("start", "fine_tune", "Start fine-tuning")
    assert "schedule" not in next_step(WELL).sentence
    assert "by its schedule, or now" in next_step(replace(WELL, starts_itself=True)).sentence
    one = next_step(replace(WELL, new_sessions=49))
    assert (one.does, one.sentence) == (None, "Nothing to do: 1 more clicked session is wanted for the next training.")
    assert "1,950 more clicked sessions are" in next_step(replace(WELL, wanted_sessions=2_010)).sentence


def test_a_challenger_is_released_before_anything_new_is_learned() -> None:
    now = replace(WELL, challenger="4")
    assert button(now) == ("start", "release", "Release version 4")
    assert next_step(now).conf == {"version": "4"}


def test_a_question_goes_before_everything_though_its_own_run_is_under_way() -> None:
    step = next_step(replace(WELL, question="run 1", running={"fine_tune": "run 1"}, challenger="4", live=None))
    assert (step.does, step.kind, step.run_id) == ("review", "fine_tune", "run 1")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_under_way_is_waited_for(kind: str) -> None:
    step = next_step(replace(WELL, running={kind: "run 7"}, challenger="4"))
    assert (step.does, step.kind, step.run_id, step.label) == (None, kind, "run 7", "")
    assert step.sentence == f"Nothing to do: {kind} is under way."


def test_settings_that_cannot_be_read_leave_nothing_to_say_about_learning() -> None:
    step = next_step(replace(WELL, wanted_sessions=None))
    assert step.does is None
    assert "cannot be read" in step.sentence
    assert next_step(replace(WELL, wanted_sessions=None, challenger="4")).does == "start"


@pytest.mark.parametrize(
    ("change", "kind"), [({"live": None}, "initialize"), ({"challenger": "4"}, "release"), ({}, "fine_tune")]
)
def test_a_dag_that_is_paused_or_unknown_has_no_button(change: dict[str, object], kind: str) -> None:
    now = replace(WELL, **change)  # type: ignore[arg-type]
    paused = next_step(replace(now, dags={**WELL.dags, kind: True}))
    assert (paused.does, paused.kind) == (None, kind)
    assert f"The DAG {kind} is paused" in paused.sentence
    unknown = next_step(replace(now, dags={name: False for name in KINDS if name != kind}))
    assert unknown.does is None
    assert "Airflow does not know the DAG" in unknown.sentence


def test_in_every_state_there_is_one_sentence_and_a_button_exactly_where_something_is_done() -> None:
    states = itertools.product(
        (None, 3),  # live
        ({}, dict.fromkeys(KINDS, False), dict.fromkeys(KINDS, True)),
        (0, 60),
        (None, 50),
        ({}, {"release": "run"}),
        (None, "run"),
        (None, "4"),
        (False, True),
    )
    seen: set[tuple[str | None, str | None]] = set()
    for values in states:
        live, dags, sessions, wanted, running, question, challenger, starts_itself = values
        step: NextStep = next_step(
            Situation(live, dags, sessions, wanted, running, question, challenger, starts_itself)  # type: ignore[arg-type]
        )
        assert step.sentence.endswith("." if step.does else (".", "?", "first."))
        assert bool(step.does) == bool(step.label)
        assert step.does != "start" or dags.get(step.kind) is False  # type: ignore[call-overload, attr-defined]
        seen.add((step.does, step.kind))
    assert {("start", "initialize"), ("start", "release"), ("start", "fine_tune"), ("review", "fine_tune")} <= seen
    assert not any(kind == "rollback" and does for does, kind in seen)  # never the one button
