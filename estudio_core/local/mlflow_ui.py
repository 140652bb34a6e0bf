"""MLflow's server with its web interface over the local tracking store."""

from __future__ import annotations

import sys
from pathlib import Path

from estudio_core.local.ports import LOOPBACK
from estudio_core.local.services import Service, answers_at


def mlflow_service(home: Path, *, tracking_uri: str, port: int) -> Service:
    """Return the MLflow server over the database `tracking_uri`, listening on the loopback interface only."""
    address = f"http://{LOOPBACK}:{port}"
    return Service(
        name="mlflow",
        argv=(
            *(sys.executable, "-m", "mlflow", "server"),
            *("--host", LOOPBACK, "--port", str(port), "--workers", "1"),
            *("--allowed-hosts", f"{LOOPBACK}:{port},localhost:{port}"),
            *("--artifacts-destination", str(home.resolve() / "mlflow-artifacts")),
        ),
        folder=home.resolve() / "services",
        healthy=answers_at(f"{address}/health"),
        environment={
            "MLFLOW_BACKEND_STORE_URI": tracking_uri,  # no argument, which every user of the machine could read
            "MLFLOW_DISABLE_TELEMETRY": "true",
            # Its job runners serve evaluations of language models and cost some hundred MiB.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        working_folder=home.resolve(),
        address=address,
        stop_timeout_s=10.0,
    )


def is_local_store(tracking_uri: str) -> bool:
    """Return whether `tracking_uri` names a store that needs a server of ours to be looked at.

    >>> is_local_store("sqlite:////home/me/.estudio/mlflow.db"), is_local_store("https://mlflow.example.org")
    (True, False)
    """
    return not tracking_uri.startswith(("http://", "https://", "databricks"))
