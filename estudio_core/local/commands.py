"""`estudio up`, `estudio down` and `estudio status`: the local installation, shown on a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from estudio_core.local.installation import Installation, inspect, start_all, stop_all
from estudio_core.terminal import Column, Row, show_rows


def up(console: Console | None = None, *, home: Path | None = None, project: Path | None = None) -> Installation:
    """Start database, Airflow, MLflow's interface, Triton and the service; print where they are.

    Raises:
        ConfigurationError: the current folder has no `dags` folder.
        UnavailableError: a part does not start.
    """
    console = console or Console()
    with console.status(
        "Starting database, Airflow, MLflow, Triton and the service: half a minute, the first time a few"
    ) as waiting:

        def tell(line: str) -> None:
            console.print(f"  [green]✓[/] {escape(line)}")
            waiting.update("Starting the rest")

        installation = start_all(home, project=project, tell=tell)
    _print(installation, console)
    console.print("Stop everything with: [bold]make down[/] (or estudio down)")
    return installation


def down(console: Console | None = None, *, home: Path | None = None) -> list[str]:
    """Stop what `up` started and print what was stopped; data stays."""
    console = console or Console()
    with console.status("Stopping; running tasks get up to 20 seconds to end"):
        stopped = stop_all(home)
    for name in stopped:
        console.print(f"  [green]✓[/] {name} stopped")
    if not stopped:
        console.print("Nothing was running.")
    return stopped


def status(console: Console | None = None, *, home: Path | None = None, project: Path | None = None) -> Installation:
    """Print which parts run, how much memory they use and where they are."""
    console = console or Console()
    installation = inspect(home, project=project)
    _print(installation, console)
    if not any(part.running for part in installation.services):
        console.print("Nothing runs. Start with: [bold]make up[/] (or estudio up)")
    return installation


def parts(installation: Installation) -> list[Row]:
    """Return a row for each part: its name, state, memory in MiB, address and log file, None where there is none."""
    database = installation.database
    rows: list[Row] = [
        {
            "part": "database",
            "state": "running" if database.answers else "stopped",
            "memory_mib": None,
            "address": database.address,
            "log_file": None,
        }
    ]
    rows += [
        {
            "part": part.name,
            "state": "running" if part.healthy else "starting" if part.running else "stopped",
            "memory_mib": part.memory_mib,
            "address": part.address,
            "log_file": part.log_file,
        }
        for part in installation.services
    ]
    return rows


def _print(installation: Installation, console: Console) -> None:
    state = Column("state", styles={"running": "green", "starting": "yellow", "stopped": "dim"})
    columns = [Column("part"), state, Column("memory_mib", right=True), Column("address", prose=True)]
    show_rows(console, columns, parts(installation))
    logs = sorted({str(part.log_file.parent) for part in installation.services})
    console.print(f"Logs in {', '.join(logs)}", soft_wrap=True, highlight=False, markup=False)
    addresses = {
        "Airflow": (installation.airflow, f"user {installation.admin_user}, password in {installation.password_file}"),
        "Estudio": (installation.airflow and f"{installation.airflow}/plugin/estudio", "releases, reports, rollback"),
        "MLflow": (installation.mlflow, ""),
        "Service": (installation.service, "search, clicks, and a page for each plugin: /ui/<plugin>"),
        "Triton": (installation.triton, f"metrics {installation.triton_metrics}"),
    }
    for name, (address, more) in addresses.items():
        if address:
            console.print(f"{name:<8}  [bold]{address}[/]  {escape(more)}".rstrip(), soft_wrap=True, highlight=False)
