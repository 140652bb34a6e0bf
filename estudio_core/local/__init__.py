"""The parts of an installation on one machine: embedded database, Airflow, MLflow's interface, and runs on them."""

from estudio_core.local.airflow_home import ensure_airflow
from estudio_core.local.commands import down, parts, status, up
from estudio_core.local.installation import (
    RUN_COMPONENTS,
    Installation,
    inspect,
    start_airflow,
    start_all,
    start_mlflow,
    start_service,
    stop_all,
)
from estudio_core.local.runs import AirflowApi, RunFailedError, RunState, TaskState, trigger, wait
from estudio_core.local.services import Service, ServiceStatus, wait_until_healthy

__all__ = [
    "RUN_COMPONENTS",
    "AirflowApi",
    "Installation",
    "RunFailedError",
    "RunState",
    "Service",
    "ServiceStatus",
    "TaskState",
    "down",
    "ensure_airflow",
    "inspect",
    "parts",
    "start_airflow",
    "start_all",
    "start_mlflow",
    "start_service",
    "status",
    "stop_all",
    "trigger",
    "up",
    "wait",
    "wait_until_healthy",
]
