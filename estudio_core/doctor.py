"""What of an installation is installed, reachable and missing."""

from __future__ import annotations

import difflib
import importlib.util
import os
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from dotenv import dotenv_values

from estudio_core import database, migrations
from estudio_core.errors import EstudioError, SchemaVersionError
from estudio_core.experiments.installation import PREFIX
from estudio_core.migrations.check import demands
from estudio_core.redaction import redact
from estudio_core.settings import Settings, get_settings
from lightning_modules.config import TrainingConfig


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `mend` is the command or setting that helps."""

    what: str
    state: Literal["ok", "note", "missing"]
    detail: str
    mend: str = ""


_PACKAGES = {
    "apache-airflow": "airflow",
    **dict.fromkeys(("torch", "lightning", "transformers", "sentence-transformers", "mlflow", "onnx"), "train"),
}
"""The extra that each comes with. Who searches and writes needs none of them."""
_MINIMUM_FREE_GB = 2
_FURTHER_VARIABLES = {"ESTUDIO_KEY", "ESTUDIO_SERVICE_DRAIN_S", "ESTUDIO_SERVICE_RATES_FILE"}
"""Read by commands and by the service's own processes, beside the settings."""


def examine() -> list[Finding]:
    """Look at packages, database and its tables, MLflow store, model repository, artifacts, plugins and inference."""
    findings = [_package(name) for name in _PACKAGES]
    findings.append(_onnxruntime())
    findings.append(_ray())
    findings.extend(_variables())
    findings.append(_database())
    findings.extend(_demands())
    findings.append(_tables())
    findings.append(_writable("model repository", get_settings().triton_repository, "ESTUDIO_TRITON_REPOSITORY"))
    findings.append(_writable("local state", get_settings().home, "ESTUDIO_HOME"))
    findings.append(_tracking())
    findings.append(_inference())
    findings.extend(_plugins())
    findings.extend(_pools())
    return findings


def _pools() -> list[Finding]:
    """Name pools that Airflow has not: tasks in them wait for ever, without a word."""
    from estudio_core.local.airflow_connection import command_environment
    from estudio_core.local.airflow_facts import ask_airflow
    from estudio_core.local.airflow_home import POOLS

    try:
        environment = command_environment()
        if environment is None:
            return []  # Airflow is not set up here; `estudio up` makes the pools
        airflow = ask_airflow({}, {**os.environ, **environment})
    except EstudioError as error:
        return [Finding("pools", "note", str(error), "estudio up")]
    if airflow is None:
        return []  # said above, by the packages
    if airflow.problem:
        return [Finding("pools", "note", f"Airflow's database says: {airflow.problem}", "estudio up")]
    missing = [name for name in POOLS if not airflow.slots.get(name)]
    if not missing:
        return [Finding("pools", "ok", ", ".join(f"{name} {airflow.slots[name]}" for name in POOLS))]
    what = "Airflow has none, or one without slots: its tasks wait for ever"
    return [Finding(f"pool {name}", "missing", what, f"estudio airflow pools set {name} 1 Estudio") for name in missing]


def _package(name: str) -> Finding:
    try:
        return Finding(name, "ok", version(name))
    except PackageNotFoundError:
        use = "DAGs" if _PACKAGES[name] == "airflow" else "tasks"
        return Finding(
            name, "note", f"not installed; needed where {use} run", f"pip install 'estudio[{_PACKAGES[name]}]'"
        )


def _onnxruntime() -> Finding:
    for name in ("onnxruntime-gpu", "onnxruntime"):
        try:
            return Finding(name, "ok", version(name))
        except PackageNotFoundError:
            continue
    return Finding("onnxruntime", "missing", "not installed", "pip install estudio")


def _ray() -> Finding:
    if importlib.util.find_spec("ray"):
        return Finding("ray", "ok", version("ray"))
    return Finding("ray", "note", "not installed; runs with one trial need none", "pip install 'estudio[ray]'")


def _variables() -> list[Finding]:
    """Name variables that look like settings and are none: a misspelt one sets nothing, without a word."""
    legal = {f"ESTUDIO_{name.upper()}" for name in Settings.model_fields} | _FURTHER_VARIABLES
    legal |= {PREFIX + name.upper() for name in TrainingConfig.settable("installation")}
    given = {name.upper() for name in (*os.environ, *dotenv_values(".env")) if name.upper().startswith("ESTUDIO_")}
    found = []
    for name in sorted(given - legal):
        names = {each.removeprefix("ESTUDIO_"): each for each in legal}  # which all have in common
        near = difflib.get_close_matches(name.removeprefix("ESTUDIO_"), names, n=1)
        mend = f"did you mean {names[near[0]]}?" if near else "see docs/settings.md"
        found.append(Finding("variable", "note", f"{name} is set, and nothing reads it", mend))
    return found


