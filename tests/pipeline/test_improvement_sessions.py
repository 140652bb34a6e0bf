"""Which sessions move vectors: those since the last run, to the microsecond, each of them once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from estudio_core import database
from estudio_core.clickstream.store import ClickstreamStore
from estudio_core.clickstream.ubi import UbiEvent, UbiQuery
from estudio_core.pipeline.improvement.sessions import read_sessions
from estudio_core.plugin.registry import open_plugin
from estudio_core.plugin.run_params import ImproveParams

if TYPE_CHECKING:
    from tests.pipeline.conftest import Shop

SECOND = datetime(2026, 3, 1, 10, tzinfo=UTC)
MARK = SECOND + timedelta(milliseconds=500)
END = SECOND + timedelta(hours=1)


def log(name: str, at: datetime, sessions: int, query: str = "lamp {}") -> None:
    with database.connect(autocommit=True) as connection:
        store = ClickstreamStore(connection)
        ids = [f"{name}-{number}" for number in range(sessions)]
        store.log_queries([UbiQuery(i, query.format(i), at, "shop", query_response_hit_ids=("1", "2")) for i in ids])
        store.log_events([UbiEvent(f"e-{i}", "click", i, at, "shop", object_id="2") for i in ids])


def test_a_session_in_the_second_of_the_mark_is_learned_from_in_exactly_one_of_two_runs(shop: Shop) -> None:
    log("before", SECOND + timedelta(milliseconds=300), 20)
    log("after", SECOND + timedelta(milliseconds=700), 20)
    plugin, wanted = open_plugin("shop"), ImproveParams()
    with database.connect() as connection:
        first = read_sessions(connection, plugin, wanted, SECOND - timedelta(days=1), MARK)
        second = read_sessions(connection, plugin, wanted, MARK, END)
    learned = [{session.session_id for session in run.learned} for run in (first, second)]
    assert learned[0]
    assert {name.partition("-")[0] for name in learned[0]} == {"before"}
    assert learned[1]
    assert {name.partition("-")[0] for name in learned[1]} == {"after"}
    held_out = {session.session_id for session in second.held_out}
    assert len(held_out | learned[1]) > 20  # sessions that have moved vectors before still measure


def test_the_newest_sessions_are_taken_where_there_are_too_many_and_only_from_the_window(shop: Shop) -> None:
    log("old", SECOND - timedelta(days=1), 30)
    log("new", SECOND + timedelta(minutes=1), 30)
    plugin = open_plugin("shop")
    with database.connect() as connection:
        some = read_sessions(connection, plugin, ImproveParams(max_sessions=30), MARK, END)
        both = read_sessions(connection, plugin, ImproveParams(), MARK, END)
        early = read_sessions(connection, plugin, ImproveParams(), END, SECOND)  # a mark later than what has settled
    assert {session.session_id.partition("-")[0] for session in [*some.learned, *some.held_out]} == {"new"}
    assert {session.session_id.partition("-")[0] for session in both.held_out} == {"old", "new"}
    assert early.learned == []


def test_spellings_of_a_held_out_query_measure_as_one(shop: Shop) -> None:
    for number in range(20):
        log(f"plain-{number}", SECOND, 2, f"lamp {number}")
        log(f"loud-{number}", SECOND, 1, f"LAMP  {number}")
    with database.connect() as connection:
        run = read_sessions(connection, open_plugin("shop"), ImproveParams(), END, END)
    asked = [session.query for session in run.held_out]
    assert len(asked) == 3 * len(set(asked)) > 3
    assert not any(query.startswith("LAMP") for query in asked)


def test_what_moved_vectors_served_does_not_measure_them(indexed_shop: Shop) -> None:
    indexed_shop.sql(
        "INSERT INTO estudio.improvements (plugin, release_id, run_id, state, until, objects, reason, at)"
        " SELECT 'shop', release_id, 'one', 'applied', %s, 1, 'It gains.', %s FROM estudio.deployments",
        MARK,
        MARK,
    )
    log("before", MARK - timedelta(minutes=1), 30)
    log("after", MARK + timedelta(minutes=1), 30, "chair {}")
    with database.connect() as connection:
        run = read_sessions(connection, open_plugin("shop"), ImproveParams(), MARK, END)
    assert {session.session_id.partition("-")[0] for session in run.held_out} == {"before"}
    assert {session.session_id.partition("-")[0] for session in run.learned} == {"after"}
