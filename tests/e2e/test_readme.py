"""Every command of the README runs, and its plugin is the one that `plugins new` writes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from estudio_core import database
from estudio_core.context import context
from estudio_core.demo.catalog import load_catalog, load_judgments, products
from estudio_core.plugin.places import definitions_in, import_plugin_file
from estudio_core.settings import get_settings
from estudio_core.sources.item_meta import ItemMeta
from tests.pipeline.steps import initialize, release

PROJECT = Path(__file__).parents[2]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.split("  #")[0].strip()
    for language, block in BLOCKS
    if language == "bash"
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture
def demo_installation(estudio_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's plugin with two releases over a small cut of the catalog."""
    monkeypatch.setenv("ESTUDIO_PLUGINS_PATH", str(PROJECT / "plugins"))
    get_settings.cache_clear()
    context.reset()
    with database.connect() as connection:
        [ribbon] = [str(product["id"]) for product in products() if "S015013" in product["title"]]
        load_catalog(connection, only={ribbon, *sorted(load_judgments().object_ids)[:150]})
        connection.commit()
    initialize("demo_catalog", shards=1)
    release("demo_catalog", "1", "second", shards=1)


def run(command: str, folder: Path, **environment: str) -> str:
    """Run a command of the README with this environment's `estudio`, and return what it prints."""
    words = shlex.split(command)
    assert words[0] == ".venv/bin/estudio"
    done = subprocess.run(
        [sys.executable, "-m", "estudio_core.cli", *words[1:]],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def matching(beginning: str) -> str:
    """Return the README's command that begins like this."""
    [command] = [command for command in COMMANDS if command.startswith(beginning)]
    return command


def test_the_readme_has_no_command_that_no_test_knows() -> None:
    known = ("make demo", "make test", "make up", "make down", ".venv/bin/estudio ")
    assert [command for command in COMMANDS if not command.startswith(known)] == []


@pytest.mark.parametrize("target", sorted({c.split()[1] for c in COMMANDS if c.startswith("make ")} | {"setup"}))
def test_every_make_target_of_the_readme_exists(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("demo_installation")
def test_search_sync_releases_rollback_and_doctor_work_as_the_readme_says() -> None:
    charger = matching('.venv/bin/estudio search "usb c charger"')
    assert "release 2" in run(charger, PROJECT)
    assert "release 2" in run(matching('.venv/bin/estudio search "cable"'), PROJECT)
    found = run(matching('.venv/bin/estudio search "S015013"'), PROJECT)
    assert re.search(r"(?m)^\s*1 .*20554", found), found
    assert "0 deleted, 151 unchanged" in run(matching(".venv/bin/estudio sync"), PROJECT).replace("\n", " ")
    listed = run(matching(".venv/bin/estudio releases"), PROJECT)
    assert "live" in listed
    assert "previous" in listed
    assert "Release 1 of demo_catalog is live again" in run(matching(".venv/bin/estudio rollback"), PROJECT)
    assert "release 1" in run(charger, PROJECT)
    assert "missing" not in run(matching(".venv/bin/estudio doctor"), PROJECT)


def test_the_plugin_of_the_readme_is_written_validated_and_what_the_readme_shows(
    estudio_home: Path, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TABLE books (isbn text PRIMARY KEY, title text, blurb text, year int)")
        connection.execute("INSERT INTO books VALUES ('9-1', 'A lamp', 'On light.', 1999), ('9-2', 'Soil', NULL, 2003)")
    folders = {"ESTUDIO_PLUGINS_PATH": str(tmp_path / "plugins"), "AIRFLOW_CONN_LIBRARY": database_url}
    run(matching(".venv/bin/estudio plugins new"), tmp_path, **folders)
    validated = run(matching(".venv/bin/estudio plugins validate"), tmp_path, **folders)
    assert "2 loaded and split" in validated
    [shown] = [block for language, block in BLOCKS if language == "python"]
    (tmp_path / "shown.py").write_text(shown)
    [in_readme] = definitions_in(import_plugin_file(tmp_path / "shown.py"))
    [written] = definitions_in(import_plugin_file(tmp_path / "plugins" / "custom" / "books.py"))
    assert in_readme.meta == written.meta
    monkeypatch.setenv("AIRFLOW_CONN_LIBRARY", database_url)
    for plugin in (in_readme, written):
        [item] = plugin.loader.find_items([ItemMeta(object_id="9-1")]).items
        assert item.data == {"title": "A lamp", "blurb": "On light."}


def test_the_tree_that_the_readme_describes_is_there() -> None:
    for folder in re.findall(r"^\| `([a-z_]+/)` \|", README, re.MULTILINE):
        assert (PROJECT / folder).is_dir(), folder
    for path in re.findall(r"`(estudio_core/[\w/.]+\.(?:py|md))`", README):
        assert (PROJECT / path).is_file(), path