def _database() -> Finding:
    configured = get_settings().database_url is not None
    what = "database" if configured else "database (embedded)"
    try:
        with database.connect() as connection:
            row = connection.execute(
                "SELECT current_setting('server_version'), "
                "(SELECT extversion FROM pg_extension WHERE extname = 'vector')"
            ).fetchone()
        assert row is not None
        return Finding(what, "ok", f"PostgreSQL {row[0]}, pgvector {row[1]}")
    except EstudioError as error:
        mend = "correct ESTUDIO_DATABASE_URL, or start that server" if configured else "pip install 'estudio[embedded]'"
        return Finding(what, "missing", str(error), mend)


def _demands() -> list[Finding]:
    try:
        with database.connect() as connection:
            return [Finding("database", "missing", each.problem, each.mend) for each in demands(connection)]
    except EstudioError:
        return []  # told by what looks at the database itself


def _tables() -> Finding:
    try:
        with database.connect() as connection:
            found = database.require_schema(connection)
            database.require_pgvector(connection)
        return Finding("tables", "ok", f"version {found}, {migrations.newest()} is needed")
    except SchemaVersionError as error:
        return Finding("tables", "missing", *str(error).split(" Run: "))
    except EstudioError as error:
        return Finding("tables", "missing", str(error))


def _writable(what: str, path: os.PathLike[str], variable: str) -> Finding:
    folder = os.path.abspath(path)
    existing = folder
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        return Finding(what, "missing", f"{existing} is no folder", f"set {variable} to another folder")
    if not os.access(existing, os.W_OK):
        return Finding(what, "missing", f"{folder} is not writable", f"chown it, or set {variable} to another folder")
    free_gb = shutil.disk_usage(existing).free / 1e9
    if free_gb < _MINIMUM_FREE_GB:
        return Finding(what, "missing", f"{folder} has {free_gb:.1f} GB left", f"free space, or set {variable}")
    return Finding(what, "ok", f"{folder}, {free_gb:.0f} GB free")


def _tracking() -> Finding:
    uri = redact(get_settings().tracking_uri)
    try:
        from estudio_core.context import context

        context.mlflow_client.call(lambda client: client.search_experiments(max_results=1))
        return Finding("MLflow", "ok", uri)
    except EstudioError as error:
        return Finding("MLflow", "missing", str(error), "correct ESTUDIO_MLFLOW_TRACKING_URI, or start that server")


def _inference() -> Finding:
    settings = get_settings()
    from estudio_core.inference.released import live_models

    if settings.inference == "embedded":
        return _inference_in_process(sorted(live_models()))
    from estudio_core.inference.triton_control import TritonControl

    url = f"{settings.inference_host}:{settings.inference_grpc_port}"
    control = TritonControl(url)
    try:
        models = control.check_loaded(settings.triton_repository, live_models())
    except EstudioError as error:
        return Finding("inference", "missing", str(error), "start Triton, or set ESTUDIO_INFERENCE=embedded")
    finally:
        control.close()
    return Finding("inference", "ok", f"Triton at {url}, serving {', '.join(models) or 'no model yet'}")


def _inference_in_process(models: list[str]) -> Finding:
    from estudio_core.inference.opening import open_query_embedder

    try:
        for name in models:
            open_query_embedder(name)
    except EstudioError as error:
        return Finding("inference", "missing", str(error), "run the release of that version again")
    return Finding("inference", "ok", f"ONNX Runtime, in process, serving {', '.join(models) or 'no model yet'}")


def _plugins() -> list[Finding]:
    from estudio_core.context import context

    manager = context.plugin_manager
    names = manager.plugin_names
    found = (
        Finding("plugins", "ok", ", ".join(names))
        if names
        else Finding(
            "plugins", "note", f"none in {manager.path}", "estudio plugins new NAME --table TABLE --text COLUMN"
        )
    )
    broken = [Finding("plugin", "missing", problem, "correct the file") for problem in manager.errors.values()]
    return [found, *broken, *_orphans(names if not broken else None)]


def _orphans(names: list[str] | None) -> list[Finding]:
    """Name what is kept for plugins that are gone; nothing is said while a broken file may define any."""
    from estudio_core.promotion.removal import orphans

    if names is None:
        return []
    try:
        with database.connect() as connection:
            database.require_schema(connection)
            gone = orphans(connection, set(names))
    except EstudioError:
        return []  # told by what looks at the database itself
    what = "releases or requests of {!r}, which no file defines"
    return [Finding("orphans", "note", what.format(name), f"estudio plugins remove {name}") for name in gone]
