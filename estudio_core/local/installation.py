"""Start, stop and inspect everything that a person looks at on one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from estudio_core import embedded_postgres
from estudio_core.database import forget_pools, migrate
from estudio_core.local import services
from estudio_core.local.airflow_home import (
    COMPONENTS,
    airflow_services,
    api_address,
    ensure_airflow,
    secrets_folder,
)
from estudio_core.local.database_part import DatabaseStatus, database_status
from estudio_core.local.generated_secrets import ADMIN_USER, admin_password_file
from estudio_core.local.http_service import http_service, is_installed
from estudio_core.local.mlflow_ui import is_local_store, mlflow_service
from estudio_core.local.ports import PREFERRED_PORTS, choose_port, remembered_port
from estudio_core.local.services import Service, ServiceStatus
from estudio_core.local.triton_part import (
    metrics_address,
    must_install_triton,
    start_triton,
    stop_triton,
    triton_status,
)
from estudio_core.redaction import redact
from estudio_core.settings import get_settings

START_TIMEOUT_S = 360.0
"""Four Airflow processes need about 30 s on two idle cores; 145 s were seen with ten other processes computing."""

RUN_COMPONENTS = ("api-server", "scheduler", "dag-processor")
"""What is needed to run DAGs whose tasks are not deferred."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Installation:
    """Addresses of a running installation."""

    home: Path
    database: DatabaseStatus
    airflow: str | None
    mlflow: str | None
    triton: str | None
    triton_metrics: str | None
    service: str | None
    admin_user: str
    password_file: Path
    services: list[ServiceStatus]


def start_airflow(
    environment: dict[str, str],
    *,
    home: Path | None = None,
    project: Path | None = None,
    components: Iterable[str] = COMPONENTS,
    wait: bool = True,
    tell: Tell | None = None,
) -> list[Service]:
    """Start Airflow's `components` with `environment` from `ensure_airflow`; those that run stay as they are.

    With `wait=False` it returns at once; `services.wait_until_healthy(result, …)` waits later. What tasks see in their
    environment is fixed at this moment: changed settings need a stop and a start.

    Raises:
        UnavailableError: a process ends or is not ready within `START_TIMEOUT_S`.
    """
    home, project = _home(home), _project(project)
    everything = airflow_services(environment, home=home, project=project)
    server = everything[0]
    if services.running(server):
        port = remembered_port(home, "airflow") or PREFERRED_PORTS["airflow"]
    else:
        services.stop(*everything[1:])  # parts left over from before hold the address of a server that is gone
        port = choose_port(home, "airflow")
    environment = {**environment, **api_address(port)}
    chosen = airflow_services(environment, home=home, project=project, components=components)
    for service in chosen:
        services.start(service)
    if wait:
        services.wait_until_healthy(chosen, timeout_s=START_TIMEOUT_S, on_update=_ready(tell))
    return chosen


def start_mlflow(*, home: Path | None = None, wait: bool = True, tell: Tell | None = None) -> Service | None:
    """Start MLflow's web interface over the local store; None where MLflow runs elsewhere.

    Raises:
        UnavailableError: it ends or is not ready within `START_TIMEOUT_S`.
    """
    home = _home(home)
    service = _mlflow(home)
    if service is None:
        return None
    if not services.running(service):
        service = mlflow_service(home, tracking_uri=get_settings().tracking_uri, port=choose_port(home, "mlflow"))
        services.start(service)
    if wait:
        services.wait_until_healthy([service], timeout_s=START_TIMEOUT_S, on_update=_ready(tell))
    return service


def start_service(environment: dict[str, str], *, home: Path, project: Path) -> Service | None:
    """Start the HTTP service with the environment of `ensure_airflow`; None where its packages are not installed."""
    if not is_installed():
        return None
    service = _service(home, project)
    if not services.running(service):
        settings = {name: value for name, value in environment.items() if name.startswith("ESTUDIO_")}
        service = http_service(home, project=project, port=choose_port(home, "service"), environment=settings)
        services.start(service)
    return service


