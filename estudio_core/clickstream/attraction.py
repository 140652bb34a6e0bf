"""How likely a result is clicked once it is looked at, from all sessions of its query together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc  # type: ignore[import-untyped]

from estudio_core.clickstream.click_attention import ScoreCurve, fit_levels, standardised
from estudio_core.clickstream.examination_curve import Examination
from estudio_core.clickstream.position_bias import Floats, Impressions

PRIOR_STRENGTHS = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Looks' worth of belief in what is expected of a result: the likeliest by the log is taken."""
PRIOR_STRENGTH = 2.0
"""The strength where a log does not tell."""
_LEAST, _MOST = 1e-4, 0.95  # of what is expected: a prior at 0 or 1 could learn nothing
_EDGES = np.unique(np.concatenate([[0.0], np.geomspace(1e-6, 0.2, 128), np.linspace(0.2, 1.0, 65)]))
"""Attractions between which a belief is taken for even: relative steps of a tenth where few click, and of 0.0125."""
_EXPECTATIONS = 24  # distinct priors; expectations in between take the nearest one, in proportion
_CHUNK = 50_000
_ENOUGH_PAIRS = 20_000  # to tell the strength of the prior


@dataclass(frozen=True)
class Attraction:
    """Posterior means.

    Attributes:
        of_pair: float64 [pairs], by the log's number of the (query, result) pair.
        expected: float64 [pairs], of the prior: what scores and the query's other results let expect.
        lowered: float64 [pairs], 0 to 1: share by which skips lower the estimate of somebody who would believe little
            before (`PRIOR_STRENGTH`) below what is expected of the result, and below the average.
        average: Of the log.
        strength: Of the prior, looks.
    """

    of_pair: Floats
    expected: Floats
    lowered: Floats
    average: float
    strength: float


def posterior_attraction(log: Impressions, examination: Examination, shared: bool = True) -> Attraction:
    """Return the posterior mean of each result's attraction under the position-based model.

    P(click) = examination x attraction(query, result), independently; examination is that of the position, less below
    clicks where users leave at them. The prior is a Beta distribution around what is expected of the result: with
    `shared`, from the score by which it was ranked and how the query's results are clicked in all, as learned from all
    queries (`expected_attraction`), as firmly as the log says; else around the log's average.

    >>> from estudio_core.clickstream.examination_curve import PowerLaw
    >>> positions, pairs = np.tile([0, 1], 20), np.tile([0, 1], 20)
    >>> clicks, sessions = np.tile([1.0, 0.0], 20), np.repeat(np.arange(20), 2)
    >>> always, never = posterior_attraction(Impressions(positions, clicks, pairs, sessions), PowerLaw.given(1)).of_pair
    >>> bool(always > 0.9 > 0.2 > never)
    True

    Args:
        log: Shown results with positions and clicks.
        examination: Chance that a position is looked at.
        shared: Whether queries share what they tell.

    Source: the position-based model of Craswell, Zoeter, Taylor, Ramsey, "An Experimental Comparison of Click
    Position-Bias Models" (WSDM 2008); the prior is ours, its strength empirical Bayes (Robbins 1956).
    """
    count = len(log.queries)
    if count == 0:
        return Attraction(np.empty(0), np.empty(0), np.empty(0), _LEAST, PRIOR_STRENGTH)
    examined = examination.at(log.positions) * examination.below(log.clicks_above)
    seen = _Seen.of(log, examined, count)
    looks: Floats = np.bincount(log.pairs, weights=examined, minlength=count).astype(np.float64)
    # A click was a look, however seldom the position is looked at; a log of clicks alone has no more looks than these.
    average = float(
        np.clip(seen.clicks.sum() / max(float(looks.sum()), float(seen.clicks.sum()), 1e-12), _LEAST, _MOST)
    )
    expected = np.full(count, average)
    strength = PRIOR_STRENGTH
    if shared:
        expected = np.clip(expected_attraction(log, looks, seen.clicks, average), _LEAST, _MOST)
        strength = _likeliest_strength(seen, expected)
    open_minded = _posterior(seen, expected, PRIOR_STRENGTH)[0]
    found = open_minded if strength == PRIOR_STRENGTH else _posterior(seen, expected, strength)[0]
    lowered = np.clip(1.0 - open_minded / np.minimum(expected, average), 0.0, 1.0)
    return Attraction(found, expected, lowered, average, strength)


def expected_attraction(log: Impressions, looks: Floats, clicks: Floats, average: float) -> Floats:
    """Return what is expected of each pair before its own clicks, [pairs]: a curve of its score times a level.

    The curve, a natural cubic spline of the score within its query, is learned from all queries; the level of a query
    from all of its clicks, shrunk towards 1. A pair whose score is not known has the level alone.

    Args:
        log: Shown results.
        looks: How often each pair was looked at, [pairs].
        clicks: On each pair.
        average: Of the log.
    """
    queries = int(log.queries.max()) + 1
    scores = standardised(log.scores, log.queries)
    known = np.isfinite(scores)
    filled = np.where(known, scores, 0.0)
    features = ScoreCurve.of(scores[known]).features(filled) * known[:, None]
    if not features.any() or not clicks.any():
        features = np.zeros((len(looks), 1))
    fit, level = fit_levels(log.queries, looks, clicks, features, queries, 1.0)
    curve = np.exp(np.clip(features @ fit.coefficients, -20.0, 20.0))
    expected = curve * level[log.queries]
    total = float(looks @ expected)
    return np.asarray(expected * (average * float(looks.sum()) / total if total > 0 else average))


