"""Simulated users who are shown a list of two rankings, or the list of one: what their clicks say, search by search."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm  # type: ignore[import-untyped]

from benchmarks.gate.simulation import World, best, gain
from estudio_core.comparing.sequence import log_capitals
from estudio_core.comparing.settings import ExperimentSettings
from estudio_core.comparing.teams import draft

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHOWN = 10
"""Results on a page; users see one page."""
RANKED = 30
"""Results of each ranking that are drafted from."""
COINS = 2 ** (SHOWN // 2)
_SIDES = {"champion": -1, "both": 0, "challenger": 1}


@dataclass(frozen=True)
class Users:
    """Position-based clicks: looked at with (place + 1)^-exponent, clicked then by gain, irrelevant ones by `noise`."""

    exponent: float
    noise: float

    def chances(self, grades: Ints) -> Floats:
        """Return the chance of a click for grades of shown results, [..., shown]."""
        looks = (np.arange(grades.shape[-1]) + 1.0) ** -self.exponent
        chances: Floats = looks * (self.noise + (1 - self.noise) * gain(grades))
        return chances


@dataclass(frozen=True)
class Drafts:
    """All drafts of two rankings.

    Attributes:
        grades: Of the results shown, [queries, coins, shown].
        worth: What a click brings the challenger, below 0 for the champion's results, [queries, coins, shown].
    """

    grades: Ints
    worth: Floats

    @classmethod
    def of(cls, world: World, champion: Floats, challenger: Floats) -> Drafts:
        """Draft every query with every coin, as the service does."""
        tops = [best(scores, RANKED).tolist() for scores in (champion, challenger)]
        shown = np.zeros((len(world.grades), COINS, SHOWN), dtype=np.int64)
        worth = np.zeros(shown.shape)
        for query, (one, other) in enumerate(zip(*tops, strict=True)):
            first, second = [str(each) for each in one], [str(each) for each in other]
            drafted = draft(first, second, 0, SHOWN + 2)
            rounds = sum(team == "champion" for team in drafted.teams.values())
            told = min(2**rounds, COINS)  # coins beyond the rounds decide nothing
            for coin in range(told):
                found = draft(first, second, coin, SHOWN + 2)
                page = found.page(first, 0, SHOWN)
                shown[query, coin] = [int(each) for each in page]
                worth[query, coin] = [_SIDES[found.teams.get(each, "both")] * found.worth.get(each, 0) for each in page]
            for coin in range(told, COINS):
                shown[query, coin], worth[query, coin] = shown[query, coin % told], worth[query, coin % told]
        return cls(np.take_along_axis(world.grades[:, None, :], shown, 2), worth)


def challenger(
    world: World, rng: np.random.Generator, weights: Floats, difference: float, correlation: float
) -> Floats:
    """Return scores whose nDCG@10, weighed by how often queries are asked, differs from the champion's by `difference`.

    Args:
        world: Queries and grades.
        rng: Draws its errors.
        weights: Share of each query, [queries].
        difference: Of the means of nDCG@10.
        correlation: Of its errors with the champion's.
    """
    own = rng.standard_normal(world.grades.shape)
    errors = correlation * world.errors + np.sqrt(1 - correlation**2) * own
    wanted = weights @ world.ndcg(best(world.champion, SHOWN)) + difference
    low, high = 0.0, 4.0
    for _ in range(16):
        middle = (low + high) / 2
        found = weights @ world.ndcg(best(world.grades + middle * errors, SHOWN))
        low, high = (middle, high) if found > wanted else (low, middle)
    return np.asarray(world.grades + (low + high) / 2 * errors)


def credits_of(drafts: Drafts, users: Users, rng: np.random.Generator, queries: Ints, *, twins: bool) -> Floats:
    """Return what each search brings, as `comparing.credit` has it; NaN where it brings nothing.

    Args:
        drafts: Of both rankings.
        users: Who click.
        rng: Coins and clicks.
        queries: What is asked for, [searches].
        twins: Which ranking is the challenger's is drawn anew for each search: neither side is better.
    """
    coins = rng.integers(0, COINS, len(queries))
    worth = drafts.worth[queries, coins]
    if twins:
        worth = worth * rng.choice([-1, 1], len(queries))[:, None]
    counted = worth * (rng.random(worth.shape) < users.chances(drafts.grades[queries, coins]))
    return np.where(counted.any(axis=1), np.clip(counted.sum(axis=1), -1, 1), np.nan)


def verdict_of(values: Floats, settings: ExperimentSettings) -> tuple[str, int]:
    """Return the verdict of somebody who looks after every search, and the number of searches that it took.

    `none` where there is none after the last one.
    """
    places = np.flatnonzero(~np.isnan(values))
    needed = math.log(2 / (1 - settings.confidence))
    more, less = (log_capitals(values[places], 0.0, more=side) >= needed for side in (True, False))
    harmed = log_capitals(values[places], -settings.harm_bound, more=False)
    harm = harmed >= math.log(1 / (1 - settings.harm_confidence))
    more[: settings.minimum_visits - 1] = False
    found = {
        name: int(np.flatnonzero(told)[0])
        for name, told in (("harm", harm), ("better", more), ("worse", less))
        if told.any()
    }
    if not found:
        return "none", len(values)
    name = min(found, key=found.__getitem__)
    return name, int(places[found[name]]) + 1


def ab_searches(world: World, rankings: tuple[Floats, Floats], users: Users, weights: Floats) -> dict[str, float]:
    """Return how many searches, of both sides together, an A/B test needs to find the difference of two rankings.

    With the usual size of a two-sided test of 5 % that finds it in 80 % of cases, whose end is fixed beforehand:
    2 (z(97.5 %) + z(80 %))^2 (variance + variance) / difference^2. Means and variances are exact, not simulated.

    Args:
        world: Queries and grades.
        rankings: Scores of champion and challenger.
        users: Who click.
        weights: Share of each query, [queries].

    Returns:
        By measure: the share of searches with a click, and clicks per search; infinite where the challenger has less.
    """
    z = float(norm.ppf(0.975) + norm.ppf(0.8)) ** 2
    found: dict[str, list[tuple[float, float]]] = {"clicked searches": [], "clicks per search": []}
    for scores in rankings:
        grades = np.take_along_axis(world.grades, best(scores, SHOWN), 1)
        chances = users.chances(grades)
        some = weights @ (1 - np.prod(1 - chances, axis=1))
        found["clicked searches"].append((float(some), float(some * (1 - some))))
        clicks, within = chances.sum(1), (chances * (1 - chances)).sum(1)
        mean = weights @ clicks
        found["clicks per search"].append((float(mean), float(weights @ (within + (clicks - mean) ** 2))))
    return {
        name: 2 * z * (first[1] + second[1]) / (second[0] - first[0]) ** 2 if second[0] > first[0] else math.inf
        for name, (first, second) in found.items()
    }
