"""Searches whose truth is known: graded results, a champion that shows them, candidates, and click models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.click_log import ClickLog
from estudio_core.evaluation.click_gain import K, RankedPairs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Clicked = NDArray[np.bool_]

QUERIES, ITEMS, SHOWN, GRADES = 400, 200, 20, 3
POPULARITY = 0.5
"""Queries are asked in proportion to 1 / rank^0.5."""
CHAMPION_NOISE = 1.0
"""Standard deviation of the champion's errors, in grades: nDCG@10 0.66."""
DISCOUNT = 1 / np.log2(np.arange(2, K + 2))


_GAINS = (2.0 ** np.arange(GRADES + 1) - 1) / (2.0**GRADES - 1)


def gain(grades: Ints) -> Floats:
    """Return gains of grades, 0 to 1."""
    return np.asarray(_GAINS[grades], dtype=np.float64)


@dataclass(frozen=True)
class World:
    """Queries with graded items and what the champion makes of them.

    Attributes:
        grades: [queries, items].
        errors: [queries, items], of the champion, standard normal.
        champion: [queries, items], scores: grade + noise x error.
        shown: [queries, 20], items in the champion's order.
    """

    grades: Ints
    errors: Floats
    champion: Floats
    shown: Ints

    @classmethod
    def drawn(cls, rng: np.random.Generator, queries: int = QUERIES) -> World:
        """Draw queries, 3 to 15 relevant items each."""
        relevant = np.arange(ITEMS) < rng.integers(3, 16, queries)[:, None]
        grades = np.where(relevant, rng.choice([1, 2, 3], size=(queries, ITEMS), p=[0.4, 0.35, 0.25]), 0)
        errors = rng.standard_normal((queries, ITEMS))
        champion = grades + CHAMPION_NOISE * errors
        return cls(grades, errors, champion, best(champion, SHOWN))

    @cached_property
    def ideal(self) -> Floats:
        """DCG@10 of the best order of each query."""
        return np.asarray(gain(-np.sort(-self.grades, axis=1)[:, :K]) @ DISCOUNT)

    def ndcg(self, ranked: Ints) -> Floats:
        """Return the true nDCG@10 of each query, over all items."""
        return np.asarray(gain(np.take_along_axis(self.grades, ranked[:, :K], 1)) @ DISCOUNT / self.ideal)


def best(scores: Floats, k: int) -> Ints:
    """Return the `k` best columns of each row, best first."""
    top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return np.asarray(np.take_along_axis(top, np.argsort(-np.take_along_axis(scores, top, 1), axis=1), 1))


def noisy(world: World, rng: np.random.Generator, noise: float, correlation: float) -> Floats:
    """Return a candidate's scores whose errors correlate with the champion's."""
    own = rng.standard_normal(world.grades.shape)
    scores: Floats = world.grades + noise * (correlation * world.errors + np.sqrt(1 - correlation**2) * own)
    return scores


@cache
def noise_for(difference: float, correlation: float) -> float:
    """Return the noise with which a candidate's true nDCG@10 differs from the champion's by `difference`."""
    if not difference:
        return CHAMPION_NOISE
    low, high = 0.0, 4.0
    for _ in range(16):
        middle = (low + high) / 2
        rng = np.random.default_rng(1)
        world = World.drawn(rng, 3000)
        found = world.ndcg(best(noisy(world, rng, middle, correlation), K)) - world.ndcg(world.shown)
        low, high = (middle, high) if found.mean() > difference else (low, middle)
    return (low + high) / 2


def candidates(correlation: float) -> dict[str, Callable[[World, np.random.Generator], Floats]]:
    """Return what gives each candidate's scores, by name."""

    def by(difference: float, correlation: float) -> Callable[[World, np.random.Generator], Floats]:
        return lambda world, rng: noisy(world, rng, noise_for(difference, correlation), correlation)

    found: dict[str, Callable[[World, np.random.Generator], Floats]] = {}
    for kind, shared in (("correlated", correlation), ("independent", 0.0)):
        found[f"equal, {kind}"] = by(0.0, shared)
        found[f"worse by 0.05, {kind}"] = by(-0.05, shared)
        for difference in (0.02, 0.05, 0.10):
            found[f"better by {difference:.2f}, {kind}"] = by(difference, shared)
    return found | {
        "reversed": _reversed,
        "collapsed": lambda world, rng: np.tile(rng.permutation(ITEMS) * 1e-6, (len(world.grades), 1)),
        "filler": _filler,
        "perfect": lambda world, rng: world.grades + 1e-3 * rng.standard_normal(world.grades.shape),
        "perfect on what was shown": _perfect_on_shown,
    }


def _only_shown(world: World, scores: Floats) -> Floats:
    """Return scores with everything that was not shown last."""
    found = np.full(world.grades.shape, -1e9)
    np.put_along_axis(found, world.shown, scores, 1)
    return found


