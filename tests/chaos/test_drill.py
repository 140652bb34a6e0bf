"""The short form of `make chaos`, part of `make proof`: builder, server, database and task killed under traffic.

In `make test`, each is killed without the others: steps in `tests/pipeline/test_killed_steps.py` and
`test_shard_resume.py`, Triton in `tests/local/triton/test_local_server.py`, PostgreSQL in `tests/test_database.py` and
`tests/service/test_broken_connections.py`; writes during releases are those of `tests/vectordb/test_releases.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.drill import drill
from tests.chaos.points import POINTS

pytestmark = [pytest.mark.e2e, pytest.mark.proof, pytest.mark.timeout(900)]


def test_no_promise_is_broken_when_parts_are_killed(tmp_path: Path) -> None:
    points = [point for point in POINTS if point.short]
    assert {point.target for point in points} == {"builder", "server", "database", "task"}
    outcome = drill(
        points, items=200, models=2, seed=1, limit_s=240, folder=tmp_path / "drill", say=lambda line: print(line)
    )
    print(outcome.table)
    assert outcome.violations == []
    assert outcome.kills == len(points)
