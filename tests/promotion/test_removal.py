"""A plugin's end: nothing of it serves, waits or is asked for any more, and what people did stays."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from estudio_core import database
from estudio_core.airflow_ui.content import plugin_names
from estudio_core.airflow_ui.next_step import Situation, next_step
from estudio_core.cli import app
from estudio_core.comparing import ledger as experiments
from estudio_core.context import context
from estudio_core.errors import ConcurrentReleaseError, NothingLiveError, SupersededError
from estudio_core.evaluation.judgment_store import Grade, grades, keep
from estudio_core.experiments.model_registry import ModelRegistry
from estudio_core.pipeline.request_release import request_release
from estudio_core.pipeline.take_up import take_up
from estudio_core.promotion import ledger, removal
from estudio_core.promotion.aliases import observe_all
from estudio_core.service.keys import create_key, revoke_key
from estudio_core.settings import get_settings
from estudio_core.vectordb.locks import build_lock
from estudio_core.vectordb.releases import list_releases, require_live

if TYPE_CHECKING:
    import psycopg

    from estudio_core.vectordb.releases import Release

    Build = Callable[[str, str], Release]


def test_a_plugin_is_removed_with_all_that_serves_it(
    registry: ModelRegistry, conn: psycopg.Connection, live: Build, verified: Build
) -> None:
    live("first", "1")
    live("second", "2")
    verified("third", "3")
    registry.promote(2, reason="second", actor="ana")
    registry.wrapper.client.set_registered_model_alias("shop", "champion", "3")
    assert len(observe_all(conn, registry.wrapper)) == 1
    conn.execute(
        'INSERT INTO estudio.ubi_queries (application, query_id, user_query, "timestamp")'
        " VALUES ('shop', 'q', 'lamp', now())"
    )
    conn.execute("INSERT INTO estudio.change_log (plugin, op, object_id) VALUES ('shop', 'delete', '1')")
    (get_settings().plugins_path / "shop.py").unlink()
    create_key(conn, "web shop", ("search",), ("shop", "other"))
    create_key(conn, "everything", ("search",), ("*",))
    revoke_key(conn, create_key(conn, "old", ("search",), ("shop",))[0].key_id)
    downloaded = registry.download(2)
    keep(conn, "shop", Grade("lamp", "1", "Ann", 3))
    assert removal.orphans(conn, {"other"}) == plugin_names() == ["shop"]

    told = CliRunner().invoke(app, ["plugins", "remove", "shop", "--yes"])
    assert told.exit_code == 0, told.output
    assert "3 releases with their collections" in told.output
    assert "1 open requests" in told.output
    assert "Clickstream, judgments, audit trail" in told.output
    assert "once it is back: web shop. See: estudio keys list" in told.output
    assert not downloaded.exists()
    assert len(grades(conn, "shop")) == 1
    with pytest.raises(NothingLiveError):
        require_live(conn, "shop")
    assert {release.state for release in list_releases(conn, "shop")} == {"retired"}
    assert not any(release.collection.exists(conn) for release in list_releases(conn, "shop"))
    assert registry.aliases() == {}
    assert sorted(registry.versions()) == [1, 2, 3]
    assert removal.orphans(conn, set()) == plugin_names() == []
    assert [row.outcome for row in ledger.history(conn, "shop")] == ["superseded"]
    assert "removed by" in ledger.history(conn, "shop")[0].reason
    assert conn.execute("SELECT count(*) FROM estudio.ubi_queries").fetchone() == (1,)
    assert conn.execute("SELECT count(*) FROM estudio.change_log").fetchone() == (0,)

    registry.wrapper.client.set_registered_model_alias("shop", "champion", "2")  # asks for nothing any more
    assert observe_all(conn, registry.wrapper) == []
    told = CliRunner().invoke(app, ["plugins", "remove", "shop", "--yes"])
    assert told.exit_code == 0
    assert registry.aliases() == {}
    told = CliRunner().invoke(app, ["plugins", "remove", "shop", "--yes"])
    assert told.exit_code == 1
    assert "Nothing is kept for a plugin 'shop'" in told.output
    live("again", "1")  # a plugin of that name may begin again
    assert require_live(conn, "shop").model_version == "1"


def test_it_asks_first_and_names_the_files(registry: ModelRegistry, conn: psycopg.Connection, live: Build) -> None:
    live("first", "1")
    told = CliRunner().invoke(app, ["plugins", "remove", "shop"], input="n\n")
    assert told.exit_code == 1
    assert require_live(conn, "shop").model_version == "1"
    told = CliRunner().invoke(app, ["plugins", "remove", "shop"], input="y\n")
    assert told.exit_code == 0
    assert "Delete its files too" in told.output
    assert "shop.py" in told.output


def test_an_experiment_that_runs_ends_with_its_plugin(
    registry: ModelRegistry, conn: psycopg.Connection, live: Build, verified: Build
) -> None:
    live("first", "1")
    challenger = verified("second", "2")
    assert experiments.start(conn, challenger, "words", "ana").state == "running"
    removal.remove(conn, registry.wrapper, "shop", "ben")
    found = experiments.get(conn, "words")
    told = (found.state, found.verdict, found.reason, found.ended_by)
    assert told == ("ended", "stopped", "The plugin was removed.", "ben")
    assert not challenger.collection.exists(conn)


def test_a_training_that_ends_after_its_plugin_brings_it_not_back(
    registry: ModelRegistry, conn: psycopg.Connection, live: Build
) -> None:
    live("first", "1")
    registered = {
        "version": "2",
        "promoted": True,
        "reason": "better",
        "next_step": "request_release",
        "summary": "",
        "report_uri": "",
    }
    assert request_release("shop", registered, "before", "gate", "the gate") == "2"
    removal.remove(conn, registry.wrapper, "shop", "ben")
    with pytest.raises(NothingLiveError, match="Nothing is live for plugin 'shop'"):
        request_release("shop", registered, "after", "gate", "the gate")
    assert [row.outcome for row in ledger.history(conn, "shop")] == ["superseded"]


def test_triggers_on_the_table_are_told_with_what_ends_them(
    registry: ModelRegistry, conn: psycopg.Connection, live: Build, database_url: str
) -> None:
    live("first", "1")
    plugin = get_settings().plugins_path / "shop.py"
    written = plugin.read_text().replace('text="title"', 'text="title", change_queue="shop_changes"')
    plugin.write_text(written)
    del sys.modules["estudio_plugins.shop"]
    context.reset()
    conn.execute("CREATE TABLE products (id int, title text, y int) PARTITION BY LIST (y)")
    conn.execute("CREATE TABLE products_1 PARTITION OF products DEFAULT")
    told = CliRunner().invoke(app, ["plugins", "queue-sql", "shop"])
    conn.execute(told.output.encode())
    conn.execute("INSERT INTO products VALUES (1, 'a lamp', 1); TRUNCATE products_1")
    assert conn.execute("SELECT object_id FROM shop_changes ORDER BY entry").fetchall() == [("1",), (None,)]
    told = CliRunner().invoke(app, ["plugins", "remove", "shop", "--yes"])
    assert "still write into shop_changes" in told.output
    assert "estudio plugins queue-sql shop --drop" in told.output
    told = CliRunner().invoke(app, ["plugins", "queue-sql", "shop", "--drop"])
    for _ in range(2):
        conn.execute(told.output.encode())
    conn.execute("INSERT INTO products VALUES (2, 'a chair', 1); TRUNCATE products_1")
    left = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgrelid::regclass::text LIKE 'products%'"
    assert conn.execute(left).fetchone() == (0,)
    assert conn.execute("SELECT to_regclass('shop_changes'), to_regproc('shop_changes_feed')").fetchone() == (
        None,
        None,
    )


def test_a_release_that_is_under_way_ends_as_superseded(
    registry: ModelRegistry, conn: psycopg.Connection, live: Build
) -> None:
    live("first", "1")
    take_up("shop", "run", {"version": "2"}, "ana")
    with (
        build_lock(conn, "shop"),
        database.connect(autocommit=True) as other,
        pytest.raises(ConcurrentReleaseError),
    ):
        removal.remove(other, registry.wrapper, "shop", "ben")
    assert require_live(conn, "shop").model_version == "1"
    removal.remove(conn, registry.wrapper, "shop", "ben")
    with pytest.raises(SupersededError, match="removed by ben"):
        take_up("shop", "run", {}, "ana")


def test_a_request_that_no_run_ever_takes_up_ends_and_its_alias_goes_back(
    registry: ModelRegistry, conn: psycopg.Connection, live: Build
) -> None:
    live("first", "1")
    registry.promote(1, reason="first", actor="ana")
    registry.wrapper.client.set_registered_model_alias("shop", "champion", "2")
    observe_all(conn, registry.wrapper)
    conn.execute("UPDATE estudio.promotions SET requested_at = requested_at - interval '2 days'")
    assert observe_all(conn, registry.wrapper) == []
    assert "is shop__release in Airflow and not paused?" in ledger.history(conn, "shop")[0].reason
    assert registry.aliases()["champion"] == 1


def test_the_page_says_that_a_plugin_is_orphaned() -> None:
    told = next_step(Situation(live=3, dags={}, new_sessions=0, wanted_sessions=None))
    assert told.sentence.startswith("Orphaned")
    assert "estudio plugins remove" in told.sentence
