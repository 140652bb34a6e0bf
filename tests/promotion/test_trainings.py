"""The mark "since the last training": which runs move it, and who is held to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from estudio_core import database
from estudio_core.clickstream.store import ClickstreamStore
from estudio_core.clickstream.ubi import UbiEvent, UbiQuery
from estudio_core.errors import NotEnoughDataError
from estudio_core.pipeline.extract import extract
from estudio_core.promotion.trainings import new_sessions, note_training, trained_until


@pytest.fixture(autouse=True)
def sessions(shop_plugin: None) -> None:
    """Three clicked sessions of `shop`, an hour old."""
    at = datetime.now(UTC) - timedelta(hours=1)
    with database.transaction() as connection:
        store = ClickstreamStore(connection)
        store.log_queries([UbiQuery(f"q{i}", "lamp", at, "shop", query_response_hit_ids=("1", "2")) for i in range(3)])
        store.log_events([UbiEvent(f"e{i}", "click", f"q{i}", at, "shop", object_id="1") for i in range(3)])


def trained(run_id: str, version: str | None) -> None:
    with database.transaction() as connection:
        note_training(
            connection,
            "shop",
            run_id,
            until=datetime.now(UTC),
            version=version,
            promoted=False,
            reason="",
            report_uri="none",
            numbers={},
        )


def test_a_dry_run_leaves_the_mark_where_it_was() -> None:
    trained("dry", None)
    with database.connect() as connection:
        assert trained_until(connection, "shop") is None
        assert new_sessions(connection, "shop") == 3
    trained("real", "2")
    with database.connect() as connection:
        assert trained_until(connection, "shop") is not None
        assert new_sessions(connection, "shop") == 0


def test_a_log_that_is_imported_late_is_new() -> None:
    trained("real", "2")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    with database.connect() as connection:
        store = ClickstreamStore(connection)
        store.log_queries([UbiQuery("late", "lamp", yesterday, "shop", query_response_hit_ids=("1", "2"))])
        store.log_events([UbiEvent("late", "click", "late", yesterday, "shop", object_id="1")])
        assert new_sessions(connection, "shop") == 1


def test_an_archive_from_before_the_window_gives_a_run_for_new_sessions_nothing_to_do() -> None:
    trained("real", "2")
    long_ago = datetime.now(UTC) - timedelta(days=400)
    with database.connect(autocommit=True) as connection:
        store = ClickstreamStore(connection)
        store.log_queries([UbiQuery("old", "lamp", long_ago, "shop", query_response_hit_ids=("1", "2"))])
        store.log_events([UbiEvent("old", "click", "old", long_ago, "shop", object_id="1")])
    with pytest.raises(NotEnoughDataError, match=r"0 clicked sessions .* since the last training"):
        extract("shop", "rung", {"min_sessions": 2}, 1)


def test_a_run_for_new_sessions_rests_when_another_has_trained_on_them_and_may_be_cleared_itself() -> None:
    assert extract("shop", "first", {"min_sessions": 2}, 3).clicked_sessions == 3
    trained("first", "2")
    with pytest.raises(NotEnoughDataError, match=r"0 clicked sessions .* since the last training; .* started for 3"):
        extract("shop", "rung again", {"min_sessions": 2}, 3)
    assert extract("shop", "first", {"min_sessions": 2}, 3).clicked_sessions == 3
    assert extract("shop", "by hand", {"min_sessions": 2}).clicked_sessions == 3
