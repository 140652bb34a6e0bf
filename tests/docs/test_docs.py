"""The documentation builds without a warning, its code runs, and its commands, settings and DAGs exist."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from estudio_core import database
from estudio_core.cli import app
from estudio_core.clickstream.store import ClickstreamStore
from estudio_core.dag_factory.notices import callbacks, deadlines
from estudio_core.plugin.discovery import read_card
from estudio_core.plugin.places import definitions_in, import_plugin_file
from estudio_core.plugin.plugin import Plugin
from estudio_core.settings import Settings
from lightning_modules.config import TrainingConfig

PROJECT = Path(__file__).parents[2]
PAGES = sorted((PROJECT / "docs").glob("*.md"))
BLOCKS = [
    (page.stem, language, block)
    for page in PAGES
    for language, block in re.findall(r"```(\w*)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def test_it_builds_with_strict_links(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {page.stem for page in PAGES} <= {page.stem for page in (tmp_path / "site").glob("*.html")}


def test_the_rows_and_the_call_that_are_shown_log_one_clicked_search(estudio_home: Path) -> None:
    [rows] = [block for page, kind, block in BLOCKS if kind == "sql" and page == "plugin"]
    [call] = [block for page, kind, block in BLOCKS if page == "plugin" and "ClickstreamStore(" in block]
    for _ in range(2):
        with database.transaction() as connection:
            store = ClickstreamStore(connection)
            if not store.count_sessions("books"):
                connection.execute(rows.encode())
            assert store.count_sessions("books", clicked_only=True) == 1
            [session] = store.sessions("books")
            assert [result.object_id for result in session.search_results] == ["978-1", "978-7", "978-4"]
        exec(call, {})  # the same search and click once more


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    assert {language for _, language, _ in BLOCKS} == {"bash", "python", "sql", "yaml", "dockerfile", "toml"}


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(block, id=f"{page}-{i}")
        for i, (page, kind, block) in enumerate(BLOCKS)
        if kind == "python" and page not in ("logs", "searching") and "ClickstreamStore(" not in block
    ],
)
def test_every_plugin_that_is_shown_is_one(code: str, tmp_path: Path) -> None:
    file = tmp_path / f"shown_{abs(hash(code))}.py"
    file.write_text(code, encoding="utf-8")
    [plugin] = definitions_in(import_plugin_file(file))
    assert isinstance(plugin, Plugin)
    assert read_card(plugin.meta.name, tmp_path).meta == plugin.meta
    assert plugin.make_loss().margin >= 0
    for notices in (plugin.dag.on_failure, plugin.dag.on_success, plugin.dag.on_drift):
        callbacks(notices)
    for kind in plugin.dag.deadline_minutes:
        assert deadlines(plugin.dag, kind)


def check_compose(words: list[str]) -> None:
    """`docker compose`: profiles, services, and what the backup takes."""
    services = yaml.safe_load((PROJECT / "docker-compose.yaml").read_text())["services"]
    assert words.pop(0) == "compose"
    if words[0] == "--profile":
        assert words[1] in {profile for service in services.values() for profile in service.get("profiles", [])}
        words = words[2:]
    action, *rest = [word for word in words if not word.startswith("-")]
    if action in {"run", "exec"}:
        assert rest[0] in services
        if rest[0] == "backup":
            assert f"  {rest[1]})" in (PROJECT / "deploy/helm/estudio/files/backup.sh").read_text()
        else:
            assert rest[1] == "estudio"
            assert rest[2] in get_command(app).commands  # type: ignore[attr-defined] (a group)
    elif action == "stop":
        assert set(rest) <= set(services)
    else:
        assert (action, rest) == ("up", [])


def check_helm(words: list[str]) -> None:
    """`helm install`: the chart and the values that are set."""
    assert words[0] == "install"
    assert (PROJECT / words[2] / "Chart.yaml").is_file()
    for given in (word.partition("=")[0] for before, word in itertools.pairwise(words) if before == "--set"):
        value = yaml.safe_load((PROJECT / words[2] / "values.yaml").read_text())
        for key in given.split("."):
            value = value[key]


def check_pip(words: list[str]) -> None:
    """`pip install`: extras of this project."""
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [asked] = re.findall(r"^estudio\[(.*)\]$", words[1])
    assert set(asked.split(",")) <= set(extras)
    assert f"constraints-{version('apache-airflow')}/" in words[3]


KNOWN_PROGRAMS = {"docker": check_compose, "helm": check_helm, "pip": check_pip, "export": lambda words: None}


def test_the_entry_point_that_is_shown_is_of_the_group_that_is_looked_through() -> None:
    from estudio_core.plugin.places import ENTRY_POINT_GROUP

    [shown] = [tomllib.loads(block) for _, kind, block in BLOCKS if kind == "toml"]
    assert list(shown["project"]["entry-points"]) == [ENTRY_POINT_GROUP]


@pytest.mark.parametrize(
    "command",
    sorted(
        {
            line
            for _, kind, block in BLOCKS
            if kind == "bash"
            for line in block.replace("\\\n", "").splitlines()
            if line.strip()
        }
    ),
)
def test_every_command_that_is_shown_exists(command: str) -> None:
    program, *words = shlex.split(command, comments=True)
    if program == "make":
        done = subprocess.run(["make", "-n", *words], cwd=PROJECT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return
    if program in KNOWN_PROGRAMS:
        KNOWN_PROGRAMS[program](words)
        return
    assert program in {".venv/bin/estudio", "estudio"}
    found = get_command(app)
    while hasattr(found, "commands"):
        found = found.commands[words.pop(0)]
    found.make_parser(found.make_context("check", words, resilient_parsing=True))
    options = {name for parameter in found.params for name in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options


def test_the_pod_of_a_task_is_one_that_airflow_s_executor_takes_and_mounts_what_it_declares() -> None:
    [pod] = [yaml.safe_load(block) for _, kind, block in BLOCKS if kind == "yaml"]
    assert (pod["apiVersion"], pod["kind"], pod["spec"]["restartPolicy"]) == ("v1", "Pod", "Never")
    [container] = pod["spec"]["containers"]
    assert container["name"] == "base"  # the executor sets the command of the container of this name
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    compose = yaml.safe_load((PROJECT / "docker-compose.yaml").read_text())
    places = {volume.split(":")[1] for volume in compose["x-airflow-volumes"]}
    assert {mount["mountPath"] for mount in container["volumeMounts"]} <= places
    assert all(set(source) < {"configMapRef", "secretRef"} for source in container["envFrom"])


def test_an_image_that_is_shown_starts_from_ours_and_ends_as_its_user() -> None:
    [shown] = [block.splitlines() for _, kind, block in BLOCKS if kind == "dockerfile"]
    own = (PROJECT / "Dockerfile").read_text().splitlines()
    image = yaml.safe_load((PROJECT / "docker-compose.yaml").read_text())["x-estudio"]["image"]
    assert shown[0] == f"FROM {image}"
    assert shown[-1] == next(line for line in own if line.startswith("USER"))
    assert "--constraint requirements.lock" in " ".join(shown)


def test_every_setting_and_dag_that_is_named_exists() -> None:
    from estudio_core.dag_factory import DAG_KINDS

    of_training = {f"training_{name}" for name in TrainingConfig.settable("installation")}
    named = {name.removeprefix("ESTUDIO_").lower() for name in re.findall(r"ESTUDIO_[A-Z_]+[A-Z]", TEXT)}
    assert named - {"training"} <= {*Settings.model_fields, *of_training}
    described = (PROJECT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert {f"ESTUDIO_{name.upper()}" for name in Settings.model_fields} <= set(
        re.findall(r"ESTUDIO_[A-Z_]+", described)
    )
    assert set(re.findall(r"`<plugin>__(\w+)`", TEXT)) == set(DAG_KINDS)


def test_the_table_of_training_parameters_is_that_of_their_declaration() -> None:
    import runpy

    listed = runpy.run_path(str(PROJECT / "scripts" / "list_parameters.py"))["listed"]
    page = (PROJECT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == listed(page), "docs/settings.md is old: python scripts/list_parameters.py"
