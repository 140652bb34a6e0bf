"""The command line: what it prints, and how it fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.types.json import Jsonb
from typer.testing import CliRunner

from estudio_core import cli, database, migrations
from estudio_core.cli import app
from estudio_core.context import context
from estudio_core.settings import get_settings
from estudio_core.vectordb.index_info import SearchIndexInfo
from estudio_core.vectordb.releases import start_release


@pytest.fixture(autouse=True)
def fresh_context() -> None:
    get_settings.cache_clear()
    context.reset()


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
    result = CliRunner().invoke(app, ["search", "lamp", "--plugin", "shop"])
    assert result.exit_code == 1
    assert "shop__initialize" in result.output


def test_a_filter_that_is_no_json_is_refused(estudio_home: Path) -> None:
    result = CliRunner().invoke(app, ["search", "lamp", "--filter", "{"])
    assert result.exit_code == 2
    assert "not JSON" in result.output


def test_releases_of_an_empty_installation_say_how_to_begin(estudio_home: Path) -> None:
    result = CliRunner().invoke(app, ["releases"])
    assert result.exit_code == 0
    assert "make demo" in result.output


def test_releases_show_every_state_with_what_is_known_of_it(
    estudio_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.console, "width", 200)
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


def test_brackets_are_shown_as_they_are(estudio_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.console, "width", 200)
    missing = CliRunner().invoke(app, ["search", "lamp [/red] [bold]", "--plugin", "shop[red]"])
    assert missing.exit_code == 1
    assert "shop[red]" in missing.output
    with database.connect() as connection:
        release = start_release(connection, "shop", "shop_v1", "1", SearchIndexInfo(dimensions=2), "run")
        connection.execute(
            "UPDATE estudio.deployments SET state = 'failed', reason = %s WHERE release_id = %s",
            ("column [/a] is [red]", release.release_id),
        )
    result = CliRunner().invoke(app, ["releases"])
    assert result.exit_code == 0
    assert "column [/a] is [red]" in result.output


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
    assert "broken.py" in "".join(result.output.split())
    assert "ok" in result.output


def test_validating_an_unknown_plugin_exits_with_1(
    estudio_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESTUDIO_PLUGINS_PATH", str(tmp_path))
    get_settings.cache_clear()
    result = CliRunner().invoke(app, ["plugins", "validate", "nothing"])
    assert result.exit_code == 1
    assert "There is no plugin 'nothing'" in result.output.replace("\n", " ")
