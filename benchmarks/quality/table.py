"""From unit results to a Markdown table and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from estudio_core.evaluation.bootstrap import Estimate, paired_gain

Group = str
Scores = Mapping[Group, Sequence[float]]


@dataclass(frozen=True)
class Row:
    """A contender under a condition on a kind of corpus.

    Attributes:
        gains: By group, gain of nDCG@10 over the base model: the mean over queries, each with the mean of the seeds
            and partitions that judge it, and an interval over queries.
        seeds: Seeds that every corpus (partition) has.
        worst_seed: By group, the smallest gain of such a seed; NaN without any.
        against_ours: By group, ours minus this contender, likewise; None for ours itself.
    """

    contender: str
    runs: int
    seeds: int
    gains: dict[Group, Estimate]
    worst_seed: dict[Group, float]
    against_ours: dict[Group, Estimate] | None
    tokens: float
    seconds: float


Cells = Sequence[Mapping[int, Mapping[str, Any]]]
"""Results by corpus (partition), then by seed; what is not measured yet is absent."""
Queries = Sequence[Mapping[Group, Sequence[str]]]
"""Queries by corpus, then by group, in the order of the results."""


def row(contender: str, results: Cells, bases: Sequence[Mapping[str, Any]], ours: Cells, queries: Queries) -> Row:
    """Summarise what is measured of a contender.

    Args:
        contender: Its name.
        results: Of the contender; one at least.
        bases: Of the base model, by corpus.
        ours: Of our training; the comparison takes the corpora and seeds that both have.
        queries: What the results are about: a query that several partitions judge is one query.
    """
    gains: dict[Group, Estimate] = {}
    worst: dict[Group, float] = {}
    against: dict[Group, Estimate] = {}
    whole = set.intersection(*(set(of_corpus) for of_corpus in results))
    base_cells: Cells = [dict.fromkeys(of_corpus, base) for base, of_corpus in zip(bases, results, strict=True)]
    for group in bases[0]["ndcg"]:
        gains[group] = _gain(base_cells, results, queries, group)
        before = _mean([{0: base} for base in bases], queries, group)
        of_seeds = [_mean([{seed: cell[seed]} for cell in results], queries, group) - before for seed in whole]
        worst[group] = min(of_seeds, default=float("nan"))
        if contender != "ours":
            theirs, mine = _in_both(results, ours)
            if any(mine):
                against[group] = _gain(theirs, mine, queries, group)
    flat = [result for of_corpus in results for result in of_corpus.values()]
    return Row(
        contender,
        runs=len(flat),
        seeds=len(whole),
        gains=gains,
        worst_seed=worst,
        against_ours=against or None,
        tokens=float(np.mean([result["tokens"] for result in flat])),
        seconds=float(np.mean([result["seconds"] for result in flat])),
    )


def _in_both(results: Cells, ours: Cells) -> tuple[Cells, Cells]:
    """Return both, by corpus, cut down to the seeds that both have."""
    both = [
        ({s: theirs[s] for s in theirs if s in mine}, {s: mine[s] for s in theirs if s in mine})
        for theirs, mine in zip(results, ours, strict=False)
    ]
    return [theirs for theirs, _ in both], [mine for _, mine in both]


def _gain(before: Cells, after: Cells, queries: Queries, group: Group) -> Estimate:
    """Return the gain over queries; both sides have the same corpora and seeds."""
    first, second = (_by_query(cells, queries, group) for cells in (before, after))
    return paired_gain([np.mean(first[query]) for query in first], [np.mean(second[query]) for query in first])


def _mean(results: Cells, queries: Queries, group: Group) -> float:
    """Return the mean over queries, each with the mean of its results."""
    return float(np.mean([np.mean(values) for values in _by_query(results, queries, group).values()]))


def _by_query(results: Cells, queries: Queries, group: Group) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for of_corpus, texts in zip(results, queries, strict=False):
        for result in of_corpus.values():
            for query, value in zip(texts[group], result["ndcg"][group], strict=True):
                values.setdefault(query, []).append(value)
    return values


def markdown(title: str, bases: Sequence[Mapping[str, Any]], queries: Queries, rows: Sequence[Row]) -> str:
    """Return a section with one table: gains with 95 % intervals, worst seed, and the difference to ours."""
    groups = list(bases[0]["ndcg"])
    head = ["contender", "runs", "whole seeds"]
    for group in groups:
        head += [f"{group}: gain of nDCG@10", "worst seed", "ours minus it"]
    head += ["tokens", "seconds"]
    lines = [f"## {title}", "", f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    base = [f"{_mean([{0: cell} for cell in bases], queries, g):.3f}" for g in groups]
    lines.append("| base model | | | " + " | ".join(f"({value}) | | " for value in base) + " | | |")
    for entry in rows:
        cells = [entry.contender, str(entry.runs), str(entry.seeds)]
        for group in groups:
            other = entry.against_ours[group] if entry.against_ours else None
            cells += [
                _text(entry.gains[group]),
                f"{entry.worst_seed[group]:+.3f}" if entry.seeds else "",
                _text(other) if other else "",
            ]
        cells += [f"{entry.tokens:,.0f}", f"{entry.seconds:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def plot(path: Path, sections: Mapping[str, Sequence[Row]]) -> None:
    """Draw the gains with their intervals, a panel per section, as SVG."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    # Names and dates of the drawing would change the file at every run.
    plt.rcParams["svg.hashsalt"] = "estudio"
    figure, axes = plt.subplots(len(sections), 1, figsize=(8, 2.6 * len(sections)), squeeze=False)
    for axis, (title, rows) in zip(axes[:, 0], sections.items(), strict=True):
        groups = list(rows[0].gains)
        for number, group in enumerate(groups):
            places = np.arange(len(rows)) + 0.3 * (number - (len(groups) - 1) / 2)
            means = np.array([entry.gains[group].mean for entry in rows])
            low = means - [entry.gains[group].low for entry in rows]
            high = [entry.gains[group].high for entry in rows] - means
            axis.errorbar(means, places, xerr=[low, high], fmt="o", capsize=3, label=f"{group} queries")
        axis.set_yticks(range(len(rows)), [entry.contender for entry in rows])
        axis.invert_yaxis()
        axis.axvline(0, color="grey", linewidth=0.8)
        axis.set_title(title, fontsize=10, loc="left")
        axis.legend(fontsize=8)
    axes[-1, 0].set_xlabel("gain of nDCG@10 over the base model, 95 % interval over queries")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _text(estimate: Estimate) -> str:
    return f"{estimate.mean:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"
