"""How likely a result is clicked once it is looked at, from all sessions of its query together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from estudio_core.clickstream.examination_curve import Examination
from estudio_core.clickstream.position_bias import Floats, Impressions, cells

PRIOR_STRENGTH = 2.0
"""Looks' worth of belief that a result is as attractive as the average one."""
_POINTS = 64
_CHUNK = 100_000
_LEAST, _MOST = 0.02, 0.95  # of the average: a prior at 0 or 1 could learn nothing


@dataclass(frozen=True)
class Attraction:
    """Posterior means, float64 [pairs], by the log's number of the (query, result) pair; the prior's mean."""

    of_pair: Floats
    average: float


def posterior_attraction(log: Impressions, examination: Examination) -> Attraction:
    """Return the posterior mean of each result's attraction under the position-based model.

    P(click) = examination(position) x attraction(query, result), independently; the prior is a Beta distribution
    around the log's average. The posterior is integrated over a grid of 64 attractions, for all results at once.

    >>> from estudio_core.clickstream.examination_curve import PowerLaw
    >>> positions, pairs = np.tile([0, 1], 20), np.tile([0, 1], 20)
    >>> clicks, sessions = np.tile([1.0, 0.0], 20), np.repeat(np.arange(20), 2)
    >>> always, never = posterior_attraction(Impressions(positions, clicks, pairs, sessions), PowerLaw.given(1)).of_pair
    >>> bool(always > 0.9 > 0.2 > never)
    True

    Args:
        log: Shown results with positions and clicks.
        examination: Chance that a position is looked at.

    Source: the position-based model of Craswell, Zoeter, Taylor, Ramsey, "An Experimental Comparison of Click
    Position-Bias Models" (WSDM 2008); the prior is ours.
    """
    if len(log.pairs) == 0:
        return Attraction(np.empty(0), _LEAST)
    (pairs, positions), shown, clicks = cells(log.positions, log.clicks, log.pairs)
    examined = examination.at(positions)
    average = float(np.clip(clicks.sum() / (shown * examined).sum(), _LEAST, _MOST))
    grid = (np.arange(_POINTS) + 0.5) / _POINTS
    prior = (average * PRIOR_STRENGTH - 1) * np.log(grid) + ((1 - average) * PRIOR_STRENGTH - 1) * np.log1p(-grid)
    log_posterior = np.tile(prior, (int(pairs.max()) + 1, 1))
    for start in range(0, len(pairs), _CHUNK):  # a bound of memory
        part = slice(start, start + _CHUNK)
        likelihood = clicks[part, None] * np.log(grid) + (shown - clicks)[part, None] * np.log1p(
            -examined[part, None] * grid
        )
        np.add.at(log_posterior, pairs[part], likelihood)
    weights = np.exp(log_posterior - log_posterior.max(axis=1, keepdims=True))
    return Attraction((weights @ grid) / weights.sum(axis=1), average)
