"""The command line: what it prints, and how it fails."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from rich.text import Text
from typer.testing import CliRunner

from estudio_core import database, doctor, migrations
from estudio_core.cli import app
from estudio_core.context import context
from estudio_core.promotion import ledger
from estudio_core.settings import get_settings
from estudio_core.vectordb.index_info import SearchIndexInfo
from estudio_core.vectordb.releases import ItemModel, start_release
from estudio_core.writing import ItemWrite, upsert
from tests.pipeline.conftest import (
    Shop,
    database_template,
    indexed_database,
    indexed_shop,
    shop,
    small_entry,
    small_model_folder,
)

__all__ = [
    "database_template",
    "indexed_database",
    "indexed_shop",
    "shop",
    "small_entry",
    "small_model_folder",
]


@pytest.fixture(autouse=True)
def fresh_context() -> None:
    get_settings.cache_clear()
    context.reset()


ESTUDIO = (sys.executable, "-m", "estudio_core.cli")
LONG_NAME = "gardening_tools_and_furniture"
REASON = "recall@10 [bold] of the new index is 0.912 against exact search; [/red] at least 0.95 is needed: raise [m]"


def on_a_terminal(*arguments: str, columns: int = 80) -> list[str]:
    """Run a command on a real terminal of that width; return its lines as they look there."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color"}
    with subprocess.Popen(
        [*ESTUDIO, *arguments], stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.STDOUT, env=environment
    ):
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65_536)
            except OSError:  # the other side is closed: all has been read
                break
    os.close(ours)
    return [Text.from_ansi(line).plain for line in shown.decode().splitlines()]


def in_a_pipe(*arguments: str) -> str:
    """Run a command with its output in a pipe; return what it wrote."""
    return subprocess.run([*ESTUDIO, *arguments], capture_output=True, text=True, check=True).stdout


def parsed(*arguments: str, exit_code: int = 0) -> list[dict[str, Any]]:
    """Return what a command prints on its standard output as JSON: nothing but a list of objects."""
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == exit_code, result.output
    rows = json.loads(result.stdout)
    assert isinstance(rows, list)
    return rows


@pytest.fixture
def failed_release(estudio_home: Path) -> None:
    """A release of a plugin with a long name that failed for a reason that is no markup."""
    with database.connect() as connection:
        release = start_release(connection, LONG_NAME, f"{LONG_NAME}_v1", "1", SearchIndexInfo(dimensions=2), "run")
        connection.execute(
            "UPDATE estudio.deployments SET state = 'failed', reason = %s WHERE release_id = %s",
            (REASON, release.release_id),
        )
        promotion = ledger.request(
            connection, LONG_NAME, "gate", "gate of run", "1", run_id="run", numbers={"seen_ndcg_at_10_gain": 0.0432}
        )
        ledger.end(connection, promotion, "failed", release_id=release.release_id, reason=REASON)


def test_help_lists_every_command() -> None:
    output = CliRunner().invoke(app, ["--help"]).output
    for command in (
        "search",
        "releases",
        "rollback",
        "sync",
        "migrate",
        "doctor",
        "demo",
        "up",
        "down",
        "status",
        "plugins",
    ):
        assert command in output


def test_a_search_without_a_release_says_what_to_run(estudio_home: Path) -> None:
    result = CliRunner().invoke(app, ["search", "lamp", "--plugin", "demo_catalog"])
    assert result.exit_code == 1
    assert "demo_catalog__initialize" in result.output


def test_a_search_of_a_plugin_that_is_none_names_the_nearest(estudio_home: Path) -> None:
    for command in (["search", "lamp"], ["sync"]):
        result = CliRunner().invoke(app, [*command, "--plugin", "demo_catalogue"])
        assert result.exit_code == 1
        assert "Did you mean 'demo_catalog'" in result.output
        assert "__initialize" not in result.output


def test_a_filter_that_is_no_json_is_refused(estudio_home: Path) -> None:
    result = CliRunner().invoke(app, ["search", "lamp", "--filter", "{"])
    assert result.exit_code == 2
    assert "not JSON" in result.output


