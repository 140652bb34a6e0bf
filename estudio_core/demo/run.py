"""`make demo`: people search and click, and some sessions later the search is better. The people are simulated."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from estudio_core import database, local
from estudio_core.artifacts import ArtifactStore
from estudio_core.database import migrate
from estudio_core.demo.catalog import load_catalog, load_judgments
from estudio_core.demo.follow import follow
from estudio_core.demo.last_screen import Loop, show_last_screen
from estudio_core.demo.online import end_what_is_left, prove_online, worth_proving
from estudio_core.demo.people import SimulatedPeople, Traffic, plan_visits, still_to_make
from estudio_core.demo.traffic import key_of, let_them_search, page_key, visits_made
from estudio_core.errors import ConfigurationError
from estudio_core.local.http_service import NAME as SERVICE
from estudio_core.local.installation import RUN_COMPONENTS, START_TIMEOUT_S
from estudio_core.settings import get_settings
from estudio_core.vectordb.releases import live_release, require_live

if TYPE_CHECKING:
    from rich.console import Console

    from estudio_core.evaluation.judgments import Judgments
    from estudio_core.evaluation.report_data import EvaluationReport
    from estudio_core.local import RunState
    from estudio_core.vectordb.releases import Release

PLUGIN = "demo_catalog"
SESSIONS = 4_000
"""Simulated searches before the training."""
AGAIN = "make demo goes on where this one ended; .venv/bin/estudio demo --fresh begins anew."


@dataclass(frozen=True)
class DemoOutcome:
    """What the demo did.

    Attributes:
        promoted: Whether what was learned is live.
        report: Folder of the evaluation.
        seconds: All in all.
    """

    promoted: bool
    report: Path
    seconds: float


def run_demo(console: Console, *, fresh: bool = False) -> DemoOutcome:
    """Index the catalog, let simulated people search and click, learn from that, and release what is better.

    Safe to run again: what is there is used, and a further run learns from where the last one ended. Whatever goes
    wrong, nothing that it started is left running; afterwards the search page is.

    Raises:
        ConfigurationError: the working folder is not the project's, or the service's packages are missing.
        RunFailedError: a DAG run failed; the message holds the end of the failing task's log.
        UnavailableError: a part does not start, or the service does not answer.
    """
    began = time.monotonic()
    home = get_settings().home.expanduser().resolve()
    if not Path("dags", f"{PLUGIN}.py").is_file():
        raise ConfigurationError("The demo runs in the project's folder, where dags/ and plugins/ are.")
    if fresh and home.exists():
        local.stop_all(home)
        shutil.rmtree(home)
    running = {service.name for service in local.inspect(home).services if service.running}
    console.rule("[bold]Estudio: semantic search that learns from its users")
    finished = False
    try:
        environment = _start(console, home)
        _initialize(console)
        end_what_is_left(console, PLUGIN)
        address = _serve(console, home, environment)
        judgments = load_judgments().answerable()
        with key_of("the demo's simulated people", PLUGIN) as key:
            people = SimulatedPeople(address, key, PLUGIN, judgments)
            searches = _search(console, people, judgments)
            state, folder = _fine_tune(console)
            report = _report_in(folder)
            experiment, further = None, Traffic()
            if worth_proving(report.decision):
                experiment, further = prove_online(console, PLUGIN, _run_id("experiment"), people, judgments)
        loop = Loop(
            searches=searches,
            training_s=next((task.duration_s for task in state.tasks if task.task_id == "train"), None),
            report=report,
            experiment=experiment,
            further=further,
            live=_live(),
            folder=folder,
            page=f"{address}/ui/{PLUGIN}#key={page_key(PLUGIN)}",
        )
        finished = True
    finally:
        if not running - {SERVICE}:
            console.print("[dim]Stopping what the demo started…[/]")
            local.stop_all(home, keep_service=finished or SERVICE in running)
        if not finished:
            console.print(AGAIN, highlight=False)
    show_last_screen(console, loop)
    seconds = time.monotonic() - began
    console.print(f"[dim]{seconds / 60:.1f} minutes in all.[/]")
    return DemoOutcome(loop.promoted, folder, seconds)


def _start(console: Console, home: Path) -> dict[str, str]:
    """Load the catalog and start Airflow's processes; return the environment of all parts."""
    with console.status("Preparing database and Airflow…"):
        environment = local.ensure_airflow(home)
        migrate()
        services = local.start_airflow(environment, home=home, components=RUN_COMPONENTS, wait=False)
        with database.connect() as connection:
            catalog = load_catalog(connection)
            connection.commit()
        console.print(f"Table [bold]products[/]: {catalog.total:,} real products.")
        local.wait_until_healthy(services, timeout_s=START_TIMEOUT_S)
    console.print("Airflow runs: API server, scheduler, DAG processor.")
    return environment


def _initialize(console: Console) -> None:
    """Make the base model live, where nothing is."""
    with database.transaction() as connection:
        live = live_release(connection, PLUGIN)
    if live is None:
        dag_id = f"{PLUGIN}__initialize"
        run_id = local.trigger(dag_id, run_id=_run_id("initialize"))
        follow(console, f"{dag_id}: base model, ONNX, index", dag_id, run_id)


def _serve(console: Console, home: Path, environment: dict[str, str]) -> str:
    """Start the HTTP service; return its address."""
    with console.status("Starting the service…"):
        service = local.start_service(environment, home=home, project=Path.cwd())
        if service is None or service.address is None:
            raise ConfigurationError(
                "The demo searches over HTTP. Install what that needs: pip install 'estudio[service]'"
            )
        local.wait_until_healthy([service], timeout_s=START_TIMEOUT_S)
    console.print(f"The service answers at {service.address}.")
    return service.address


def _search(console: Console, people: SimulatedPeople, judgments: Judgments) -> Traffic:
    """Let simulated people search the live release, as many times as are missing; return what they did now."""
    live = _live()
    name = f"simulated-r{live.release_id}"
    visits = still_to_make(plan_visits(judgments, SESSIONS, name), visits_made(PLUGIN, name))
    title = f"[bold]Simulated[/] people search release {live.release_id} over HTTP, and click as human ratings say"
    return let_them_search(console, title, people, visits)


def _live() -> Release:
    with database.transaction() as connection:
        return require_live(connection, PLUGIN)


def _fine_tune(console: Console) -> tuple[RunState, Path]:
    """Learn from the clicks; return how the run went, and the folder of the evaluation.

    Nothing goes live by it: whatever the gate does not refuse is proven online first.
    """
    dag_id = f"{PLUGIN}__fine_tune"
    # Simulated clicks come at once: there is none to wait for.
    given = {"settle_minutes": 0, "promotion": "manual"}
    run_id = local.trigger(dag_id, given, run_id=_run_id("fine_tune"))
    state = follow(console, f"{dag_id}: learn from clicks, evaluate, decide", dag_id, run_id)
    return state, Path(ArtifactStore().uri(PLUGIN, run_id, "evaluation"))


def _report_in(folder: Path) -> EvaluationReport:
    from estudio_core.evaluation.report_data import EvaluationReport

    return EvaluationReport.model_validate(json.loads((folder / "report.json").read_text()))


def _run_id(kind: str) -> str:
    return f"demo_{kind}_{datetime.now(UTC):%Y%m%dT%H%M%S}"
