"""Position bias: results at the top are clicked because they are at the top. Estimates of it from a log.

A log is a flat set of impressions: the 0-based position at which a result was shown, whether it was clicked, and a
number that names the (query, object) pair. All functions are pure and vectorised. `evidence` makes weights of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estudio_core.clickstream.fine_tuning_input import FineTuningInput
from estudio_core.clickstream.session_table import Pairs, dense
from estudio_core.clickstream.table_builder import table_of
from estudio_core.errors import DataError

Floats = NDArray[np.float64]

SMALLEST_CHANCE = 1e-6
"""Keeps logarithms and quotients of chances finite."""
LEAST_COMPARED_CLICKS = 20
"""Clicks on results away from their usual position, below which positions cannot be compared: with 20, the logarithm of
a ratio of two chances has a standard error of 1 / sqrt(20) = 0.22 at best."""


@dataclass(frozen=True)
class Impressions:
    """Shown results, flat: four arrays of equal length, and two by pair.

    Attributes:
        positions: Whole numbers, 0-based place at which it was shown.
        clicks: 1 where it was clicked, else 0; numbers or bool.
        pairs: Whole numbers, that of the (query, object) pair, from 0.
        sessions: Whole numbers, that of the session, from 0.
        queries: int64 [pairs], number of the pair's query, from 0; empty where nobody asks.
        scores: float64 [pairs], by which it was ranked, mean over the sessions that tell it; NaN where none does.
    """

    positions: NDArray[np.integer]
    clicks: NDArray[Any]
    pairs: NDArray[np.integer]
    sessions: NDArray[np.integer]
    queries: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    scores: Floats = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        """Take the pairs for those of one query without scores, where that is not said."""
        count = int(self.pairs.max(initial=-1)) + 1
        if len(self.queries) == 0:
            object.__setattr__(self, "queries", np.zeros(count, dtype=np.int64))
        if len(self.scores) == 0:
            object.__setattr__(self, "scores", np.full(count, np.nan))

    @classmethod
    def of(cls, sessions: Iterable[FineTuningInput]) -> Impressions:
        """Flatten sessions, in their order."""
        table = table_of(sessions)
        pairs = Pairs.of(table, table.keys)
        return cls(
            table.of_result("position").astype(np.int32),
            (table.columns.levels > 0)[table.of_result("level")],
            pairs.of_result,
            table.owners,
            dense(pairs.query)[0],
            mean_of_known(table.of_result("rank"), pairs.of_result, len(pairs.query)),
        )

    def where(self, kept: NDArray[np.bool_]) -> Impressions:
        """Return the impressions for which `kept` holds; pairs keep their numbers."""
        return Impressions(
            self.positions[kept], self.clicks[kept], self.pairs[kept], self.sessions[kept], self.queries, self.scores
        )

    @cached_property
    def clicks_above(self) -> NDArray[np.int64]:
        """How much above it was clicked in its session, [impressions]."""
        order = in_reading_order(self.sessions, self.positions)
        clicked, owner = self.clicks[order] > 0, self.sessions[order]
        before: NDArray[np.int64] = np.cumsum(clicked) - clicked
        start = np.flatnonzero(np.diff(owner, prepend=-1))
        above = np.empty(len(owner), dtype=np.int64)
        above[order] = before - np.repeat(before[start], np.diff(start, append=len(owner)))
        return above


def in_reading_order(sessions: NDArray[np.integer], positions: NDArray[np.integer]) -> NDArray[np.int64] | slice:
    """Return what sorts impressions by session and position; all of them as they are where that is their order."""
    step = np.diff(sessions)
    if not (step < 0).any() and not ((step == 0) & (np.diff(positions) < 0)).any():
        return slice(None)
    return np.lexsort((positions, sessions))


def mean_of_known(values: Floats, groups: NDArray[np.integer], count: int) -> Floats:
    """Return the mean of each group's finite values, [count]; NaN where it has none.

    >>> mean_of_known(np.array([1.0, np.nan, 3.0]), np.array([0, 0, 0]), 2).tolist()
    [2.0, nan]
    """
    told = np.isfinite(values)
    tells = np.bincount(groups[told], minlength=count)
    totals = np.bincount(groups[told], weights=values[told], minlength=count)
    means: Floats = np.divide(totals, tells, out=np.full(count, np.nan), where=tells > 0)
    return means


def click_rates(positions: NDArray[np.integer], clicks: ArrayLike) -> Floats:
    """Return clicks per impression at each position; 0 where nothing was shown.

    >>> click_rates(np.array([0, 0, 1, 1]), [1, 1, 1, 0]).tolist()
    [1.0, 0.5]
    """
    shown = np.bincount(positions)
    clicked = np.bincount(positions, weights=np.asarray(clicks, dtype=np.float64))
    rates: Floats = clicked / np.maximum(shown, 1)
    return rates


def coec(positions: NDArray[np.integer], clicks: ArrayLike, pairs: NDArray[np.integer]) -> Floats:
    """Return, for each pair, its clicks over the clicks that its positions let expect; 1 is an average result.

    0 for a pair whose positions were never clicked.

    >>> coec(np.array([0, 1, 0, 1]), [1, 0, 1, 1], np.array([0, 1, 2, 3])).tolist()
    [1.0, 0.0, 1.0, 2.0]

    Source: Zhang and Jones, "Comparing Click Logs and Editorial Labels for Training Query Rewriting" (WWW 2007).
    """
    expected = np.bincount(pairs, weights=click_rates(positions, clicks)[positions])
    observed = np.bincount(pairs, weights=np.asarray(clicks, dtype=np.float64))
    return np.divide(observed, expected, out=np.zeros(len(observed)), where=expected > 0)


def em_propensities(
    positions: NDArray[np.integer],
    clicks: ArrayLike,
    pairs: NDArray[np.integer],
    *,
    iterations: int = 500,
    tolerance: float = 1e-6,
    prior_strength: float = 1.0,
) -> Floats:
    """Estimate the chance that each position is examined, relative to the likeliest, by EM of the position-based model.

    P(click) = examination(position) x attraction(pair). Impressions of the same pair at the same position are
    counted once with their number, so a step costs as much as there are distinct (pair, position).

    Args:
        positions: [n] 0-based.
        clicks: [n] 0 or 1.
        pairs: [n] number of the (query, object) pair.
        iterations: Most EM steps.
        tolerance: Stop when no propensity changes by more.
        prior_strength: Impressions' worth of belief that a pair is as attractive as the average one; without it the
            attraction of a pair that was shown once is 0 or 1, and the estimate follows noise.

    Raises:
        DataError: fewer than 20 clicks on pairs away from their usual position, so that position and attraction cannot
            be told apart.

    Source: Wang et al., "Position Bias Estimation for Unbiased Learning to Rank in Personal Search" (WSDM 2018).
    """
    (pair, position), shown, clicked = cells(positions, clicks, pairs)
    _require_several_positions(pair, clicked)
    examined = np.maximum(click_rates(positions, clicks), SMALLEST_CHANCE)
    examined = examined / examined.max()
    mean = float(clicked.sum() / shown.sum() / examined[position].mean())
    belief = min(max(mean, SMALLEST_CHANCE), 1.0)
    per_pair = np.bincount(pair, weights=shown)
    per_position = np.bincount(position, weights=shown)
    attraction = (np.bincount(pair, weights=clicked) + prior_strength * belief) / (per_pair + prior_strength)
    for _ in range(iterations):
        e, a = examined[position], attraction[pair]
        no_click = np.maximum(1.0 - e * a, SMALLEST_CHANCE)
        was_examined = clicked + (shown - clicked) * e * (1.0 - a) / no_click
        was_attractive = clicked + (shown - clicked) * a * (1.0 - e) / no_click
        updated = np.bincount(position, weights=was_examined) / np.maximum(per_position, 1.0)
        attraction = (np.bincount(pair, weights=was_attractive) + prior_strength * belief) / (per_pair + prior_strength)
        change = float(np.abs(updated - examined).max())
        examined = updated
        if change < tolerance:
            break
    return _relative(examined)


def harvested_propensities(positions: NDArray[np.integer], clicks: ArrayLike, pairs: NDArray[np.integer]) -> Floats:
    """Estimate relative examination from pairs that rankings put at different positions.

    For two positions, only pairs shown at both are compared: their click rates there differ by examination alone. The
    log-ratios of all pairs of positions are joined by weighted least squares (weight: clicks behind the ratio).

    Returns:
        [positions], 1 at the topmost. NaN where no chain of comparisons leads to the topmost position.

    Raises:
        DataError: fewer than 20 clicks on pairs away from their usual position, or no comparison with the topmost one.

    Source: Agarwal et al., "Estimating Position Bias without Intrusive Interventions" (WSDM 2019), whose
    interventional sets these are; least squares stand in for its likelihood.
    """
    (pair, position), shown, clicked = cells(positions, clicks, pairs)
    _require_several_positions(pair, clicked)
    count = int(position.max()) + 1
    rate = np.zeros((int(pair.max()) + 1, count))
    support = np.zeros_like(rate)
    rate[pair, position] = clicked / shown
    support[pair, position] = shown
    laplacian, target = np.zeros((count, count)), np.zeros(count)
    for high in range(count):
        for low in range(high + 1, count):
            # Each pair weighs by its smaller support, so that one position's crowd does not hide the other's few.
            weight = np.minimum(support[:, high], support[:, low])
            at_high, at_low = float(weight @ rate[:, high]), float(weight @ rate[:, low])
            if at_high <= 0 or at_low <= 0:
                continue
            certainty = 1.0 / (1.0 / at_high + 1.0 / at_low)
            laplacian[[high, low], [high, low]] += certainty
            laplacian[[high, low], [low, high]] -= certainty
            difference = certainty * np.log(at_high / at_low)
            target[high] += difference
            target[low] -= difference
    reached = _connected_to_top(laplacian)
    if reached.sum() == 1:
        raise DataError(
            "No result was clicked both at the topmost position and at another one, so nothing can be compared with "
            "the topmost. Take examination='em' or 'power_law', or log several rankings."
        )
    solved = np.full(count, np.nan)
    solved[reached] = np.linalg.lstsq(laplacian[np.ix_(reached, reached)], target[reached], rcond=None)[0]
    propensities: Floats = np.exp(solved - solved[0])
    return propensities


def effective_sample_size(weights: ArrayLike) -> float:
    """Return how many equally weighted clicks would be as certain as these: `sum(w)**2 / sum(w**2)`; 0 for none.

    >>> effective_sample_size([1, 1, 1, 1]), effective_sample_size([3, 1])
    (4.0, 1.6)

    Source: Kish, "Survey Sampling" (1965).
    """
    values = np.asarray(weights, dtype=np.float64)
    squares = float((values**2).sum())
    return float(values.sum()) ** 2 / squares if squares > 0 else 0.0


def cells(
    positions: NDArray[np.integer], clicks: ArrayLike, pairs: NDArray[np.integer]
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return the distinct (pair, position) as [2, cells], and impressions and clicks of each."""
    distinct, cell = np.unique(np.stack([pairs, positions]), axis=1, return_inverse=True)
    cell = cell.ravel()
    shown = np.bincount(cell).astype(np.float64)
    clicked = np.bincount(cell, weights=np.asarray(clicks, dtype=np.float64)).astype(np.float64)
    return distinct, shown, clicked


def _require_several_positions(pair: NDArray[np.int64], clicked: Floats) -> None:
    """Refuse cells (pair, position) in which too few clicks fell on pairs away from their usual position."""
    usual = np.zeros(int(pair.max(initial=-1)) + 1)
    np.maximum.at(usual, pair, clicked)
    compared = int(clicked.sum() - usual.sum())
    if compared < LEAST_COMPARED_CLICKS:
        raise DataError(
            f"{compared} clicks fell on results away from the position where they are clicked most, and "
            f"{LEAST_COMPARED_CLICKS} are needed to tell position and attraction apart. Give the examination by "
            "position, take 'power_law', or log several rankings."
        )


def _connected_to_top(laplacian: Floats) -> NDArray[np.bool_]:
    reached = np.zeros(len(laplacian), dtype=bool)
    reached[0] = True
    for _ in range(len(laplacian)):
        reached |= (laplacian[:, reached] < 0).any(axis=1)
    return reached


def _relative(examined: Floats) -> Floats:
    """Return chances relative to the likeliest position, in (0, 1]: few clicks at the top do not lift all others."""
    relative: Floats = np.clip(examined / examined.max(), SMALLEST_CHANCE, 1.0)
    return relative
