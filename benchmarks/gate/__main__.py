"""`python -m benchmarks.gate`: what the gate makes of clicks alone, against simulated logs whose truth is known.

Champion and candidates rank 200 items for each of 400 queries; the champion's first 20 are shown, always in its order;
clicks are drawn from a click model that the estimator is not told. Up to 200 repetitions a cell, new queries in each;
what was stopped goes on where it was, and the table says how many repetitions a cell has.

What cannot be told from such logs, and why:

- A candidate whose errors are independent of the champion's: half of its top ten was never shown, and nobody can click
  what he does not see. The same holds for the perfect order of the whole catalog. Both get `cannot tell`, never `not
  better`; an online comparison, or people's ratings, can tell.
- With one fixed list a query, how attention falls is told apart from how well the champion ranks by results of nearly
  the same score alone. Where the champion's scores do not order what was shown, only the steepest attention is known.
- Attention that is no power of the position (a fold, a screen, each reader a depth of his own) is taken for flatter
  than it is far down: what stood there is undervalued, and better candidates that raise it are called better later.
- Where irrelevant results are clicked, an order that is reversed is seldom called `not better`: if all of the fall in
  clicks came from the position, its results would be as good as each other, and no list could be worse. It is never
  called better.
- Small gains: what 5,000 sessions tell of +0.05, they seldom tell of +0.02.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.gate.simulation import (
    QUERIES,
    SHOWN,
    Clicks,
    World,
    best,
    candidates,
    click_log,
    noise_for,
    noisy,
    ranked_pairs,
)
from benchmarks.units import UnitStore
from estudio_core.evaluation.click_gain import ClickGain
from estudio_core.evaluation.click_verdict import judge_clicks
from estudio_core.evaluation.gate_settings import GateSettings

BAR = ("PBM 0", "PBM 0.5", "PBM 1", "PBM 1.5", "PBM 2", "cascade", "DBN")
OTHERS = ("UBM", "DCM", "exponential 0.8", "fold", "trust", "depth")
NOISES = (0.0, 0.2)
SESSIONS = (500, 5_000, 20_000)
CORRELATION = 0.95
"""Of the champion's errors and those of a candidate that was trained from it."""
OLDER = ("equal, older log", "worse by 0.05, older log")
"""The log was served by a release before the champion: a model as good as the champion, and that release itself."""
REPETITIONS = 200
_ROUND = 10
"""Repetitions of one cell before the next one has its turn: stopped early, all cells have about as many."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
STORE = UnitStore("gate")


@app.command()
def main(
    repetitions: Annotated[int, typer.Option(min=2, help="Logs of each cell.")] = REPETITIONS,
    sizes: Annotated[str, typer.Option(help="Held-out sessions, with commas.")] = ",".join(map(str, SESSIONS)),
    quick: Annotated[bool, typer.Option("--quick", help="Two sizes, 20 repetitions, no other click models.")] = False,
    others: Annotated[bool, typer.Option(help="Also click models beside those of the bar.")] = True,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    stored: Annotated[bool, typer.Option(help="Write the table of what is stored, and measure nothing.")] = False,
) -> None:
    """Judge candidates by simulated clicks, and print how often each verdict was given."""
    repetitions, sizes = (20, "500,5000") if quick else (repetitions, sizes)
    cells = [(model, noise, size) for size in map(int, sizes.split(",")) for model in BAR for noise in NOISES]
    cells += [(model, noise, 5_000) for model in OTHERS for noise in NOISES] if others and not quick else []
    if not stored:
        with ProcessPoolExecutor(workers) as pool:
            for wanted in range(_ROUND, repetitions + _ROUND, _ROUND):
                for done in [pool.submit(_measured, *cell, min(wanted, repetitions)) for cell in cells]:
                    typer.echo(done.result())
    every = [(model, noise, size) for model in (*BAR, *OTHERS) for noise in NOISES for size in SESSIONS]
    results = [(cell, found) for cell in every if (found := STORE.read(_key(*cell))) is not None]
    (STORE.folder / "gate.md").write_text(_table(results), encoding="utf-8")
    _plot(results, STORE.folder / "gate.svg")
    typer.echo(f"Table: {STORE.folder / 'gate.md'}")


def _key(model: str, noise: float, sessions: int) -> str:
    return f"{model.replace(' ', '-')}_{noise:g}_{sessions}"


def _measured(model: str, noise: float, sessions: int, repetitions: int) -> str:
    """Let the stored cell have so many repetitions, those that it has among them."""
    key = _key(model, noise, sessions)
    stored = STORE.read(key)
    known = stored["repetitions"] if stored else 0
    if known < repetitions:
        more = _cell(Clicks(model, noise), sessions, range(known, repetitions))
        STORE.measured(key, lambda: joined(stored, more) if stored else more, fresh=True)
    return f"{key}: {max(known, repetitions)} repetitions"


def joined(cell: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return a cell of the repetitions of two: verdicts are counts, figures are means."""
    of, others = cell["repetitions"], more["repetitions"]

    def mean(one: float, other: float) -> float:
        return (one * of + other * others) / (of + others)

    candidates = {}
    for name, found in cell["candidates"].items():
        other = more["candidates"][name]
        counts = {verdict: found.get(verdict, 0) + other.get(verdict, 0) for verdict in VERDICTS}
        candidates[name] = counts | {figure: mean(found[figure], other[figure]) for figure in _FIGURES}
    return {
        "repetitions": of + others,
        "exponent": mean(cell["exponent"], more["exponent"]),
        "candidates": candidates,
    }