def start_all(
    home: Path | None = None, *, project: Path | None = None, tell: Tell | None = None, triton: bool = True
) -> Installation:
    """Start database, Airflow, MLflow's interface, Triton and the service; return their addresses once they work.

    Running parts are left alone. `tell` receives a line whenever something is ready. Triton may be missing where this
    machine cannot run it and nothing needs it.

    Raises:
        ConfigurationError: `project` has no `dags` folder, or Estudio's tables cannot be made.
        UnavailableError: a part does not start; the message carries the end of its log.
    """
    home, project = _home(home), _project(project)
    environment = ensure_airflow(home, project=project)
    migrate(environment["ESTUDIO_DATABASE_URL"])
    if tell is not None:
        tell("database is ready")
    mlflow = start_mlflow(home=home, wait=False)
    if mlflow is not None and mlflow.address is not None:
        environment.setdefault("ESTUDIO_MLFLOW_URL", mlflow.address)  # where links of tasks lead
    started = start_airflow(environment, home=home, project=project, wait=False)
    if triton:
        if tell is not None and must_install_triton():
            tell(
                "triton is installed now, once: about 500 MB into "
                f"{get_settings().triton_environment}, one to three minutes; the rest starts meanwhile"
            )
        absent = start_triton()
        if tell is not None:
            tell("triton is ready" if absent is None else f"triton is left out: {absent}")
    service = start_service(environment, home=home, project=project)
    services.wait_until_healthy(
        [*started, *(part for part in (mlflow, service) if part)], timeout_s=START_TIMEOUT_S, on_update=_ready(tell)
    )
    return inspect(home, project=project)


def stop_all(home: Path | None = None, *, keep_database: bool = False, keep_service: bool = False) -> list[str]:
    """Stop everything that `start_all` started in `home`, the embedded database last; return the names.

    Running tasks get `Service.stop_timeout_s` seconds to end. `keep_service` leaves what searches need: the HTTP
    service, what encodes for it, and the database.
    """
    keep_database = keep_database or keep_service
    home = _home(home)
    server, *workers = airflow_services(api_address(0), home=home, project=home)
    mlflow = _mlflow(home)
    service = _service(home, home)
    stopped = services.stop(*workers, *([] if keep_service else [service]), *([mlflow] if mlflow else []))
    stopped += services.stop(server)  # tasks that are ending report their state to it
    if not keep_service:
        stopped += stop_triton(home)
    if not keep_database:
        forget_pools()  # this process would go on looking for a server that is gone
    if not keep_database and (home / "postgres").exists() and embedded_postgres.stop(home / "postgres"):
        stopped.append("database")
    return stopped


def inspect(home: Path | None = None, *, project: Path | None = None) -> Installation:
    """Return addresses and states of the parts of the installation in `home`."""
    home = _home(home)
    port = remembered_port(home, "airflow") or PREFERRED_PORTS["airflow"]
    parts = airflow_services(api_address(port), home=home, project=_project(project))
    mlflow = _mlflow(home)
    served = [_service(home, _project(project))] if is_installed() else []
    states = [services.status(service) for service in [*parts, *([mlflow] if mlflow else []), *served]]
    triton = triton_status(home)
    states += [triton] if triton else []
    running = {state.name: state for state in states if state.running}
    tracking_uri = get_settings().tracking_uri
    return Installation(
        home=home,
        database=database_status(home),
        airflow=running["airflow-api-server"].address if "airflow-api-server" in running else None,
        mlflow=redact(tracking_uri) if mlflow is None else (running["mlflow"].address if "mlflow" in running else None),
        triton=triton.address if triton else None,
        triton_metrics=metrics_address(home),
        service=running["service"].address if "service" in running else None,
        admin_user=ADMIN_USER,
        password_file=admin_password_file(secrets_folder(home)),
        services=states,
    )


def _service(home: Path, project: Path) -> Service:
    return http_service(home, project=project, port=remembered_port(home, "service") or PREFERRED_PORTS["service"])


def _mlflow(home: Path) -> Service | None:
    tracking_uri = get_settings().tracking_uri
    if not is_local_store(tracking_uri):
        return None
    return mlflow_service(
        home, tracking_uri=tracking_uri, port=remembered_port(home, "mlflow") or PREFERRED_PORTS["mlflow"]
    )


def _ready(tell: Tell | None) -> Callable[[str], None] | None:
    return None if tell is None else lambda name: tell(f"{name} is ready")


def _home(home: Path | None) -> Path:
    return (home or get_settings().home).expanduser().resolve()


def _project(project: Path | None) -> Path:
    return (project or Path.cwd()).resolve()
