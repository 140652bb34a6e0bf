"""`python -m benchmarks.experiments`: verdicts of experiments with simulated users, whose preferences are known.

Champion and challengers rank 200 items for each of 400 queries, as in `benchmarks.gate`; the first ten results are
drafted by the code that serves. Clicks are simulated: position-based, or with clicks on irrelevant results. Somebody
looks after every search, and ends the experiment at the first verdict. Each search is a visit of its own.

A challenger's gain is exact: its errors are scaled in each repetition until nDCG@10, weighed by how often queries are
asked, differs by as much. Two rows have no truth but chance: *twins*, where for each search it is drawn which of two
rankings is the challenger's. Every verdict there is wrong. (The same release against itself gives no credit to either
side, and never a verdict.)

Beside it stands what an A/B test on clicks needs to find the same challenger: exact means and variances of the same
users, the formula of a two-sided test of 5 % with a power of 80 %. An experiment's figure is the number of searches
after which 80 % of them have called the challenger better, at the same 5 %.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.experiments.simulation import Drafts, Users, ab_searches, challenger, credits_of, verdict_of
from benchmarks.gate.simulation import POPULARITY, K, World, best
from benchmarks.machine import describe
from benchmarks.units import UnitStore
from estudio_core.comparing.settings import ExperimentSettings

QUERIES = 400
MOST_SEARCHES = 20_000
CHUNK = 5_000
REPETITIONS = 200
CORRELATION = 0.95
"""Of the champion's errors and those of a challenger that was trained from it."""
USERS = {
    "attention 1, no noise": Users(1.0, 0.0),
    "attention 1, noise 0.2": Users(1.0, 0.2),
    "attention 0.5, noise 0.2": Users(0.5, 0.2),
    "attention 2, noise 0.2": Users(2.0, 0.2),
}
CHALLENGERS: dict[str, tuple[float, float]] = {
    "twins, correlated": (0.0, CORRELATION),
    "twins, independent": (0.0, 0.0),
    "+0.03, correlated": (0.03, CORRELATION),
    "+0.03, independent": (0.03, 0.0),
    "-0.03, correlated": (-0.03, CORRELATION),
    "-0.10, correlated": (-0.10, CORRELATION),
    "random order": (-1.0, 0.0),
}
"""True gain in nDCG@10, and correlation of the errors with the champion's."""
BAR_WRONG, BAR_TIMES, BAR_ROW = 0.05, 10.0, "+0.03, correlated"
MEASURES = ("clicked searches", "clicks per search")
"""Of an A/B test: the share of searches with a click, which is what click rate mostly means, and a finer one."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
STORE = UnitStore("experiments")


@app.command()
def main(
    repetitions: Annotated[int, typer.Option(min=2, help="Experiments of each cell.")] = REPETITIONS,
    quick: Annotated[bool, typer.Option("--quick", help="20 repetitions.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Run experiments, and print how often each verdict was given, after how many searches."""
    repetitions = 20 if quick else repetitions
    missing = [name for name in CHALLENGERS if STORE.read(_key(name, repetitions)) is None]
    with ProcessPoolExecutor(workers) as pool:
        for done in [pool.submit(_measured, name, repetitions) for name in missing]:
            typer.echo(done.result())
    results = {name: STORE.measured(_key(name, repetitions), dict) for name in CHALLENGERS}
    table = _table(results, repetitions)
    (STORE.folder / "experiments.md").write_text(table, encoding="utf-8")
    typer.echo(table)


def _key(name: str, repetitions: int) -> str:
    return f"{name.replace(', ', '_').replace(' ', '-')}_{repetitions}"


def _measured(name: str, repetitions: int) -> str:
    STORE.measured(_key(name, repetitions), lambda: _cell(name, repetitions))
    return name