def test_releases_of_an_empty_installation_say_how_to_begin(estudio_home: Path) -> None:
    result = CliRunner().invoke(app, ["releases"])
    assert result.exit_code == 0
    assert "make demo" in result.output


def test_releases_show_every_state_with_what_is_known_of_it(estudio_home: Path) -> None:
    states = ("building", "built", "verified", "live", "previous", "retired", "failed")
    with database.connect() as connection:
        for state in states:
            release = start_release(connection, state, f"{state}_v1", "1", SearchIndexInfo(dimensions=2), "run")
            connection.execute(
                "UPDATE estudio.deployments SET state = %s, reason = %s, stats = %s WHERE release_id = %s",
                (
                    state,
                    "the task was killed" if state == "failed" else None,
                    Jsonb({"objects": 60, "recall_at_10": 0.975}),
                    release.release_id,
                ),
            )
    result = CliRunner().invoke(app, ["releases"])
    assert result.exit_code == 0
    for state in states:
        [line] = [line for line in result.output.splitlines() if line.split()[:1] == [state]]
        assert line.split()[2:6] == [state, "1", "60", "0.975"]
        assert ("the task was killed" in line) == (state == "failed")


def test_releases_show_both_towers_where_they_differ(estudio_home: Path) -> None:
    info = SearchIndexInfo(dimensions=2)
    with database.connect() as connection:
        start_release(connection, "one", "one_v1", "1", info, "run")
        assert "item_version" not in in_a_pipe("releases")
        start_release(connection, "two", "two_v4", "4", info, "run", items=ItemModel("two_v3", "3"))
    table = [line.split() for line in in_a_pipe("releases").splitlines()]
    assert table[0][3:5] == ["version", "item_version"]
    assert {row[0]: row[3:5] for row in table[1:]} == {"one": ["1", "1"], "two": ["4", "3"]}


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("ESTUDIO_KEEP_RELEASES", "1", "ESTUDIO_KEEP_RELEASES: Input should be greater than or equal to 2"),
        ("ESTUDIO_RAY_ADDRESS", "ray://secret@head", "ESTUDIO_RAY_ADDRESS: String should match"),
        ("ESTUDIO_INFERENCE_USED_PLUGINS", "secret", "inference_used_plugins"),
    ],
)
def test_a_setting_that_is_not_legal_is_named_without_its_value(
    estudio_home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, named: str
) -> None:
    monkeypatch.setenv(variable, value)
    get_settings.cache_clear()
    result = CliRunner().invoke(app, ["releases"])
    monkeypatch.delenv(variable)
    get_settings.cache_clear()
    assert result.exit_code == 1
    assert "ConfigurationError" in result.output
    assert named in result.output
    assert "secret" not in result.output


def test_brackets_in_an_error_are_shown_as_they_are(estudio_home: Path) -> None:
    missing = CliRunner().invoke(app, ["search", "lamp [/red] [bold]", "--plugin", "shop[red]"])
    assert missing.exit_code == 1
    assert "shop[red]" in missing.output


@pytest.mark.usefixtures("failed_release")
def test_at_eighty_columns_nothing_is_cut() -> None:
    for command in ("releases", "promotions", "status"):
        lines = on_a_terminal(command)
        assert max(map(len, lines)) <= 80 or command == "status"  # the folder of the logs is one word
        text = " ".join(" ".join(lines).split())
        assert "…" not in text
        if command == "status":
            assert "airflow-dag-processor stopped" in text
        else:
            assert f"{LONG_NAME} " in text
            assert "failed" in text
            assert REASON in text


@pytest.mark.usefixtures("failed_release")
def test_in_a_pipe_a_row_is_one_whole_line_without_colours_or_boxes() -> None:
    for command in ("releases", "promotions"):
        headings, line = in_a_pipe(command).splitlines()
        assert headings.split()[:2] in (["plugin", "release"], ["requested", "plugin"])
        assert LONG_NAME in line
        assert REASON in line
        assert line.isascii()
        assert line.isprintable()