def _reversed(world: World, rng: np.random.Generator) -> Floats:
    return _only_shown(world, np.tile(np.arange(float(SHOWN)), (len(world.grades), 1)))


def _perfect_on_shown(world: World, rng: np.random.Generator) -> Floats:
    grades = np.take_along_axis(world.grades, world.shown, 1)
    return _only_shown(world, grades + 1e-3 * rng.standard_normal(grades.shape))


def _filler(world: World, rng: np.random.Generator) -> Floats:
    """Six irrelevant items that nobody saw on top, then a perfect order of what was shown."""
    scores = _perfect_on_shown(world, rng)
    unseen = np.ones(world.grades.shape, dtype=bool)
    np.put_along_axis(unseen, world.shown, False, 1)
    unseen &= world.grades == 0
    return np.where(unseen & (np.cumsum(unseen, axis=1) <= 6), 10.0, scores)


@dataclass(frozen=True)
class Clicks:
    """A click model by name, with the chance that a looked-at irrelevant result is clicked."""

    name: str
    noise: float

    def drawn(self, rng: np.random.Generator, grades: Ints) -> Clicked:
        """Draw clicks of sessions that were shown results of these grades, [sessions, shown]."""
        attraction = self.noise + (1 - self.noise) * gain(grades)
        place = np.arange(grades.shape[1])
        kind, _, number = self.name.partition(" ")
        chance = rng.random(grades.shape)
        if kind == "PBM":
            return np.asarray(chance < (place + 1.0) ** -float(number) * attraction)
        if kind == "exponential":
            return np.asarray(chance < float(number) ** place * attraction)
        if kind == "fold":  # four results fit the screen
            return np.asarray(chance < np.where(place < 4, 1.0, 0.25) * attraction)
        if kind == "trust":
            trusted = attraction + (1 - attraction) * 0.3 / (place + 1)
            return np.asarray(chance < (place + 1.0) ** -1.0 * trusted)
        if kind == "depth":  # everybody reads down to a depth of his own
            return np.asarray((chance < attraction) & (place < np.exp(rng.random(len(grades)) * np.log(25))[:, None]))
        return _sequential(kind, rng, grades, attraction, chance)


def _sequential(kind: str, rng: np.random.Generator, grades: Ints, attraction: Floats, chance: Floats) -> Clicked:
    """Draw clicks of users who read from the top down, and may leave."""
    clicks = np.zeros(grades.shape, dtype=bool)
    looks = np.ones(len(grades), dtype=bool)
    last = np.full(len(grades), -1)
    for place in range(grades.shape[1]):
        if kind == "UBM":
            looks = rng.random(len(grades)) < np.where(last < 0, (place + 1.0) ** -0.5, 0.9 * (place - last) ** -0.8)
        clicked = looks & (chance[:, place] < attraction[:, place])
        clicks[:, place] = clicked
        last[clicked] = place
        if kind == "cascade":
            looks = looks & ~clicked
        elif kind == "DBN":
            satisfied = clicked & (rng.random(len(grades)) < 0.8 * gain(grades[:, place]))
            looks = looks & ~satisfied & (rng.random(len(grades)) < 0.9)
        elif kind == "DCM":
            looks = looks & ~(clicked & (rng.random(len(grades)) > 0.6 * (place + 1.0) ** -0.5))
        elif kind != "UBM":
            raise ValueError(f"No click model {kind!r}.")
    return clicks


def click_log(world: World, rng: np.random.Generator, sessions: int, model: Clicks) -> ClickLog:
    """Return the log of `sessions` searches that were shown the champion's first 20."""
    queries = len(world.grades)
    popularity = (1.0 + rng.permutation(queries)) ** -POPULARITY
    asked = rng.choice(queries, size=sessions, p=popularity / popularity.sum())
    clicks = model.drawn(rng, np.take_along_axis(world.grades, world.shown, 1)[asked])
    places = np.arange(SHOWN)
    return ClickLog(
        sessions=np.repeat(np.arange(sessions), SHOWN),
        positions=np.tile(places, sessions),
        pairs=(asked[:, None] * SHOWN + places).ravel(),
        rewards=clicks.ravel().astype(np.float64),
        queries=np.repeat(np.arange(queries), SHOWN),
        scores=np.take_along_axis(world.champion, world.shown, 1).ravel(),
        clients=np.full(sessions, -1),
    )


def ranked_pairs(world: World, scores: Floats) -> RankedPairs:
    """Return where scores put what was shown."""
    table = np.zeros(world.grades.shape)
    np.put_along_axis(table, best(scores, K), DISCOUNT[None], 1)
    shown = np.take_along_axis(table, world.shown, 1)
    unshown = np.maximum(DISCOUNT.sum() - shown.sum(axis=1), 0.0)
    return RankedPairs(
        shown.ravel(),
        np.where(unshown < 1e-9, 0.0, unshown),
        np.maximum(np.take_along_axis(scores, world.shown, 1), -1e6).ravel(),
    )
