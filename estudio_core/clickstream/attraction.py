"""How likely a result is clicked once it is looked at, from all sessions of its query together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estudio_core.preprocessing.ranking_data import FineTuningInput

PRIOR_STRENGTH = 2.0
"""Looks' worth of belief that a result is as attractive as the average one."""
_POINTS = 64
_CHUNK = 100_000
_LEAST, _MOST = 0.02, 0.95  # of the average: a prior at 0 or 1 could learn nothing


@dataclass(frozen=True)
class Attraction:
    """Posterior means by (query, result), and the average over the log, which is the prior's mean."""

    by_pair: Mapping[tuple[str, str], float]
    average: float


def posterior_attraction(sessions: Sequence[FineTuningInput], exponent: float) -> Attraction:
    """Return the posterior mean of each result's attraction under the position-based model.

    P(click) = (position + 1)**-exponent x attraction(query, result), independently; the prior is a Beta distribution
    around the log's average. The posterior is integrated over a grid of 64 attractions, for all results at once.

    >>> seen = [FineTuningInput(str(i), "q", ("a", "b"), (0, 1), (None, None), (1.0, 0.0)) for i in range(20)]
    >>> found = posterior_attraction(seen, 1.0)
    >>> found.by_pair["q", "a"] > 0.9 > 0.2 > found.by_pair["q", "b"]
    True

    Args:
        sessions: Shown results with positions and clicks.
        exponent: Of the examination; 0: every position is looked at.

    Source: the position-based model of Craswell, Zoeter, Taylor, Ramsey, "An Experimental Comparison of Click
    Position-Bias Models" (WSDM 2008); the prior is ours.
    """
    numbers: dict[tuple[str, str], int] = {}
    cells: dict[tuple[int, int], list[int]] = {}
    for session in sessions:
        for result, position, weight in zip(session.results, session.positions, session.click_weights, strict=True):
            pair = numbers.setdefault((session.query, result), len(numbers))
            cell = cells.setdefault((pair, position), [0, 0])
            cell[0] += 1
            cell[1] += weight > 0
    if not cells:
        return Attraction({}, _LEAST)
    pairs, positions = np.array(list(cells), dtype=np.int64).T
    shown, clicks = np.array(list(cells.values()), dtype=np.float64).T
    examined = (positions + 1.0) ** -exponent
    average = float(np.clip(clicks.sum() / (shown * examined).sum(), _LEAST, _MOST))
    grid = (np.arange(_POINTS) + 0.5) / _POINTS
    prior = (average * PRIOR_STRENGTH - 1) * np.log(grid) + ((1 - average) * PRIOR_STRENGTH - 1) * np.log1p(-grid)
    log_posterior = np.tile(prior, (len(numbers), 1))
    for start in range(0, len(pairs), _CHUNK):  # a bound of memory
        part = slice(start, start + _CHUNK)
        likelihood = clicks[part, None] * np.log(grid) + (shown - clicks)[part, None] * np.log1p(
            -examined[part, None] * grid
        )
        np.add.at(log_posterior, pairs[part], likelihood)
    weights = np.exp(log_posterior - log_posterior.max(axis=1, keepdims=True))
    means: NDArray[np.float64] = (weights @ grid) / weights.sum(axis=1)
    return Attraction(dict(zip(numbers, means.tolist(), strict=True)), average)
