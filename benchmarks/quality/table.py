"""From unit results to a Markdown table and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.evaluation import FIGURES, FUSED
from estudio_core.evaluation.bootstrap import Estimate, bootstrap_mean

Group = str
Scores = Mapping[Group, Sequence[float]]


MUCH = 0.05
"""Loss of nDCG@10 from which a query counts as one that lost much."""
ABSENT = "-"
"""Of a figure that some of its units were measured without: the judged ones came later, those with words last."""


@dataclass(frozen=True)
class Losses:
    """What queries lost of full nDCG@10, each in the mean of its seeds and partitions.

    Attributes:
        queries: How many lose anything.
        mean: Mean change of these; 0 for none.
        much: How many lose more than `MUCH`.
        worst: The query that changed for the worst, and by how much.
    """

    queries: int
    mean: float
    much: int
    worst: tuple[str, float]

    @classmethod
    def of(cls, changes: Mapping[str, float]) -> Losses:
        """Summarise the changes of all queries.

        >>> Losses.of({"lamp": 0.5, "chair": -0.25, "table": -0.0625, "tent": -0.03125})
        Losses(queries=3, mean=-0.114..., much=2, worst=('chair', -0.25))
        """
        lost = [change for change in changes.values() if change < 0]
        worst = min(changes.items(), key=lambda change: (change[1], change[0]))
        return cls(len(lost), float(np.mean(lost)) if lost else 0.0, sum(c < -MUCH for c in lost), worst)


@dataclass(frozen=True)
class Row:
    """A contender under a condition on a kind of corpus.

    Attributes:
        gains: By group, gain of full nDCG@10 over the base model: the mean over queries, each with the mean of the
            seeds and partitions that judge it, and an interval over queries.
        seeds: Seeds that every corpus (partition) has.
        worst_seed: By group, the smallest gain of such a seed; NaN without any.
        against_ours: By group, ours minus this contender, likewise; empty for ours itself.
        losses: By group, what queries lost.
        judged: As `gains`, of judged nDCG@10; empty where some result lacks it, as the next two.
        judged_against_ours: As `against_ours`.
        rated: By group, mean share of the top ten that is rated.
    """

    contender: str
    runs: int
    seeds: int
    gains: dict[Group, Estimate]
    worst_seed: dict[Group, float]
    against_ours: dict[Group, Estimate]
    losses: dict[Group, Losses]
    judged: dict[Group, Estimate]
    judged_against_ours: dict[Group, Estimate]
    rated: dict[Group, float]
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
    groups = list(bases[0]["ndcg"])
    whole = set.intersection(*(set(of_corpus) for of_corpus in results))
    base_cells: Cells = [dict.fromkeys(of_corpus, base) for base, of_corpus in zip(bases, results, strict=True)]
    worst: dict[Group, float] = {}
    for group in groups:
        before = _mean([{0: base} for base in bases], queries, group)
        of_seeds = [_mean([{seed: cell[seed]} for cell in results], queries, group) - before for seed in whole]
        worst[group] = min(of_seeds, default=float("nan"))
    theirs, mine = _in_both(results, ours) if contender != "ours" else ([], [])
    flat = [result for of_corpus in results for result in of_corpus.values()]
    return Row(
        contender,
        runs=len(flat),
        seeds=len(whole),
        gains=_gains(base_cells, results, queries, groups),
        worst_seed=worst,
        against_ours=_gains(theirs, mine, queries, groups),
        losses={group: Losses.of(_changes(base_cells, results, queries, group)) for group in groups},
        judged=_gains(base_cells, results, queries, groups, "judged_ndcg"),
        judged_against_ours=_gains(theirs, mine, queries, groups, "judged_ndcg"),
        rated={g: _mean(results, queries, g, "judged_share") for g in groups if _have(results, "judged_share")},
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


def _have(results: Cells, figure: str) -> bool:
    """Tell whether there are results and all of them have a figure."""
    flat = [result for of_corpus in results for result in of_corpus.values()]
    return bool(flat) and all(figure in result for result in flat)


def _gains(
    before: Cells, after: Cells, queries: Queries, groups: Sequence[Group], figure: str = "ndcg"
) -> dict[Group, Estimate]:
    """Return the gain over queries by group; both sides have the same corpora and seeds. Empty without the figure."""
    if not (_have(before, figure) and _have(after, figure)):
        return {}
    changes = {group: list(_changes(before, after, queries, group, figure).values()) for group in groups}
    return {group: bootstrap_mean(values) for group, values in changes.items()}


def _changes(before: Cells, after: Cells, queries: Queries, group: Group, figure: str = "ndcg") -> dict[str, float]:
    first, second = (_by_query(cells, queries, group, figure) for cells in (before, after))
    # Results hold six decimals: what is beyond them is no change.
    return {query: round(float(np.mean(second[query]) - np.mean(first[query])), 6) + 0.0 for query in first}


def _mean(results: Cells, queries: Queries, group: Group, figure: str = "ndcg") -> float:
    """Return the mean over queries, each with the mean of its results."""
    return float(np.mean([np.mean(values) for values in _by_query(results, queries, group, figure).values()]))


def _by_query(results: Cells, queries: Queries, group: Group, figure: str) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for of_corpus, texts in zip(results, queries, strict=False):
        for result in of_corpus.values():
            for query, value in zip(texts[group], result[figure][group], strict=True):
                values.setdefault(query, []).append(value)
    return values


def of_lane(results: Cells, lane: str) -> Cells:
    """Return the results that have figures of a lane (`""` or `FUSED`), under the names without it."""
    return [
        {seed: _stripped(result, lane) for seed, result in of_corpus.items() if lane + "ndcg" in result}
        for of_corpus in results
    ]


def _stripped(result: Mapping[str, Any], lane: str) -> dict[str, Any]:
    of_lane = {name: result[lane + name] for name in FIGURES if lane + name in result}
    of_any = {lane + name for lane in ("", FUSED) for name in FIGURES}
    return of_lane | {name: value for name, value in result.items() if name not in of_any}


def unlearned(results: Mapping[str, Sequence[Mapping[str, Any]]], queries: Queries) -> str:
    """Return a table of what learns nothing: by name, its results by corpus."""
    first = next(iter(results.values()))
    groups = list(first[0]["ndcg"])
    head = ["what ranks"]
    for group in groups:
        head += [f"{group}: nDCG@10 full", "judged", "top ten rated"]
    lines = [head]
    for name, of_corpora in results.items():
        cells: Cells = [{0: result} for result in of_corpora]
        line = [name]
        for group in groups:
            for figure, digits in zip(FIGURES, (3, 3, 2), strict=True):
                known = _have(cells, figure)
                line.append(f"{_mean(cells, queries, group, figure):.{digits}f}" if known else ABSENT)
        lines.append(line)
    return "\n".join([*table_lines(lines), ""])


def markdown(
    title: str,
    bases: Sequence[Mapping[str, Any]],
    queries: Queries,
    rows: Sequence[Row],
    *,
    base: str = "base model",
    absent: Sequence[str] = (),
) -> str:
    """Return two tables: gains of the full figure, and what the judged one and single queries say.

    Args:
        title: Heading.
        bases: Of what the gains are over, by corpus.
        queries: What the results are about.
        rows: Contenders.
        base: Name of `bases`.
        absent: Contenders that were measured, but without these figures.
    """
    groups = list(bases[0]["ndcg"])
    cells: Cells = [{0: result} for result in bases]

    def of_base(figure: str, group: Group) -> str:
        return f"({_mean(cells, queries, group, figure):.3f})" if _have(cells, figure) else ABSENT

    head = ["contender", "runs", "whole seeds"]
    for group in groups:
        head += [f"{group}: gain of nDCG@10 full", "worst seed", "ours minus it"]
    first = [base, "", ""]
    for group in groups:
        first += [of_base("ndcg", group), "", ""]
    full = [[*head, "tokens", "seconds"], [*first, "", ""]]
    for entry in rows:
        line = [entry.contender, str(entry.runs), str(entry.seeds)]
        for group in groups:
            line += [
                estimate_text(entry.gains[group]),
                f"{entry.worst_seed[group]:+.3f}" if entry.seeds else "",
                estimate_text(entry.against_ours[group]) if entry.against_ours else "",
            ]
        full.append([*line, f"{entry.tokens:,.0f}", f"{entry.seconds:.0f}"])
    full += [[name, *[ABSENT] * (len(full[0]) - 1)] for name in absent]

    head, first = ["contender"], [base]
    for group in groups:
        head += [f"{group}: gain of nDCG@10 judged", "ours minus it", "top ten rated"]
        head += ["mean loss of those that lose", f"lose over {MUCH}", "worst query"]
        first += [of_base("judged_ndcg", group), "", of_base("judged_share", group), "", "", ""]
    beside = [head, first]
    for entry in rows:
        line = [entry.contender]
        for group in groups:
            lost = entry.losses[group]
            against = entry.judged_against_ours.get(group)
            line += [
                estimate_text(entry.judged[group]) if entry.judged else ABSENT,
                estimate_text(against) if against else ABSENT if entry.against_ours else "",
                f"{entry.rated[group]:.2f}" if entry.rated else ABSENT,
                f"{lost.mean:+.3f} ({lost.queries} of {entry.gains[group].n})",
                str(lost.much),
                f"{lost.worst[0]} {lost.worst[1]:+.3f}",
            ]
        beside.append(line)
    return "\n".join([f"### {title}", "", *table_lines(full), "", *(table_lines(beside) if rows else []), ""])


def table_lines(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table; the first line is its head."""
    head, *body = (f"| {' | '.join(cell.replace('|', ' ') for cell in line)} |" for line in lines)
    return [head, "|" + " --- |" * len(lines[0]), *body]


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
    axes[-1, 0].set_xlabel("gain of nDCG@10 full over what learns nothing, 95 % interval over queries")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def estimate_text(estimate: Estimate) -> str:
    """Return a mean with its interval."""
    return f"{estimate.mean:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"
