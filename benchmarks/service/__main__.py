"""`python -m benchmarks.service`: measure what is missing, then write the table.

The service runs as users run it, one worker process over the catalogue of the demo. Who asks is a process of its own
and takes a share of the same machine, as PostgreSQL does; contenders in process need no such thing. The bare route
shows how much of an answer's time server, framework and client take together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.index.scratch import use_scratch_installation
from benchmarks.service import measure
from benchmarks.service.installation import prepare_release
from benchmarks.service.table import markdown
from benchmarks.units import UnitStore

STORE = UnitStore("service")
ITEMS, QUICK_ITEMS = 19_406, 1_000
CLIENTS = (1, 16, 64)

console = Console()
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Part(StrEnum):
    """What can be measured apart."""

    SEARCHES = "searches"
    KNOWN = "known"
    COLLECTING = "collecting"
    WHILE_COLLECTING = "while-collecting"
    MIXED = "mixed"


@app.command()
def main(
    part: Annotated[list[Part] | None, typer.Option(help="What to measure; all where not given.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of contenders that take turns.")] = 3,
    seconds: Annotated[float, typer.Option(min=1, help="Of a contender in a round.")] = 6.0,
    minutes: Annotated[float, typer.Option(min=0.1, help="Of mixed load.")] = 60.0,
    per_s: Annotated[float, typer.Option(min=1, help="Searches a second where they come evenly.")] = 30.0,
    items: Annotated[int, typer.Option(min=500, max=ITEMS, help="Products in the catalogue.")] = ITEMS,
    quick: Annotated[bool, typer.Option(help="1,000 products, one short round, a minute of mixed load.")] = False,
    fresh: Annotated[bool, typer.Option(help="Measure again what has been measured.")] = False,
    stored: Annotated[bool, typer.Option(help="Write the table of what is stored, and measure nothing.")] = False,
) -> None:
    """Measure the service beside what it does in process, in SQL, and beside a route that does nothing."""
    logging.disable(logging.WARNING)
    use_scratch_installation()
    if quick:
        items, rounds, seconds, minutes = QUICK_ITEMS, 1, 2.0, 1.0
    suffix = "-quick" if quick else ""
    units: dict[str, Callable[[], dict[str, Any]]] = {
        **{f"searches-{number}": partial(measure.searches, number, rounds, seconds) for number in CLIENTS},
        "known": partial(measure.known_queries, rounds, seconds),
        "collecting-1000": partial(measure.collecting, 1000, 4, rounds),
        "collecting-100": partial(measure.collecting, 100, 16, rounds),
        "while-collecting": partial(measure.while_collecting, per_s, 16, rounds, 2 * seconds),
        "mixed": partial(measure.mixed, minutes, per_s),
    }
    wanted = [name for name in units if not part or any(name.startswith(each) for each in part)]
    if not stored:
        console.print("[dim]Preparing the catalogue…[/]")
        prepare_release(items)
        for name in wanted:
            console.print(f"[dim]{name}…[/]")
            STORE.measured(name + suffix, units[name], fresh=fresh)
    found = {name: result for name in units if (result := STORE.read(name + suffix)) is not None}
    if not found:
        console.print("Nothing is measured yet.")
        raise typer.Exit(1)
    table = STORE.folder / f"service{suffix}.md"
    table.write_text(markdown(found), encoding="utf-8")
    console.print(table.read_text(encoding="utf-8"), markup=False)


if __name__ == "__main__":
    app()
