"""`estudio init` beside a real Airflow: what is missing is made, what is there stays, what cannot be done is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, text

from estudio_core import migrations
from estudio_core.database import migrate
from tests.e2e.conftest import AirflowInstallation

pytestmark = pytest.mark.e2e

WRITTEN = ("--plugin", "books", "--table", "books", "--id-column", "isbn", "--text", "title", "--text", "blurb")


def init(environment: dict[str, str], *arguments: str, folder: Path) -> tuple[int, dict[str, tuple[str, str, str]]]:
    """Run the command; return its status, and state, detail and mend by what was looked at."""
    done = subprocess.run(
        [sys.executable, "-m", "estudio_core.cli", "init", "--json", *arguments],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.stdout.startswith("["), done.stdout + done.stderr
    steps: list[dict[str, Any]] = json.loads(done.stdout)
    return done.returncode, {step["what"]: (step["state"], step["detail"], step["mend"]) for step in steps}


def doctor(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """Return what `estudio doctor` says of pools."""
    said = subprocess.run(
        [sys.executable, "-m", "estudio_core.cli", "doctor", "--json"],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    ).stdout
    return {each["what"]: each["state"] for each in json.loads(said) if each["what"].startswith("pool")}


def test_it_makes_what_is_missing_and_nothing_twice(
    airflow: AirflowInstallation, database_url: str, tmp_path: Path
) -> None:
    metadata = create_engine(airflow.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    with metadata.begin() as connection:
        connection.execute(text("DELETE FROM slot_pool WHERE pool = 'estudio_index'"))
        connection.execute(text("UPDATE slot_pool SET slots = 3 WHERE pool = 'estudio_training'"))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS estudio CASCADE")
    bundles = [
        {"name": "team", "classpath": "airflow.providers.git.bundles.git.GitDagBundle", "kwargs": {"subdir": "dags"}},
        {
            "name": "search",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(tmp_path / "search dags")},
        },
    ]
    environment = airflow.environment | {
        "ESTUDIO_DATABASE_URL": database_url,
        "ESTUDIO_HOME": "state",
        "ESTUDIO_PLUGINS_PATH": str(tmp_path / "plugins"),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
    }
    assert doctor(environment, tmp_path) == {"pool estudio_index": "missing"}
    status, steps = init(environment, *WRITTEN, folder=tmp_path)
    assert status == 0, steps
    assert doctor(environment, tmp_path) == {"pools": "ok"}
    states = {what: state for what, (state, _, _) in steps.items()}
    roles = states.pop("roles")
    assert roles in {"made", "found"}, "roles are those of the server, which tests share"
    assert states == {
        "tables": "made",
        "pool estudio_training": "found",
        "pool estudio_index": "made",
        "plugin books": "made",
        "DAGs of books": "made",
        "variables": "made",
    }
    with metadata.connect() as connection:
        slots = dict(connection.execute(text("SELECT pool, slots FROM slot_pool")).tuples().all())
    assert (slots["estudio_training"], slots["estudio_index"]) == (3, 1), "a pool that is there stays as it is"
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT version_num FROM estudio.alembic_version").fetchone()
        assert row == (migrations.newest(),)
        assert connection.execute("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'estudio\\_%'").fetchone() == (3,)
    stub, plugin = tmp_path / "search dags" / "books.py", tmp_path / "plugins" / "custom" / "books.py"
    assert 'build_dags("books")' in stub.read_text()
    assert 'text=("title", "blurb")' in plugin.read_text()
    variables = tmp_path / "state" / "estudio.env"
    assert variables.stat().st_mode & 0o777 == 0o600
    read = subprocess.run(
        ["sh", "-c", f"set -a; . '{variables}'; env"], capture_output=True, text=True, check=True, env={}, cwd="/"
    ).stdout.splitlines()
    assert f"ESTUDIO_DATABASE_URL={database_url}" in read
    assert f"ESTUDIO_HOME={tmp_path / 'state'}" in read
    assert f"ESTUDIO_PLUGINS_PATH={tmp_path / 'plugins'}" in read
    assert f"ESTUDIO_TRITON_REPOSITORY={environment['ESTUDIO_TRITON_REPOSITORY']}" in read

    stub.rename(stub.with_name("other_name.py"))
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    status, steps = init(environment, "--plugin", "books", folder=tmp_path)
    assert status == 0, steps
    assert {state for state, _, _ in steps.values()} == {"found"}
    assert steps["DAGs of books"][1].endswith("other_name.py")
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()} == before


def test_what_cannot_be_done_is_named_with_what_does_it(
    airflow: AirflowInstallation, database_url: str, tmp_path: Path
) -> None:
    migrate(database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS init_plain")
        connection.execute("CREATE ROLE init_plain LOGIN PASSWORD 'init-plain-9'")
        connection.execute("GRANT USAGE ON SCHEMA estudio TO init_plain")
        connection.execute("GRANT SELECT ON estudio.alembic_version TO init_plain")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "broken.py").write_text("x = (\n")
    (tmp_path / "plugins" / "shop.py").write_text(
        "from estudio_core import PostgresItems, create_text_plugin\n"
        "plugin = create_text_plugin('shop', items=PostgresItems(table='products', text='title'), model='none')\n"
    )
    environment = airflow.environment | {
        "ESTUDIO_DATABASE_URL": f"{database_url}&user=init_plain&password=init-plain-9",
        "ESTUDIO_HOME": str(tmp_path / "state"),
        "ESTUDIO_PLUGINS_PATH": str(tmp_path / "plugins"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path / 'empty.db'}",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": '[{"name": "team", "classpath": "a.Git", "kwargs": {}}]',
    }
    status, steps = init(environment, folder=tmp_path)
    assert status == 1
    assert steps["tables"][0] == "found"
    assert steps["roles"][0] == "left"
    assert "permission denied" in steps["roles"][1]
    assert "estudio init --no-roles" in steps["roles"][2]
    state, detail, mend = steps["pool estudio_index"]
    assert state == "left"
    assert "no such table: slot_pool" in detail
    assert "airflow db migrate" in mend
    assert "airflow pools set estudio_index 1 'Embedding of items and building of indexes'" in mend
    assert "broken.py, line 1" in steps["plugin"][1]
    state, detail, mend = steps["DAGs of shop"]
    assert (state, detail) == ("left", "no DAG bundle of this Airflow is a local folder: team (a.Git)")
    code = mend.partition("bundle: ")[2]
    assert "Airflow" in code, "Airflow reads no file without that word"
    compile(code, "shop.py", "exec")
    assert steps["variables"][0] == "made", "the other steps are taken"
