"""The orchestration benchmark: what counts as a step's time, and how the table reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import units
from benchmarks.orchestration.runs import Run, Task
from benchmarks.orchestration.table import markdown

DOWNSTREAM = {"read": ["left", "right"], "left": ["join"], "right": ["join"], "join": [], "never": []}


def test_overhead_is_what_no_step_of_the_longest_way_was_at_work_in() -> None:
    run = Run(
        asked_for=100.0,
        started=101.0,
        ended=120.0,
        tasks=[Task("read", 103, 105), Task("left", 106, 107), Task("right", 106, 112), Task("join", 114, 119)],
        downstream=DOWNSTREAM,
    )
    assert run.to_first_task == 3
    assert run.critical_path == 2 + 6 + 5
    assert run.overhead == 20 - 13


def test_of_a_mapped_task_the_slowest_instance_counts() -> None:
    run = Run(0.0, 0.0, 10.0, [Task("read", 1, 2), Task("left", 3, 4), Task("left", 3, 8)], DOWNSTREAM)
    assert run.critical_path == 1 + 5


def test_the_table_shows_median_range_and_repetitions_of_what_is_measured() -> None:
    found = {"to_run_s": [3.0, 12.0, 7.5], "to_live_s": [30.0, 31.0, 40.0]}
    assert markdown({"alias-to-release": found}).splitlines()[2:] == [
        "| alias moved in MLflow → release run starts | 7.5 | 3.0 to 12.0 | 3 |",
        "| alias moved in MLflow → release run ended, version live | 31.0 | 30.0 to 40.0 | 3 |",
    ]


def test_what_is_stored_is_measured_again_only_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "RESULTS", tmp_path)
    store = units.UnitStore("toy")
    assert store.measured("a", lambda: {"s": 1})["s"] == 1
    assert store.measured("a", lambda: {"s": 2})["s"] == 1
    assert store.measured("a", lambda: {"s": 3}, fresh=True)["s"] == 3
    stored = store.read("a")
    assert stored is not None
    assert stored["s"] == 3
