"""`python -m benchmarks.clickstream`: measure what is missing, then write the table."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.clickstream.table import markdown
from benchmarks.units import UnitStore

STORE = UnitStore("clickstream")
SIZES, QUICK_SIZES = "100000,1000000,3000000,10000000", "100000"
MOST_IN_DATABASE = 1_000_000
"""Sessions that are copied into a database, and extracted; larger logs are written as extraction writes them."""
MOST_TRAINED = 100_000

console = Console()
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    sizes: Annotated[str, typer.Option(help="Sessions of the logs, with commas.")] = SIZES,
    quick: Annotated[bool, typer.Option("--quick", help="100,000 sessions alone.")] = False,
    stored: Annotated[bool, typer.Option(help="Write the table of what is stored, and measure nothing.")] = False,
) -> None:
    """Measure seconds and memory of extraction, preparation, weighing and validation by the size of the log."""
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for size in map(int, (QUICK_SIZES if quick else sizes).split(",")):
        rows = found.setdefault(size, {})
        for step in _steps(size):
            key = f"{step}-{size}"
            unit = STORE.read(key)
            if unit is None and not stored:
                console.print(f"[dim]{key}…[/]")
                unit = STORE.measured(key, lambda step=step, size=size: _measured(step, size))
            if unit is not None:
                rows[step] = unit
    if not any(found.values()):
        console.print("Nothing is measured yet.")
        raise typer.Exit(1)
    STORE.folder.mkdir(parents=True, exist_ok=True)
    table = STORE.folder / ("clickstream-quick.md" if quick else "clickstream.md")
    table.write_text(markdown(found), encoding="utf-8")
    console.print(f"Table: {table}")


def _steps(size: int) -> list[str]:
    """Return what is measured of a size, in order; a log has to be there before it is read."""
    of_database = ["fill", "extract", "bare_copy"] if size <= MOST_IN_DATABASE else []
    return [*of_database, "generate", "prepare", "weigh", "scan", *(["train"] if size <= MOST_TRAINED else [])]


def _measured(step: str, size: int) -> dict[str, Any]:
    """Run a step in a process of its own, whose peak of memory is its own too."""
    command = [sys.executable, "-m", "benchmarks.clickstream.measure", step, str(size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    app()
