"""What `estudio clickstream check` makes of a log: go, wait, or will not help."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from estudio_core import database
from estudio_core.clickstream.replay import ClickModel, replay_clicks
from estudio_core.clickstream.store import ClickstreamStore
from estudio_core.clickstream.ubi import UbiEvent, UbiQuery
from estudio_core.context import context
from estudio_core.log_check import LogCheck, check_log

NOW = datetime.now(UTC)


def check(application: str = "shop") -> LogCheck:
    with database.connect() as connection:
        return check_log(connection, application)


@pytest.fixture(autouse=True)
def items(shop_plugin: None, estudio_home: Path) -> None:
    """The table that the plugin `shop` reads, with sixty products. Its gate is to find gains of 0.1."""
    file = estudio_home / "plugins" / "shop.py"
    gate = 'model="some-model", gate=GateSettings(told_gain=0.1)'
    text = file.read_text().replace('model="some-model"', gate)
    file.write_text(f"from estudio_core.evaluation.gate_settings import GateSettings\n{text}")
    context.reset()
    with database.connect() as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, body text)")
        connection.execute("INSERT INTO t SELECT n, 'product ' || n FROM generate_series(0, 59) n")


def log(sessions: int, queries: int, application: str = "shop", items: int = 60) -> None:
    """Log simulated sessions, attention falling as 1 / position, ten products each."""
    judgments = {f"query {n}": {str((7 * n + p) % items): float(p % 4) for p in range(10)} for n in range(queries)}
    rankings = {query: [(item, 1 - p / 20) for p, item in enumerate(grades)] for query, grades in judgments.items()}
    made = replay_clicks(
        judgments,
        rankings,
        sessions=sessions,
        application=application,
        end=NOW,
        click_model=ClickModel(1.0, 0.05),
        zipf_exponent=0.0,
        shuffled_share=0.3,
        seed=1,
    )
    with database.connect() as connection:
        store = ClickstreamStore(connection)
        store.log_queries(made.queries)
        store.log_events(made.events)


def test_a_log_that_is_large_and_even_enough_may_be_trained_on() -> None:
    log(6000, 450)
    found = check()
    assert (found.verdict, found.facts["clicked searches missing for a training"]) == ("go", 0)
    assert str(found.facts["clicked results among the items"]).startswith("60 (100.0%) of the 60")
    assert found.facts["simulated searches"] == found.facts["searches"] == 6000
    assert found.facts["clicks with a position"] == f"{found.facts['clicks']:,} (100.0%)"
    assert found.click_rates[0] > 2 * found.click_rates[4] > 0
    assert " ± " in str(found.facts["attention"])
    assert float(str(found.facts["attention"]).partition("e = ")[2].split()[0]) == pytest.approx(1.0, abs=0.15)


def test_too_few_queries_wait_with_how_many_are_missing() -> None:
    log(300, 40)
    found = check()
    assert found.verdict == "wait"
    (reason,) = found.reasons
    assert "further clicked queries are needed for a decision by clicks" in reason
    log(10, 5, "paper")
    assert "clicked searches more are needed for a training" in check("paper").reasons[0]


def test_clicks_on_ids_that_are_no_items_will_not_help() -> None:
    with database.connect() as connection:
        connection.execute("UPDATE t SET id = id + 1000")
    log(200, 20)
    found = check()
    assert found.verdict == "will not help"
    assert "most clicked results are not among the items, such as" in found.reasons[0]


def test_one_automatic_client_is_named_and_does_not_count() -> None:
    log(300, 40)
    with database.connect() as connection:
        store = ClickstreamStore(connection)
        start = NOW - timedelta(days=1)
        bot = [
            UbiQuery(f"b{n}", f"query {n % 40}", start + timedelta(seconds=n), "shop", ("1", "2"), client_id="bot")
            for n in range(1500)
        ]
        store.log_queries(bot)
        store.log_events([UbiEvent(f"{q.query_id}/e", "click", q.query_id, q.timestamp, "shop", "1") for q in bot])
    found = check()
    assert "1,500 sessions of 1 implausible clients" in str(found.facts["sessions that do not count"])
    assert "Only 300 of 1,800 sessions count" in found.reasons[0]


def test_an_application_that_nobody_logged_is_asked_after() -> None:
    found = check("shopp")
    assert (found.verdict, found.facts["searches"]) == ("wait", 0)
    assert "Is the application called otherwise in the log?" in found.reasons[0]
    assert found.facts["clicked results among the items"] == "not looked for: no plugin is called 'shopp'"
