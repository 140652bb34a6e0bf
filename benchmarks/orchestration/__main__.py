"""`python -m benchmarks.orchestration`: measure what is missing on a real installation, then write the table."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.orchestration import measure
from benchmarks.orchestration.measure import Result, with_load
from benchmarks.orchestration.table import circumstances, markdown
from benchmarks.units import UnitStore
from tests.running.stack import Stack, open_stack

STORE = UnitStore("orchestration")

console = Console()
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

ON_THE_STACK: dict[str, Callable[[Stack, int], Result]] = {
    "trigger-to-first-task": measure.trigger_to_first_task,
    "alias-to-release": measure.alias_to_release,
    "fine-tune-overhead": measure.fine_tune_overhead,
}
"""Measurements of real runs, which share one installation."""


@app.command()
def main(
    repetitions: Annotated[int, typer.Option(min=1, help="Runs of each kind.")] = 5,
    fresh: Annotated[bool, typer.Option(help="Measure again what has been measured.")] = False,
    quick: Annotated[bool, typer.Option(help="One run of each kind, into a table of its own.")] = False,
    stored: Annotated[bool, typer.Option(help="Write the table of what is stored, and measure nothing.")] = False,
) -> None:
    """Measure what orchestration costs: Airflow, MLflow and PostgreSQL on this machine, a small model, 120 items."""
    logging.disable(logging.WARNING)
    suffix = "-quick" if quick else ""
    if not stored:
        _measure(1 if quick else repetitions, suffix, fresh=fresh)
    names = (*ON_THE_STACK, "parsing")
    results = {name: found for name in names if (found := STORE.read(name + suffix)) is not None}
    if not results:
        console.print("Nothing is measured yet.")
        raise typer.Exit(1)
    text = (
        "# What orchestration costs\n\n"
        "A real installation as `estudio up` starts it: Airflow with the LocalExecutor and its triggerer, MLflow's "
        "server, PostgreSQL with pgvector. The model is small and random, the catalog has 120 products, so that the "
        "steps are short and what is between them shows.\n\n"
        f"{markdown(results)}\n\n{circumstances(results)}\n"
    )
    table = STORE.folder / f"orchestration{suffix}.md"
    table.write_text(text, encoding="utf-8")
    console.print(text, markup=False)
    console.print(f"Table: {table}")


def _measure(repetitions: int, suffix: str, *, fresh: bool) -> None:
    with ExitStack() as opened:
        stack: Stack | None = None
        for name, measured in ON_THE_STACK.items():
            if not fresh and STORE.read(name + suffix) is not None:
                continue
            if stack is None:
                console.print("[dim]Starting the installation…[/]")
                stack = opened.enter_context(open_stack())
                measure.prepare(stack)
            console.print(f"[dim]{name}…[/]")
            run = partial(measured, stack, repetitions)
            STORE.measured(name + suffix, partial(with_load, run), fresh=fresh)
    parsed = partial(measure.parsing, repetitions)
    STORE.measured(f"parsing{suffix}", partial(with_load, parsed), fresh=fresh)


if __name__ == "__main__":
    app()