@dataclass(frozen=True)
class _Seen:
    """Clicks by pair, and skips by (pair, chance that it was looked at); the latter sorted by pair.

    Attributes:
        clicks: [pairs].
        pair: [cells].
        chance: Number of the chance of each cell, in `chances`.
        skips: [cells].
        chances: Distinct chances.
    """

    clicks: Floats
    pair: NDArray[np.int64]
    chance: NDArray[np.int64]
    skips: Floats
    chances: Floats

    @classmethod
    def of(cls, log: Impressions, examined: Floats, count: int) -> _Seen:
        chances, number = np.unique(examined, return_inverse=True)
        skipped = log.clicks <= 0
        keys, cell = np.unique(
            log.pairs[skipped].astype(np.int64) * len(chances) + number[skipped], return_inverse=True
        )
        return cls(
            np.bincount(log.pairs, weights=log.clicks, minlength=count).astype(np.float64),
            keys // len(chances),
            keys % len(chances),
            np.bincount(cell, minlength=len(keys)).astype(np.float64),
            chances,
        )


def _likeliest_strength(seen: _Seen, expected: Floats) -> float:
    """Return the strength of the prior under which the log is likeliest; of equally likely ones the least."""
    step = -(-len(expected) // _ENOUGH_PAIRS)
    told = [float(_posterior(seen, expected, strength, step)[1].sum()) for strength in PRIOR_STRENGTHS]
    best = np.flatnonzero(np.array(told) >= max(told) - 0.5)  # a log of single looks tells them not apart
    return PRIOR_STRENGTHS[int(best[0])]


def _posterior(seen: _Seen, expected: Floats, strength: float, step: int = 1) -> tuple[Floats, Floats]:
    """Return mean attraction, and the logarithm of the chance of what was seen, of each `step`-th pair."""
    grid, prior, scale, kind = _priors(expected, strength)
    not_clicked = np.log1p(-np.minimum(seen.chances[:, None, None] * grid, 1 - 1e-12))  # [chances, priors, points]
    log_grid = np.log(grid)
    chosen = np.arange(0, len(expected), step)
    means, evidence = np.empty(len(chosen)), np.empty(len(chosen))
    bounds = np.searchsorted(seen.pair, np.arange(len(expected) + 1))
    size = max(1, _CHUNK // grid.shape[1])
    for start in range(0, len(chosen), size):  # a bound of memory
        pairs = chosen[start : start + size]
        of = kind[pairs]
        logs = prior[of] + seen.clicks[pairs, None] * log_grid[of]
        lengths = bounds[pairs + 1] - bounds[pairs]
        cells = np.repeat(bounds[pairs] - np.cumsum(lengths) + lengths, lengths) + np.arange(int(lengths.sum()))
        row = np.repeat(np.arange(len(pairs)), lengths)
        np.add.at(logs, row, seen.skips[cells, None] * not_clicked[seen.chance[cells], of[row]])
        highest = logs.max(axis=1, keepdims=True)
        weights = np.exp(logs - highest)
        total = weights.sum(axis=1)
        means[start : start + size] = (weights * grid[of]).sum(axis=1) / total
        evidence[start : start + size] = np.log(total) + highest[:, 0]
    return np.minimum(means * scale[chosen], 1.0), evidence


def _priors(expected: Floats, strength: float) -> tuple[Floats, Floats, Floats, NDArray[np.int64]]:
    """Return a grid of attractions, the logarithm of a prior on it, and which of the priors is each pair's.

    A prior is the Beta distribution of a mean and a strength, cut at `_EDGES`: its mass and its mean between two of
    them, so that its own mean is kept however much of it lies near 0.

    Returns grid and prior [priors, points], the quotient of expectation and mean of its prior, and its number, [pairs].
    """
    logs = np.log(expected)
    low, high = float(logs.min()), float(logs.max())
    steps = 1 if high - low < 1e-9 else _EXPECTATIONS
    width = max((high - low) / steps, 1e-9)
    kind = np.minimum(((logs - low) / width).astype(np.int64), steps - 1)
    centre = np.exp(low + (np.arange(steps) + 0.5) * width) if steps > 1 else np.array([float(expected[0])])
    alpha, beta = centre[:, None] * strength, (1 - centre[:, None]) * strength
    mass = np.diff(betainc(alpha, beta, _EDGES), axis=1)
    mean = centre[:, None] * np.diff(betainc(alpha + 1, beta, _EDGES), axis=1)
    middle = np.broadcast_to((_EDGES[1:] + _EDGES[:-1]) / 2, mass.shape)
    grid = np.divide(mean, mass, out=middle.copy(), where=mass > 1e-200)
    grid = np.clip(grid, np.maximum(_EDGES[:-1], 1e-12), _EDGES[1:])
    return grid, np.log(np.maximum(mass, 1e-300)), expected / centre[kind], kind
