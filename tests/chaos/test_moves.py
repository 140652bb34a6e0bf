"""The short form of the moves that `make chaos` exercises: a real dump, restored into a real other cluster."""

from __future__ import annotations

import pytest

from tests.chaos.moves import exercise


@pytest.mark.timeout(300)
def test_nothing_is_lost_when_the_database_is_dumped_and_restored_before_a_rollback() -> None:
    outcome = exercise("dump and restore", "before a rollback")
    assert outcome.violations == []
    assert min(outcome.before, outcome.after) > 30
