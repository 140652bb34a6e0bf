"""The speed benchmark: its sessions, and that a table is built from pieces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.training.__main__ import main
from benchmarks.training.contenders import Load
from benchmarks.training.units import Unit
from benchmarks.training.workload import SHOWN, workload


def test_sessions_show_one_clicked_product_and_lists_return() -> None:
    data = workload(300, seed=1)
    sessions = data.splits["train"]
    assert len(sessions) == 300
    assert all(len(s.results) == SHOWN and len(s.events) == 1 for s in sessions)
    lists = {s.query: s.results for s in sessions}
    assert len(lists) <= 30
    assert {product for s in sessions for product in s.results} == set(data.items)
    assert workload(300, seed=1).splits == data.splits
    assert workload(300, seed=2).splits != data.splits


def test_all_contenders_get_the_sessions_in_the_order_of_training() -> None:
    from lightning_modules.batches import BatchBuilder
    from lightning_modules.data_module import SessionBatches

    class Recording(BatchBuilder):
        def __init__(self) -> None:
            self.seen: list[str] = []

        def build(self, sessions, epoch):  # type: ignore[no-untyped-def]  # only the order is wanted
            self.seen += [session.session_id for session in sessions]

    data, recording = workload(50, seed=1), Recording()
    load = Load(data, steps=4, batch_size=8, precision="32", seed=3)
    list(SessionBatches(data.splits["train"], recording, load.config))
    assert len(recording.seen) == 32
    assert [session.session_id for session in load.in_order()] == recording.seen


def test_results_are_kept_apart_by_everything_that_decides_them(tmp_path: Path) -> None:
    unit, machine = Unit("loop", 10, 1, 0, 2, "32", 1, 1), {"processor": "a"}
    others = [Unit("loop", 10, 1, 0, 2, "32", 2, 1), Unit("loop", 10, 2, 0, 2, "32", 1, 1)]
    paths = {u.path(tmp_path, machine) for u in (unit, *others)} | {unit.path(tmp_path, {"processor": "b"})}
    assert len(paths) == 4


@pytest.mark.e2e
def test_a_unit_is_measured_once_and_stands_in_the_table(tmp_path: Path) -> None:
    arguments = ["--sessions", "12", "--steps", "1", "--batch-size", "2", "--only", "loop", "--threads", "1"]
    assert main([*arguments, "--results", str(tmp_path)]) == 0
    (kept,) = (tmp_path / "training").glob("*.json")
    result = json.loads(kept.read_text())
    assert result["sessions_per_s"] > 0
    assert len(result["step_ends_s"]) == 4
    result["sessions_per_s"] = 1234.5  # measured again, it would be another figure
    kept.write_text(json.dumps(result))
    assert main([*arguments, "--results", str(tmp_path)]) == 0
    table = (tmp_path / "training.md").read_text()
    assert "| loop over sessions, 3 of 6 layers frozen | 32-true | 1234.5 | " in table
    assert "1 threads, no GPU" in table or "GPU" in table
    assert (tmp_path / "training.svg").read_text().startswith("<?xml")
    result["machine"]["processor"] = "Another"
    kept.with_name("another.json").write_text(json.dumps(result | {"sessions_per_s": 2345.6}))
    assert main([*arguments, "--results", str(tmp_path), "--stored"]) == 0
    both = (tmp_path / "training.md").read_text()
    assert both.index("## Another") < both.index("2345.6") < both.index("1234.5"), "each under its own machine"
    other = result | {"unit": result["unit"] | {"contender": "estudio, none frozen"}, "sessions_per_s": 3456.7}
    kept.with_name("other.json").write_text(json.dumps(other))
    assert main([*arguments, "--results", str(tmp_path)]) == 0
    assert "3456.7" in (tmp_path / "training.md").read_text(), "a part that is measured is no table of its own"
    assert main(["--sessions", "13", *arguments[2:], "--results", str(tmp_path), "--stored"]) == 1
