"""`estudio judgments run` and `queries`: what is live and what was evaluated, in files of other tools."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from estudio_core import database
from estudio_core.artifacts import ArtifactStore
from estudio_core.cli import app
from estudio_core.evaluation.judgment_files import read_run
from estudio_core.evaluation.report_data import DataFacts, EvaluationReport, QueryChange
from estudio_core.promotion.trainings import note_training
from estudio_core.searching import search
from tests.demo.test_truth import decision
from tests.pipeline.conftest import Shop

FACTS = DataFacts(
    dataset_id="d", simulated=False, sessions=9, clicked_sessions=9, items=60, items_on_both_sides=0,
    sessions_by_split={"train": 9}, queries_by_split={"train": 3},
)  # fmt: skip


def command(*arguments: object) -> str:
    answer = CliRunner().invoke(app, ["judgments", *map(str, arguments)])
    assert answer.exit_code == 0, answer.output
    return answer.output


def test_a_run_holds_what_searches_of_the_live_release_find(indexed_shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "grades.csv").write_text("query,object_id,grade\nred lamp,1,3\nlamp,2,1\n", encoding="utf-8")
    said = command("run", tmp_path / "grades.csv", tmp_path / "run", "--plugin", "shop", "-n", 7)
    assert "Wrote the results of 2 queries" in said
    found = read_run(tmp_path / "run")
    assert set(found) == {"red lamp", "lamp"}
    for query, ranking in found.items():
        hits = search("shop", query, limit=7).hits
        assert [object_id for object_id, _ in ranking] == [hit.object_id for hit in hits]
        assert [score for _, score in ranking] == pytest.approx([hit.score for hit in hits], rel=1e-6)


def test_a_run_of_a_plugin_that_nothing_serves_is_refused(indexed_shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "grades.csv").write_text("query,object_id,grade\nlamp,2,1\n", encoding="utf-8")
    out = tmp_path / "run"
    answer = CliRunner().invoke(app, ["judgments", "run", str(tmp_path / "grades.csv"), str(out), "--plugin", "shpo"])
    assert answer.exit_code == 1
    assert "shpo" in answer.output
    assert not out.exists()


def test_the_queries_of_a_report_are_written_with_both_figures(indexed_shop: Shop, tmp_path: Path) -> None:
    for number, after in enumerate((0.25, 0.75)):
        run_id, changes = f"run-{number}", [QueryChange(query='12" lamp, red', group="unseen", before=0.5, after=after)]
        report = EvaluationReport(
            plugin="shop", created_at=datetime.now(UTC), decision=decision("better", 0.02), facts=FACTS,
            queries=tuple(changes),
        )  # fmt: skip
        with ArtifactStore().publish("shop", run_id, "evaluate") as folder:
            (folder / "report.json").write_text(report.model_dump_json(), encoding="utf-8")
        with database.transaction() as connection:
            note_training(
                connection, "shop", run_id, until=datetime.now(UTC) + timedelta(days=number), version=None,
                promoted=False, reason="", report_uri=ArtifactStore().uri("shop", run_id, "evaluate"), numbers={},
            )  # fmt: skip
    written = {}
    for run_id in (None, "run-0"):
        command("queries", tmp_path / "out.csv", "--plugin", "shop", *(["--run", run_id] if run_id else []))
        with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
            written[run_id] = list(csv.reader(file))
    head = ["query", "group", "champion", "candidate", "change"]
    assert written[None] == [head, ['12" lamp, red', "unseen", "0.500000", "0.750000", "0.250000"]]
    assert written["run-0"] == [head, ['12" lamp, red', "unseen", "0.500000", "0.250000", "-0.250000"]]
    answer = CliRunner().invoke(
        app, ["judgments", "queries", str(tmp_path / "no.csv"), "--plugin", "shop", "--run", "x"]
    )
    assert answer.exit_code == 1
    assert "no report of run 'x'" in " ".join(answer.output.split())
    assert not (tmp_path / "no.csv").exists()
