"""`estudio up`, `estudio down` and `estudio status`: the local installation, shown on a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from estudio_core.local.installation import Installation, inspect, start_all, stop_all


def up(console: Console | None = None, *, home: Path | None = None, project: Path | None = None) -> Installation:
    """Start database, Airflow, MLflow's interface and Triton; print where they are and how to stop them.

    Raises:
        ConfigurationError: the current folder has no `dags` folder.
        UnavailableError: a part does not start.
    """
    console = console or Console()
    with console.status(
        "Starting database, Airflow, MLflow and Triton: half a minute, the first time a few"
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


def _print(installation: Installation, console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("part", "state", "memory", "address"):
        table.add_column(column, no_wrap=True)
    answers = "[green]running[/]" if installation.database.answers else "[dim]stopped[/]"
    table.add_row("database", answers, "", escape(installation.database.address))
    for part in installation.services:
        state = "[green]running[/]" if part.healthy else "[yellow]starting[/]" if part.running else "[dim]stopped[/]"
        memory = f"{part.memory_mib} MiB" if part.memory_mib is not None else ""
        table.add_row(part.name, state, memory, escape(part.address or ""))
    console.print(table)
    logs = sorted({str(part.log_file.parent) for part in installation.services})
    console.print(f"Logs in {', '.join(logs)}", soft_wrap=True, highlight=False, markup=False)
    if installation.airflow:
        console.print(
            f"Airflow   [bold]{installation.airflow}[/]  user {installation.admin_user}, password in", end=" "
        )
        console.print(str(installation.password_file), soft_wrap=True, highlight=False, markup=False)
        console.print(f"Estudio   [bold]{installation.airflow}/plugin/estudio[/]  releases, reports, rollback")
    if installation.mlflow:
        console.print(f"MLflow    [bold]{installation.mlflow}[/]")
    if installation.triton:
        console.print(f"Triton    [bold]{installation.triton}[/]  metrics {installation.triton_metrics}")
