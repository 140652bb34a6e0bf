"""`python -m benchmarks.builds`: measure what is missing, then write the table."""

from __future__ import annotations

import logging
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.builds.attacks import measure_attacks
from benchmarks.builds.catalog import PLUGIN, use_own_installation
from benchmarks.builds.filtered import measure_filtered
from benchmarks.builds.load import KILLS, measure_index, measure_load
from benchmarks.builds.table import table
from benchmarks.index.generated import nothing_to_embed, query_vectors
from benchmarks.units import UnitStore
from estudio_core import database
from estudio_core.vectordb import switching
from estudio_core.vectordb.releases import Release, release_of_run
from estudio_core.vectordb.verification import verify_release

STORE = UnitStore("builds")
console = Console()
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    items: Annotated[int, typer.Option(min=10_000, help="Items of the table.")] = 1_000_000,
    kills: Annotated[int, typer.Option(min=0, help="Times that the loading process is killed.")] = KILLS,
    until: Annotated[str, typer.Option(help="Last part to measure: load, index or search.")] = "search",
) -> None:
    """Build a collection of generated items with the product's own steps, and search in it: with filters, too much."""
    logging.disable(logging.WARNING)
    use_own_installation()
    run_id = f"build-{items}"
    load = STORE.measured(f"load-{items}-{kills}", lambda: measure_load(items, run_id, kills))
    index = filtered = attacks = None
    if until != "load":
        index = STORE.measured(f"index-{items}", lambda: measure_index(items, run_id, load["manifests"]))
    if until == "search":
        filtered = STORE.measured(f"search-{items}", lambda: measure_filtered(_live(run_id, items), items))
        attacks = STORE.measured(f"attacks-{items}", lambda: measure_attacks(_live(run_id, items), items))
    written = STORE.folder / f"build-{items}.md"
    written.write_text(table(load, index, filtered, attacks), encoding="utf-8")
    console.print(f"Table: {written}")


def _live(run_id: str, items: int) -> Release:
    """Return the release of the build, live: searches by text have the one that is."""
    with database.connect(autocommit=True) as connection:
        release = release_of_run(connection, PLUGIN, run_id)
        assert release is not None
        if release.state == "built":
            verify_release(connection, release, query_vectors(100, release.index_info.dimensions, seed=1), items)
        if release.state != "live":
            release = switching.switch(connection, release, nothing_to_embed)
    return release


if __name__ == "__main__":
    app()
