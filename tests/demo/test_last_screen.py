"""What the demo's last screen says of the loop."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from estudio_core import database
from estudio_core.demo.last_screen import Loop, show_last_screen
from estudio_core.demo.people import Traffic
from estudio_core.evaluation.report_data import DataFacts, EvaluationReport
from estudio_core.vectordb.releases import require_live
from tests.demo.test_truth import decision
from tests.service.conftest import Service, service, small_entry, small_model_folder

__all__ = ["service", "small_entry", "small_model_folder"]


@pytest.mark.parametrize(("verdict", "right"), [("better", "was right"), ("cannot tell", "could not tell")])
def test_the_loop_is_told_with_its_numbers(service: Service, verdict: str, right: str) -> None:
    facts = DataFacts(
        dataset_id="d", simulated=True, sessions=100, clicked_sessions=80, items=60, items_on_both_sides=3,
        sessions_by_split={"train": 50}, queries_by_split={"train": 7},
    )  # fmt: skip
    report = EvaluationReport(
        plugin="shop", created_at=datetime.now(UTC), decision=decision(verdict, 0.02), facts=facts
    )
    with database.connect() as connection:
        live = require_live(connection, "shop")
    loop = Loop(
        searches=Traffic(100, 80, 150, 180, 2.0),
        training_s=12.3,
        report=report,
        experiment=None,
        further=Traffic(),
        live=live,
        folder=Path("evaluation"),
        page="http://127.0.0.1:8100/ui/shop#key=est_x",
    )
    console = Console(file=io.StringIO(), width=400)
    show_last_screen(console, loop)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    for expected in (
        "100 searches by simulated people over HTTP, 150 clicks, 90 requests a second",
        "50 sessions of 7 queries, trained in 12 s",
        f"by clicks alone, 500 held-out sessions of 40 queries: {verdict}; a gain between +0.020 [+0.010, +0.030]",
        right,
        "+0.020 [+0.010, +0.030]",
        "release 1 with model version",
        "http://127.0.0.1:8100/ui/shop#key=est_x",
    ):
        assert expected in said, expected
    assert not loop.promoted