def _cell(name: str, repetitions: int) -> dict[str, Any]:
    """Return verdicts, searches and what an A/B test needs, by kind of users."""
    difference, correlation = CHALLENGERS[name]
    settings = ExperimentSettings()
    verdicts: dict[str, list[tuple[str, int]]] = {users: [] for users in USERS}
    ab: dict[str, list[dict[str, float]]] = {users: [] for users in USERS}
    true: list[float] = []
    credit: dict[str, list[float]] = {users: [] for users in USERS}
    for repetition in range(repetitions):
        rng = np.random.default_rng([repetition, 7])
        world = World.drawn(rng, QUERIES)
        weights = rng.permutation((1.0 + np.arange(QUERIES)) ** -POPULARITY)
        weights /= weights.sum()
        if difference <= -1:
            scores = rng.standard_normal(world.grades.shape)
        else:
            scores = challenger(world, rng, weights, difference, correlation)
        true.append(float(weights @ (world.ndcg(best(scores, K)) - world.ndcg(best(world.champion, K)))))
        drafts = Drafts.of(world, world.champion, scores)
        for kind, users in USERS.items():
            values = np.empty(0)
            while len(values) < MOST_SEARCHES:  # nobody searches once there is a verdict
                queries = rng.choice(QUERIES, CHUNK, p=weights)
                twins = name.startswith("twins")
                values = np.concatenate([values, credits_of(drafts, users, rng, queries, twins=twins)])
                found = verdict_of(values, settings)
                if found[0] != "none":
                    break
            credit[kind].append(float(np.nanmean(values)))
            verdicts[kind].append(found)
            ab[kind].append(ab_searches(world, (world.champion, scores), users, weights))
    return {
        "true": float(np.mean(true)),
        "users": {
            kind: {
                "verdicts": {
                    verdict: sum(each == verdict for each, _ in found) / repetitions
                    for verdict in ("better", "worse", "harm", "none")
                },
                "searches": sorted(searches for _, searches in found),
                "better after": sorted(searches for verdict, searches in found if verdict == "better"),
                "credit": float(np.mean(credit[kind])),
                "ab": {measure: float(np.median([each[measure] for each in ab[kind]])) for measure in ab[kind][0]},
            }
            for kind, found in verdicts.items()
        },
    }


def _after(found: dict[str, Any], repetitions: int, share: float = 0.8) -> int | None:
    """Return after how many searches this share of the experiments has called the challenger better."""
    listed = found["better after"]
    needed = int(np.ceil(share * repetitions))
    return int(listed[needed - 1]) if len(listed) >= needed else None


def _table(results: dict[str, dict[str, Any]], repetitions: int) -> str:
    lines = [
        "# Experiments with simulated users",
        "",
        f"{repetitions} experiments a row, each of {QUERIES} new queries and at most {MOST_SEARCHES:,} searches, "
        "looked at after every search. Position-based clicks, simulated. Twins: neither side is better, and every "
        "verdict is wrong.",
        "",
        f"Machine: {describe()}. Command: `make bench-experiments`.",
        "",
        "| challenger | true gain | users | credit | better | worse | harm | none | median searches | "
        "80 % better after | A/B test by clicked searches (times) | by clicks per search (times) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    worst, least = 0.0, dict.fromkeys(MEASURES, np.inf)
    for name, result in results.items():
        for kind, found in result["users"].items():
            share, after = found["verdicts"], _after(found, repetitions)
            times = {measure: found["ab"][measure] / after if after else 0.0 for measure in MEASURES}
            if name.startswith("twins"):
                worst = max(worst, share["better"] + share["worse"] + share["harm"])
            if name == BAR_ROW:
                least = {measure: min(least[measure], times[measure]) for measure in MEASURES}
            compared = [f"{found['ab'][measure]:,.0f} ({times[measure]:.1f})" if after else "" for measure in MEASURES]
            lines.append(
                f"| {name} | {result['true']:+.3f} | {kind} | {found['credit']:+.3f} | "
                + " | ".join(f"{share[verdict]:.1%}" for verdict in ("better", "worse", "harm", "none"))
                + f" | {int(np.median(found['searches'])):,} | {'' if after is None else f'{after:,}'} | "
                + f"{' | '.join(compared)} |"
            )
    told = " and ".join(f"{value:.1f} by {measure}" for measure, value in least.items())
    lines += [
        "",
        f"Wrong verdicts of twins: at most {worst:.1%} (bar {BAR_WRONG:.0%}). {BAR_ROW}: times fewer searches than an "
        f"A/B test, the least of all users: {told} (bar {BAR_TIMES:g}).",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    app()
