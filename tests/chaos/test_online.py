"""The short form of the service under fire: its parts, database and Triton killed while an experiment runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.online import TARGETS, drill

pytestmark = [pytest.mark.proof, pytest.mark.timeout(900)]


def test_no_promise_of_the_service_is_broken_when_parts_are_killed(tmp_path: Path) -> None:
    outcome = drill(items=200, seed=1, rounds=1, short=True, folder=tmp_path / "drill", say=lambda line: print(line))
    print(outcome.table)
    assert outcome.violations == []
    assert {target for target in TARGETS if outcome.kills[target] == 0} <= {"triton"}
    assert outcome.counts["of them in the experiment"] > 50
    assert outcome.counts["events acknowledged"] > 50
    assert outcome.counts["writes acknowledged"] > 20