def _cell(model: Clicks, sessions: int, repetitions: range) -> dict[str, Any]:
    """Return, per candidate, the number of each verdict and means of true gain, estimate and what was never shown."""
    of_names = candidates(CORRELATION)
    names = [*of_names, *OLDER]
    verdicts: dict[str, Counter[str]] = {name: Counter() for name in names}
    figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    exponents: list[float] = []
    for repetition in repetitions:
        rng = np.random.default_rng([repetition, sessions])
        world = World.drawn(rng)
        estimator = ClickGain(
            click_log(world, rng, sessions, model), np.take_along_axis(world.champion, world.shown, 1).ravel()
        )
        exponents.append(estimator.attention.exponent)
        compared = [(name, world.champion, scores_of(world, rng)) for name, scores_of in of_names.items()]
        newer, another = (noisy(world, rng, noise_for(0.05, CORRELATION), CORRELATION) for _ in range(2))
        compared += zip(OLDER, (newer, newer), (another, world.champion), strict=True)
        for name, champion, scores in compared:
            found = judge_clicks(estimator, ranked_pairs(world, champion), ranked_pairs(world, scores), GateSettings())
            verdicts[name][found.verdict] += 1
            true = world.ndcg(best(scores, 10)).mean() - world.ndcg(best(champion, 10)).mean()
            figures[name].append((float(true), found.least.mean, found.unshown))
    return {
        "repetitions": len(repetitions),
        "exponent": float(np.mean(exponents)),
        "candidates": {
            name: dict(verdicts[name])
            | dict(zip(_FIGURES, np.mean(figures[name], axis=0).round(4).tolist(), strict=True))
            for name in names
        },
    }


Cells = list[tuple[tuple[str, float, int], dict[str, Any]]]


def _share(result: dict[str, Any], name: str, verdict: str) -> float:
    return float(result["candidates"][name].get(verdict, 0) / result["repetitions"])


def _table(results: Cells) -> str:
    names = list(results[0][1]["candidates"])
    never = [name for name in names if not name.startswith(("better", "perfect"))]
    told = "better by 0.05, correlated"
    counts = sorted({result["repetitions"] for _, result in results})
    lines = [
        "# The gate on clicks alone",
        "",
        f"{QUERIES} held-out queries, the champion's {SHOWN} results shown in its order, simulated clicks. "
        f"Correlated: errors correlate with the champion's by {CORRELATION}. "
        "Older log: served by a release before the champion. "
        "Noise: chance that an irrelevant result is clicked once it is looked at. Shares of verdicts, "
        f"of {' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} repetitions a cell, "
        "each with the commit that it was measured at.",
        "",
        *(f"Machine: {machine}." for machine in sorted({result["machine"] for _, result in results})),
        "Command: `make bench-gate`.",
        "",
        "| click model | noise | sessions | repetitions | code | exponent found | "
        "most often called better of those that are not | "
        "+0.02 better | +0.05 better | +0.10 better | +0.05 not better | perfect order: better, not better |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (model, noise, size), result in results:
        worst = max(never, key=lambda name: _share(result, name, "better"))
        gains = [_share(result, f"better by {gain}, correlated", "better") for gain in ("0.02", "0.05", "0.10")]
        perfect = "perfect on what was shown"
        lines.append(
            f"| {model} | {noise:g} | {size:,} | {result['repetitions']} | {result['code'][:8]} | "
            f"{result['exponent']:.2f} | "
            f"{_share(result, worst, 'better'):.1%} ({worst}) | {' | '.join(f'{gain:.0%}' for gain in gains)} | "
            f"{_share(result, told, 'not better'):.1%} | {_share(result, perfect, 'better'):.0%}, "
            f"{max(_share(result, name, 'not better') for name in ('perfect', perfect)):.1%} |"
        )
    lines += ["", "## Verdicts by candidate, over all cells", ""]
    lines += ["| candidate | true gain | never shown | better | not better | cannot tell | most: better | most: not |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for name in names:
        true, unshown = (
            float(np.mean([r["candidates"][name][figure] for _, r in results])) for figure in _FIGURES[::2]
        )
        shares = np.array([[_share(result, name, verdict) for verdict in VERDICTS] for _, result in results])
        said = [*shares.mean(axis=0), *shares.max(axis=0)[:2]]
        lines.append(f"| {name} | {true:+.3f} | {unshown:.0%} | {' | '.join(f'{share:.1%}' for share in said)} |")
    return "\n".join([*lines, "", "![share called better by sessions](gate.svg)", ""])


VERDICTS = ("better", "not better", "cannot tell")
_FIGURES = ("true", "least", "unshown")


def _plot(results: Cells, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "estudio"
    figure, axes = plt.subplots(2, len(BAR), figsize=(2.4 * len(BAR), 5), sharex=True, sharey=True)
    shown = {
        "equal, correlated": "tab:red",
        "worse by 0.05, correlated": "tab:orange",
        "better by 0.02, correlated": "tab:cyan",
        "better by 0.05, correlated": "tab:blue",
        "better by 0.10, correlated": "tab:green",
    }
    for column, model in enumerate(BAR):
        for row, noise in enumerate(NOISES):
            axis = axes[row, column]
            of = sorted((cell[2], result) for cell, result in results if cell[:2] == (model, noise))
            for name, colour in shown.items():
                axis.plot(
                    [size for size, _ in of], [_share(r, name, "better") for _, r in of], "o-", color=colour, label=name
                )
            axis.axhline(0.05, color="gray", linewidth=0.5)
            axis.set_xscale("log")
            axis.set_title(f"{model}, noise {noise:g}", fontsize=9)
    axes[1, 0].set_xlabel("held-out sessions")
    axes[0, 0].set_ylabel("called better")
    axes[0, -1].legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    app()
