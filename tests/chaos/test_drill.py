"""The short form of `make chaos`: builder, server, database and task killed once or twice each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.drill import drill
from tests.chaos.points import POINTS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_no_promise_is_broken_when_parts_are_killed(tmp_path: Path) -> None:
    points = [point for point in POINTS if point.short]
    assert {point.target for point in points} == {"builder", "server", "database", "task"}
    outcome = drill(
        points, items=200, models=2, seed=1, limit_s=240, folder=tmp_path / "drill", say=lambda line: print(line)
    )
    print(outcome.table)
    assert outcome.violations == []
    assert outcome.kills == len(points)