@pytest.mark.usefixtures("failed_release")
def test_json_holds_the_rows_of_the_table_under_the_same_names() -> None:
    [release] = parsed("releases", "--plugin", LONG_NAME)
    told = [name for name in release if name != "item_version"]  # in the table where it is another version
    assert told == [*in_a_pipe("releases").splitlines()[0].split()[:-1], "live", "reason"]
    assert (release["state"], release["reason"], release["recall_at_10"]) == ("failed", REASON, None)
    assert datetime.fromisoformat(release["created"]).tzinfo is not None
    [promotion] = parsed("promotions")
    assert (promotion["from"], promotion["to"], promotion["outcome"]) == (None, "1", "failed")
    assert promotion["gains"] == {"seen_ndcg_at_10_gain": 0.0432}
    assert datetime.fromisoformat(promotion["ended"]) >= datetime.fromisoformat(promotion["requested"])
    assert parsed("releases", "--plugin", "nothing") == parsed("promotions", "--plugin", "nothing") == []
    [database_part, *services] = parsed("status")
    assert (database_part["part"], database_part["state"]) == ("database", "running")
    assert {(part["part"], part["state"]) for part in services} >= {("airflow-scheduler", "stopped")}


def test_a_sync_before_anything_is_live_says_what_to_run(
    estudio_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "shop.py").write_text(
        "from estudio_core import PostgresItems, create_text_plugin\n"
        "plugin = create_text_plugin('shop', items=PostgresItems(table='products', text='title',"
        " change_queue='shop changes'), model='none')\n"
    )
    monkeypatch.setenv("ESTUDIO_PLUGINS_PATH", str(tmp_path / "plugins"))
    get_settings.cache_clear()
    result = CliRunner().invoke(app, ["sync", "--plugin", "shop"])
    assert result.exit_code == 1
    assert "shop__initialize" in result.output
    result = CliRunner().invoke(app, ["plugins", "queue-sql", "shop"])
    assert result.exit_code == 1
    assert "no table 'products'" in result.output.replace("\n", " ")
    with database.connect() as connection:
        connection.execute("CREATE TABLE products (id int PRIMARY KEY, title text)")
    result = CliRunner().invoke(app, ["plugins", "queue-sql", "shop"])
    assert result.exit_code == 0
    assert 'AFTER TRUNCATE ON "public"."products"' in result.output


def test_a_search_and_a_sync_of_what_is_live_print_tables_and_json(indexed_shop: Shop) -> None:
    title = "[x] Brass lamp [/red]"
    upsert("shop", [ItemWrite("900", title, {"title": title})])
    result = CliRunner().invoke(app, ["search", title, "--plugin", "shop", "--limit", "2", "--offset", "0"])
    said, headings, first, _ = result.stdout.splitlines()
    assert title in said
    assert headings.split() == ["position", "score", "similarity", "words", "object_id", "item"]
    assert first.split()[0] == "1"
    assert first.endswith(f" 900        {title}")
    result = CliRunner().invoke(app, ["search", title, "--plugin", "shop", "--mode", "words", "--json"])
    answer = json.loads(result.stdout)
    assert (answer["hits"][0]["object_id"], answer["hits"][0]["similarity"]) == ("900", None)
    assert (answer["plugin"], answer["release"], answer["model_version"]) == ("shop", 1, "1")
    assert set(answer["hits"][0]) == {"object_id", "similarity", "payload", "score", "words", "personal"}
    [done] = parsed("sync", "--plugin", "shop", "--everything")
    assert (done["plugin"], done["release"], done["deleted"]) == ("shop", 1, 1)  # the lamp is in no table
    assert " 0 deleted, 60 unchanged," in CliRunner().invoke(app, ["sync", "--plugin", "shop", "--everything"]).stdout


def test_a_rollback_with_nothing_to_go_back_to_is_refused(estudio_home: Path) -> None:
    result = CliRunner().invoke(app, ["rollback", "--plugin", "shop"])
    assert result.exit_code == 1
    assert "no such release to go back to: 'previous'" in result.output


