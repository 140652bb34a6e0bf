"""An installation with Airflow, and a small cut of the demo's catalog in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from estudio_core import database, local
from estudio_core.demo.catalog import load_catalog, load_judgments
from estudio_core.settings import get_settings
from tests.e2e.run_dags import MARK

PROJECT = Path(__file__).parents[2]
SMALL_CUT = 1200


@dataclass(frozen=True)
class DagRunResult:
    """One finished run."""

    dag_id: str
    run_id: str
    state: str
    tasks: dict[str, str]
    output: str

    def assert_success(self) -> None:
        """Fail with the end of the output unless the run succeeded."""
        assert self.state == "success", f"{self.dag_id}: {self.tasks}\n{self.output[-6000:]}"


class AirflowInstallation:
    """Airflow over the test's own installation."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = {**os.environ, **environment}

    def run(self, *runs: tuple[str, dict[str, Any]]) -> list[DagRunResult]:
        """Run DAGs one after another and return how they went."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.e2e.run_dags", json.dumps(runs)],
            cwd=PROJECT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=850,
            check=False,
        )
        output = done.stdout + done.stderr
        lines = [json.loads(line.removeprefix(MARK)) for line in done.stdout.splitlines() if line.startswith(MARK)]
        assert len(lines) == len(runs), output[-8000:]
        return [DagRunResult(**line, output=output) for line in lines]


@pytest.fixture
def airflow(estudio_home: Path, monkeypatch: pytest.MonkeyPatch) -> AirflowInstallation:
    """Airflow with its metadata database, pools and secrets, ready to run the project's DAGs."""
    monkeypatch.setenv("ESTUDIO_PLUGINS_PATH", str(PROJECT / "plugins"))
    get_settings.cache_clear()
    return AirflowInstallation(local.ensure_airflow(estudio_home, project=PROJECT))


@pytest.fixture
def small_catalog(estudio_home: Path) -> Callable[[], None]:
    """Load a small cut of the demo's products: rated ones, so that there is something to learn."""

    def load() -> None:
        ids = set(sorted(load_judgments().object_ids)[:SMALL_CUT])
        with database.connect() as connection:
            assert load_catalog(connection, only=ids).total == len(ids)
            connection.commit()

    return load
