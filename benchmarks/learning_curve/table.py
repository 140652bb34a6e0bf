"""From results by size of the log to a table, a plot, and whether the curve keeps what it promises."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.quality.corpora import Corpus
from benchmarks.quality.evaluation import FUSED
from benchmarks.quality.table import Row, estimate_text, of_lane, row, table_lines

NEVER, ASKED = "never asked", "asked"
"""All held-out groups together, and training queries."""
TOLERANCE = 0.005
"""Of nDCG@10: a fall of the curve that is none."""

Curves = dict[int, dict[str, Row]]
"""By sessions, then by contender."""


def curve(
    corpus: Corpus, base: Mapping[str, Any], results: Mapping[str, Mapping[int, Mapping[str, Any]]]
) -> dict[str, Row]:
    """Return a row for every contender that has results with words beside its vectors.

    Args:
        corpus: What they are about.
        base: Of the base model.
        results: By contender, then by seed.
    """
    groups = {group: queries for group, (queries, _) in corpus.judged.items()}
    queries = [_together(groups)]
    lanes = {name: of_lane([of_name], FUSED) for name, of_name in results.items()}
    pooled = {name: [{seed: _pooled(result) for seed, result in lane[0].items()}] for name, lane in lanes.items()}
    before = of_lane([{0: base}], FUSED)[0].get(0)
    if before is None:
        return {}
    ours = pooled.get("ours", [])
    return {
        name: row(name, of_name, [_pooled(before)], ours, queries) for name, of_name in pooled.items() if of_name[0]
    }


def _together(groups: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return what belongs to queries that were never asked, and to those that were.

    >>> _together({"seen": (1,), "words": (2,), "brands": (3, 4)})
    {'never asked': [2, 3, 4], 'asked': [1]}
    """
    never = [value for name, values in groups.items() if name != "seen" for value in values]
    return {NEVER: never, ASKED: list(groups.get("seen", ()))}


def _pooled(result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _together(value) if isinstance(value, Mapping) and "seen" in value else value
        for name, value in result.items()
    }


def best_other(rows: Mapping[str, Row]) -> str | None:
    """Return the contender with the largest gain on queries never asked, ours aside; None where there is none."""
    others = {name: entry.gains[NEVER].mean for name, entry in rows.items() if name != "ours"}
    return max(others, key=lambda name: others[name], default=None)


def verdicts(curves: Curves) -> list[str]:
    """Return, in sentences, where the curve of ours falls, and where it is below the best contender."""
    said: list[str] = []
    known = [size for size in sorted(curves) if "ours" in curves[size]]
    for fewer, more in pairwise(known):
        change = curves[more]["ours"].gains[NEVER].mean - curves[fewer]["ours"].gains[NEVER].mean
        said.append(f"{fewer:,} to {more:,} sessions: {change:+.3f}{', a fall' if change < -TOLERANCE else ''}.")
    for size in known:
        best = best_other(curves[size])
        if best is not None:
            ahead = curves[size][best].against_ours[NEVER]
            below = ", below it" if ahead.mean < 0 else ", beyond the interval" if ahead.low > 0 else ""
            said.append(f"{size:,} sessions: ours minus {best} {estimate_text(ahead)}{below}.")
    return said


def write(folder: Path, name: str, about: str, curves: Curves) -> Path:
    """Write table and plot; return the table's path."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [["sessions", "contender", "seeds"]]
    for group in (NEVER, ASKED):
        lines[0] += [f"{group}: gain of nDCG@10", "ours minus it"]
    lines[0] += ["tokens", "seconds"]
    for size, rows in sorted(curves.items()):
        for entry in rows.values():
            line = [f"{size:,}", entry.contender, str(entry.runs)]
            for group in (NEVER, ASKED):
                against = entry.against_ours.get(group)
                line += [estimate_text(entry.gains[group]), estimate_text(against) if against else ""]
            lines.append([*line, f"{entry.tokens:,.0f}", f"{entry.seconds:.0f}"])
    text = [
        "# Learning curve",
        "",
        "Simulated sessions over attribute queries, whose relevance is known for every product; simulated users are "
        "shown what the base model finds. Gains are of what is served, similarity and words together, over the base "
        "model with the same words, with 95 % intervals over queries. Held-out queries have a new combination of "
        f"values, a new word, or a new brand. {about}",
        "",
        *table_lines(lines),
        "",
        *(f"- {said}" for said in verdicts(curves)),
        "",
        f"![gain by sessions]({name}.svg)",
        "",
    ]
    path = folder / f"{name}.md"
    path.write_text("\n".join(text), encoding="utf-8")
    _plot(folder / f"{name}.svg", curves)
    return path


def _plot(path: Path, curves: Curves) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "estudio"  # the same figures give the same file
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    names = dict.fromkeys(name for rows in curves.values() for name in rows)
    for axis, group in zip(axes, (NEVER, ASKED), strict=True):
        for name in names:
            points = [(size, rows[name].gains[group]) for size, rows in sorted(curves.items()) if name in rows]
            means = [gain.mean for _, gain in points]
            low = [gain.mean - gain.low for _, gain in points]
            high = [gain.high - gain.mean for _, gain in points]
            axis.errorbar([size for size, _ in points], means, yerr=[low, high], fmt="o-", capsize=3, label=name)
        axis.set(xscale="log", xlabel="simulated sessions", title=f"queries {group}")
        axis.axhline(0, color="grey", linewidth=0.8)
    axes[0].set_ylabel("gain of nDCG@10 over base + BM25")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
