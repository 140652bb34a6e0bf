"""`python -m benchmarks.gate`: what the gate makes of clicks alone, against simulated logs whose truth is known.

Champion and candidates rank 200 items for each of 400 queries; the champion's first 20 are shown, always in its order;
clicks are drawn from a click model that the estimator is not told. 200 repetitions a cell, new queries in each.

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
from benchmarks.machine import describe
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

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
STORE = UnitStore("gate")


@app.command()
def main(
    repetitions: Annotated[int, typer.Option(min=2, help="Logs of each cell.")] = REPETITIONS,
    quick: Annotated[bool, typer.Option("--quick", help="Two sizes, 20 repetitions, no other click models.")] = False,
    others: Annotated[bool, typer.Option(help="Also click models beside those of the bar.")] = True,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Judge candidates by simulated clicks, and print how often each verdict was given."""
    repetitions, sizes = (20, (500, 5_000)) if quick else (repetitions, SESSIONS)
    cells = [(model, noise, size) for model in BAR for noise in NOISES for size in sizes]
    cells += [(model, noise, 5_000) for model in OTHERS for noise in NOISES] if others and not quick else []
    missing = [cell for cell in cells if STORE.read(_key(*cell, repetitions)) is None]
    with ProcessPoolExecutor(workers) as pool:
        for done in [pool.submit(_measured, *cell, repetitions) for cell in missing]:
            typer.echo(done.result())
    results = [(cell, STORE.measured(_key(*cell, repetitions), dict)) for cell in cells]
    (STORE.folder / "gate.md").write_text(_table(results, repetitions), encoding="utf-8")
    _plot(results, STORE.folder / "gate.svg")
    typer.echo(f"Table: {STORE.folder / 'gate.md'}")


def _key(model: str, noise: float, sessions: int, repetitions: int) -> str:
    return f"{model.replace(' ', '-')}_{noise:g}_{sessions}_{repetitions}"


def _measured(model: str, noise: float, sessions: int, repetitions: int) -> str:
    key = _key(model, noise, sessions, repetitions)
    STORE.measured(key, lambda: _cell(Clicks(model, noise), sessions, repetitions))
    return key


def _cell(model: Clicks, sessions: int, repetitions: int) -> dict[str, Any]:
    """Return, per candidate, the share of each verdict and mean and spread of truth and estimate."""
    of_names = candidates(CORRELATION)
    names = [*of_names, *OLDER]
    verdicts: dict[str, Counter[str]] = {name: Counter() for name in names}
    figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    exponents: list[float] = []
    for repetition in range(repetitions):
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
        "exponent": float(np.mean(exponents)),
        "candidates": {
            name: {verdict: count / repetitions for verdict, count in verdicts[name].items()}
            | dict(zip(("true", "least", "unshown"), np.mean(figures[name], axis=0).round(4).tolist(), strict=True))
            for name in names
        },
    }


Results = list[tuple[tuple[str, float, int], dict[str, Any]]]


def _share(result: dict[str, Any], name: str, verdict: str) -> float:
    return float(result["candidates"][name].get(verdict, 0.0))


def _table(results: Results, repetitions: int) -> str:
    names = list(results[0][1]["candidates"])
    never = [name for name in names if not name.startswith(("better", "perfect"))]
    told = "better by 0.05, correlated"
    lines = [
        "# The gate on clicks alone",
        "",
        f"{QUERIES} held-out queries, the champion's {SHOWN} results shown in its order, simulated clicks, "
        f"{repetitions} repetitions a cell. Correlated: errors correlate with the champion's by {CORRELATION}. "
        "Older log: served by a release before the champion. "
        "Noise: chance that an irrelevant result is clicked once it is looked at. Shares of verdicts.",
        "",
        f"Machine: {describe()}. Command: `make bench-gate`.",
        "",
        "| click model | noise | sessions | exponent found | most often called better of those that are not | "
        "+0.02 better | +0.05 better | +0.10 better | +0.05 not better | perfect order: better, not better |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (model, noise, size), result in results:
        worst = max(never, key=lambda name: _share(result, name, "better"))
        gains = [_share(result, f"better by {gain}, correlated", "better") for gain in ("0.02", "0.05", "0.10")]
        perfect = "perfect on what was shown"
        lines.append(
            f"| {model} | {noise:g} | {size:,} | {result['exponent']:.2f} | {_share(result, worst, 'better'):.1%} "
            f"({worst}) | {' | '.join(f'{gain:.0%}' for gain in gains)} | {_share(result, told, 'not better'):.1%} | "
            f"{_share(result, perfect, 'better'):.0%}, "
            f"{max(_share(result, name, 'not better') for name in ('perfect', perfect)):.1%} |"
        )
    lines += ["", "## Verdicts by candidate, over all cells", ""]
    lines += ["| candidate | true gain | never shown | better | not better | cannot tell | most: better | most: not |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for name in names:
        of = [result["candidates"][name] for _, result in results]
        mean = {key: float(np.mean([found.get(key, 0.0) for found in of])) for key in ("true", "unshown", *_VERDICTS)}
        most = [max(found.get(verdict, 0.0) for found in of) for verdict in _VERDICTS[:2]]
        lines.append(
            f"| {name} | {mean['true']:+.3f} | {mean['unshown']:.0%} | "
            + " | ".join(f"{share:.1%}" for share in (*(mean[verdict] for verdict in _VERDICTS), *most))
            + " |"
        )
    return "\n".join([*lines, "", "![share called better by sessions](gate.svg)", ""])


_VERDICTS = ("better", "not better", "cannot tell")


def _plot(results: Results, path: Path) -> None:
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
