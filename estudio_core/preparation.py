"""`estudio init`: what an Airflow that is there already needs for search plugins, made where it is missing.

Each step looks first, so that running it again changes nothing; one that cannot be taken says what takes it, and the
others go on.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from estudio_core import database, migrations
from estudio_core.errors import ConfigurationError, EstudioError
from estudio_core.local.airflow_facts import AirflowFacts, ask_airflow
from estudio_core.local.airflow_home import POOLS, settings_environment
from estudio_core.migrations.check import schema_version
from estudio_core.plugin.registry import PluginManager
from estudio_core.plugin.scaffold import NewPlugin, find_stub, stub_text, write_plugin_file, write_stub
from estudio_core.settings import Settings, get_settings
from estudio_core.vectordb.roles import set_up_roles

ENVIRONMENT_FILE = "estudio.env"
_PLACES = ("home", "plugins_path", "triton_repository", "artifacts", "mlflow_tracking_uri")
"""Settings whose defaults are relative to the folder that a process runs in: tasks run in others."""


@dataclass(frozen=True)
class Step:
    """One thing that was looked at; `mend` is the command that takes a step which was left."""

    what: str
    state: Literal["made", "found", "left"]
    detail: str
    mend: str = ""


def prepare(plugin: NewPlugin | None = None, *, dags: Path | None = None, roles: bool = True) -> Iterator[Step]:
    """Yield the steps as they are taken: tables, roles, pools, plugin, DAG stubs, variables for Airflow's processes.

    Args:
        plugin: A plugin to write where no place defines one of that name.
        dags: Folder for the stubs; that of Airflow's first local DAG bundle by default.
        roles: Whether to make the roles for searching, writing and tasks.

    Raises:
        ConfigurationError: `dags` is no folder, or `plugin` is to be written and has no table or text columns.
    """
    if dags is not None and not dags.is_dir():
        raise ConfigurationError(f"{dags} is no folder. Give the one in which Airflow looks for DAG files.")
    tables = _tables()
    yield tables
    if roles and tables.state != "left":
        yield _roles()
    try:
        airflow, problem = ask_airflow(POOLS, dict(os.environ)), ""
    except EstudioError as error:
        airflow, problem = None, str(error)
    yield from _pools(airflow, problem)
    manager = PluginManager()
    if plugin is not None:
        yield _plugin(plugin, manager)
        manager = PluginManager()
    yield from _stubs(manager, dags or (airflow.stub_folder if airflow else None), airflow)
    yield _environment(get_settings())


def _tables() -> Step:
    try:
        with database.errors_named(), database.connect() as connection:
            before = schema_version(connection)
            after = database.migrate()
    except EstudioError as error:
        return Step("tables", "left", str(error), "estudio doctor")
    if before is None:
        return Step("tables", "made", f"schema estudio at version {after}")
    if before.number < migrations.newest():
        return Step("tables", "made", f"migrated from version {before.number} to {after}")
    return Step("tables", "found", f"version {after}")


def _roles() -> Step:
    try:
        with database.errors_named(), database.connect() as connection:
            made = set_up_roles(connection)
    except EstudioError as error:
        mend = "ESTUDIO_DATABASE_URL=… of a role that may: estudio roles; or go on without: estudio init --no-roles"
        return Step("roles", "left", str(error), mend)
    if made:
        return Step("roles", "made", f"{', '.join(made)}; give one to a login: GRANT estudio_reader TO web")
    return Step("roles", "found", "estudio_reader, estudio_writer, estudio_owner, with all that they may")


def _pools(airflow: AirflowFacts | None, problem: str) -> Iterator[Step]:
    if airflow is None or airflow.problem:
        why = problem or "apache-airflow is not installed in this environment"
        cure = "run where Airflow is installed: "
        if airflow is not None:
            why = f"the metadata database of Airflow {airflow.version} in {airflow.home} says: {airflow.problem}"
            cure = "airflow db migrate, with the variables of Airflow's processes (AIRFLOW_HOME), then again; or: "
        for name, (slots, description) in POOLS.items():
            command = shlex.join(["airflow", "pools", "set", name, str(slots), description])
            yield Step(f"pool {name}", "left", why, cure + command)
        return
    for name in POOLS:
        slots = airflow.slots[name]
        if slots == 0:
            again = shlex.join(["airflow", "pools", "set", name, "1", POOLS[name][1]])
            yield Step(f"pool {name}", "left", "it has no slots: its tasks would wait for ever", again)
        else:
            where = f"Airflow {airflow.version} in {airflow.home}"
            state: Literal["made", "found"] = "made" if name in airflow.made else "found"
            yield Step(f"pool {name}", state, f"{slots} slot{'s' if slots != 1 else ''} ({where})")


def _plugin(new: NewPlugin, manager: PluginManager) -> Step:
    what = f"plugin {new.name}"
    if new.name in manager.plugin_names:
        return Step(what, "found", f"{manager.place(new.name)}")
    if not new.table or not new.text:
        raise ConfigurationError(
            f"No place defines a plugin {new.name!r}. To have one written, say where its items are: "
            f"estudio init --plugin {new.name} --table TABLE --text COLUMN"
        )
    try:
        file = write_plugin_file(new, manager.path.resolve())
    except EstudioError as error:  # a file of that name that does not load, for example
        return Step(what, "left", str(error), "estudio plugins list")
    return Step(what, "made", f"{file}; check it: estudio plugins validate {new.name}")


def _stubs(manager: PluginManager, folder: Path | None, airflow: AirflowFacts | None) -> Iterator[Step]:
    names = manager.plugin_names
    for file, problem in sorted(manager.errors.items()):
        yield Step("plugin", "left", problem if file in problem else f"{file}: {problem}", "correct it, then again")
    if not names:
        mend = "estudio init --plugin NAME --table TABLE --text COLUMN"
        yield Step("plugin", "left", f"none in {manager.path.resolve()} or in installed packages", mend)
    for name in names:
        yield _stub(name, folder, airflow)


def _stub(name: str, folder: Path | None, airflow: AirflowFacts | None) -> Step:
    what = f"DAGs of {name}"
    if folder is None:
        bundles = [] if airflow is None else [f"{bundle['name']} ({bundle['classpath']})" for bundle in airflow.bundles]
        local = f"no DAG bundle of this Airflow is a local folder: {', '.join(bundles)}"
        lines = "; ".join(filter(None, stub_text(name).splitlines()))
        mend = f"estudio init --dags FOLDER, or commit a file to a bundle: {lines}"
        return Step(what, "left", local if bundles else "Airflow's folder of DAG files is not known here", mend)
    found = find_stub(name, folder) if folder.is_dir() else None
    if found is not None:
        return Step(what, "found", str(found))
    file = folder / f"{name}.py"
    if file.exists():
        return Step(what, "left", f"{file} is there and builds no DAGs of {name}", f"mv {file} elsewhere, then again")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Step(what, "made", str(write_stub(name, folder)))
    except OSError as error:
        return Step(what, "left", str(error), "estudio init --dags FOLDER, with one that may be written")


def _environment(settings: Settings) -> Step:
    what = "variables"
    named = {f"ESTUDIO_{name.upper()}" for name in (*_PLACES, *settings.model_fields_set)}
    variables = {name: value for name, value in settings_environment(settings).items() if name in named}
    content = "".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(variables.items()))
    file = settings.home.expanduser().resolve() / ENVIRONMENT_FILE
    use = f"{file}; start all of Airflow's processes with it: set -a; . {shlex.quote(str(file))}; set +a"
    try:
        if file.is_file() and file.read_text(encoding="utf-8") == content:
            return Step(what, "found", use)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as made:
            made.write(content)
        temporary.replace(file)
    except OSError as error:
        return Step(what, "left", str(error), "set ESTUDIO_HOME to a folder that may be written")
    return Step(what, "made", use)