def test_an_unreachable_database_is_an_error_in_one_line_without_the_password(
    estudio_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESTUDIO_DATABASE_URL", "postgresql://shop:hunter2@127.0.0.1:1/shop")
    get_settings.cache_clear()
    result = CliRunner().invoke(app, ["releases"])
    assert result.exit_code == 1
    assert "127.0.0.1:1/shop does not answer" in result.output.replace("\n", " ")
    assert "hunter2" not in result.output


def test_tables_that_are_missing_are_named_with_the_command_that_makes_them(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESTUDIO_DATABASE_URL", database_url)
    monkeypatch.setenv("ESTUDIO_HOME", str(tmp_path))
    get_settings.cache_clear()
    before, found = (CliRunner().invoke(app, [command]) for command in ("releases", "doctor"))
    assert before.exit_code == 1
    assert "SchemaVersionError Estudio's database has no tables of this version" in before.output
    assert "Run: estudio migrate" in before.output
    assert "→ estudio migrate" in " ".join(found.output.split())
    migrated, after, found = (CliRunner().invoke(app, [command]) for command in ("migrate", "releases", "doctor"))
    assert f"at version {migrations.newest()}" in migrated.output
    assert after.exit_code == 0
    assert f"version {migrations.newest()}, {migrations.newest()} is needed" in " ".join(found.output.split())


def test_doctor_names_a_broken_plugin_and_exits_with_1(
    estudio_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "broken.py").write_text("x = (\n")
    monkeypatch.setenv("ESTUDIO_PLUGINS_PATH", str(tmp_path / "plugins"))
    get_settings.cache_clear()
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    [line] = [line for line in result.output.splitlines() if "broken.py" in line]
    assert line.split()[:2] == ["missing", "plugin"]
    assert line.endswith("→ correct the file")
    findings = parsed("doctor", exit_code=1)
    assert {(finding["what"], finding["state"]) for finding in findings} >= {("torch", "ok"), ("plugin", "missing")}
    assert all(set(finding) == {"what", "state", "detail", "mend"} for finding in findings)
    assert parsed("plugins", "list", exit_code=1) == []
    assert "broken.py" in CliRunner().invoke(app, ["plugins", "list"]).stderr


def test_validating_says_of_each_check_how_it_ended(
    estudio_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "shop.py").write_text(
        "from estudio_core import PostgresItems, create_text_plugin\n"
        "plugin = create_text_plugin('shop', items=PostgresItems(table='[products]', text='title'), model='none')\n"
    )
    monkeypatch.setenv("ESTUDIO_PLUGINS_PATH", str(tmp_path / "plugins"))
    get_settings.cache_clear()
    states = {row["check"]: row["state"] for row in parsed("plugins", "validate", "shop", exit_code=1)}
    assert (states["loads"], states["items"], states["model"]) == ("ok", "wrong", "wrong")
    result = CliRunner().invoke(app, ["plugins", "validate", "shop"])
    assert result.exit_code == 1
    assert "[products]" in result.stdout
    assert parsed("plugins", "list") == [{"plugin": "shop", "version": "1.0.0", "description": None}]


def test_validating_an_unknown_plugin_exits_with_1(
    estudio_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESTUDIO_PLUGINS_PATH", str(tmp_path))
    get_settings.cache_clear()
    result = CliRunner().invoke(app, ["plugins", "validate", "nothing"])
    assert result.exit_code == 1
    assert "There is no plugin 'nothing'" in result.output.replace("\n", " ")


def test_doctor_names_variables_that_nothing_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("ESTUDIO_DATABASE_ULR=postgresql://db/x\nOTHER=1\n")
    monkeypatch.setenv("ESTUDIO_KEEP_RELEASE", "3")
    monkeypatch.setenv("estudio_home", str(tmp_path))
    monkeypatch.setenv("ESTUDIO_TRAINING_DEVICES", "1")
    monkeypatch.setenv("ESTUDIO_FROM_NOWHERE_AT_ALL", "1")
    told = {found.detail.partition(" ")[0]: (found.state, found.mend) for found in doctor._variables()}
    assert told["ESTUDIO_KEEP_RELEASE"] == ("note", "did you mean ESTUDIO_KEEP_RELEASES?")
    assert told["ESTUDIO_DATABASE_ULR"] == ("note", "did you mean ESTUDIO_DATABASE_URL?")
    assert told["ESTUDIO_FROM_NOWHERE_AT_ALL"] == ("note", "see docs/settings.md")
    assert {"ESTUDIO_HOME", "ESTUDIO_TRAINING_DEVICES", "OTHER"}.isdisjoint(told)
