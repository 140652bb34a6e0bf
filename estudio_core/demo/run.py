"""`make demo`: the main job on real products and human ratings, with simulated clicks, through Airflow."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.text import Text

from estudio_core import database, local
from estudio_core.artifacts import ArtifactStore
from estudio_core.database import migrate
from estudio_core.demo.catalog import demo_queries, load_catalog
from estudio_core.demo.clickstream import rankings_of, replay_clickstream
from estudio_core.demo.follow import follow
from estudio_core.errors import ConfigurationError
from estudio_core.local.installation import RUN_COMPONENTS, START_TIMEOUT_S
from estudio_core.searching import search
from estudio_core.settings import get_settings
from estudio_core.terminal import Column, show_rows
from estudio_core.vectordb.releases import live_release

if TYPE_CHECKING:
    from rich.console import Console

    from estudio_core.evaluation.report_data import EvaluationReport, QueryChange

PLUGIN = "demo_catalog"
SHOWN_RESULTS = 3


@dataclass(frozen=True)
class DemoOutcome:
    """What the demo did."""

    promoted: bool
    report: Path
    seconds: float


def run_demo(console: Console, *, fresh: bool = False) -> DemoOutcome:
    """Index the catalog, learn from simulated clicks, release the better model, and show before and after.

    Safe to run again: what is there is used, and a further run learns from where the last one ended.

    Raises:
        ConfigurationError: the working folder is not the project's.
        RunFailedError: a DAG run failed; the message holds the end of the failing task's log.
    """
    began = time.monotonic()
    home = get_settings().home.expanduser().resolve()
    if not Path("dags", f"{PLUGIN}.py").is_file():
        raise ConfigurationError("The demo runs in the project's folder, where dags/ and plugins/ are.")
    if fresh and home.exists():
        local.stop_all(home)
        shutil.rmtree(home)
    were_running = any(service.running for service in local.inspect(home).services)
    console.rule("[bold]Estudio: semantic search that learns from its users")
    try:
        _start(console, home)
        _initialize(console)
        report = _fine_tune(console)
        promoted = _show_outcome(console, report)
    finally:
        if not were_running:
            console.print("[dim]Stopping Airflow…[/]")
            local.stop_all(home, keep_database=False)
    seconds = time.monotonic() - began
    console.print(f"[dim]{seconds / 60:.1f} minutes in all.[/]")
    return DemoOutcome(promoted, report, seconds)


def _start(console: Console, home: Path) -> None:
    """Load the catalog and start Airflow's processes."""
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


def _initialize(console: Console) -> None:
    """Make the base model live, and replay the clickstream over its rankings."""
    with database.transaction() as connection:
        live = live_release(connection, PLUGIN)
    if live is None:
        dag_id = f"{PLUGIN}__initialize"
        run_id = local.trigger(dag_id, run_id=_run_id("initialize"))
        follow(console, f"{dag_id}: base model, ONNX, index", dag_id, run_id)
    searched = demo_queries().searched
    with console.status("Simulating users…"):
        rankings = rankings_of(PLUGIN)
        with database.transaction() as connection:
            clicks = replay_clickstream(connection, rankings)
    console.print(
        f"Clickstream: {clicks.sessions:,} [bold]simulated[/] sessions of {len(searched)} queries, "
        f"{clicks.clicked_sessions:,} with clicks drawn from human ratings. "
        f"{len(demo_queries().never_searched)} rated queries are never searched."
    )


def _fine_tune(console: Console) -> Path:
    """Learn from the clicks; release when the gate agrees. Returns the folder of the evaluation."""
    dag_id = f"{PLUGIN}__fine_tune"
    run_id = local.trigger(dag_id, run_id=_run_id("fine_tune"))
    state = follow(console, f"{dag_id}: learn from clicks, evaluate, decide", dag_id, run_id)
    if any(task.task_id == "release" and task.state == "success" for task in state.tasks):
        release_id = f"{run_id}__release"
        follow(console, f"{PLUGIN}__release: new index, verified, switched", f"{PLUGIN}__release", release_id)
    store = ArtifactStore()
    return Path(store.uri(PLUGIN, run_id, "evaluation"))


def _show_outcome(console: Console, folder: Path) -> bool:
    """Print the table, three queries before and after, and where everything is."""
    from estudio_core.evaluation.report import render_terminal
    from estudio_core.evaluation.report_data import EvaluationReport

    report = EvaluationReport.model_validate(json.loads((folder / "report.json").read_text()))
    console.print()
    console.print(render_terminal(report))
    for what, query in _examples(report).items():
        _show_side_by_side(console, what, query)
    live = search(PLUGIN, demo_queries().searched[0])
    console.print(f"Searches are answered by release {live.release_id}, model version {live.model_version}.")
    for what, where in (
        ("HTML report", folder / "report.html"),
        ("MLflow UI", "runs, versions and aliases: starts with the command below"),
        ("Airflow UI", "DAGs, forms and logs: starts with the command below"),
        ("Open both", "make up"),
        ("Search", f'.venv/bin/estudio search "usb c charger" --plugin {PLUGIN}'),
    ):
        console.print(f"[bold]{what:<12}[/]  {escape(str(where))}", soft_wrap=True, highlight=False)
    return report.decision.promoted


def _examples(report: EvaluationReport) -> dict[str, QueryChange]:
    """Return the queries that gained most, of either group, and the one that lost most; none where none did."""
    gained = report.best_changes(len(report.queries))
    examples = {
        "gained most of those users searched": [query for query in gained if query.group == "seen"],
        "gained most of those nobody searched": [query for query in gained if query.group == "unseen"],
        "lost most of all": report.worst_changes(1),
    }
    return {what: queries[0] for what, queries in examples.items() if queries}


def _show_side_by_side(console: Console, what: str, query: QueryChange) -> None:
    title = Text(f"“{query.query}” {what}: nDCG@10 full {query.before:.2f} → {query.after:.2f}", style="bold")
    console.print(title, soft_wrap=True)
    shown = zip(query.results_before[:SHOWN_RESULTS], query.results_after[:SHOWN_RESULTS], strict=False)
    rows = [
        {
            name: f"{'?' if line.grade is None else f'{line.grade:g}'}  {line.title}"
            for name, line in zip(("before", "after"), pair, strict=True)
        }
        for pair in shown
    ]
    show_rows(console, [Column("before", prose=True), Column("after", prose=True)], rows)
    console.print("human rating 0 to 3, ? where nobody rated it\n", style="dim", highlight=False)


def _run_id(kind: str) -> str:
    return f"demo_{kind}_{datetime.now(UTC):%Y%m%dT%H%M%S}"
