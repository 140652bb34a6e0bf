"""How fast attention falls with the position: given, or estimated from the log.

Of `(position + 1) ** -exponent`, the exponent is estimated as follows.

Expected clicks are impressions x examination(position) x attraction, a product. Given how many clicks a group of
impressions drew in all, its clicks are spread over its cells in proportion to impressions x examination x whatever
else differs inside the group, so that the group's own attraction cancels out (conditional Poisson regression).

- Groups of one (query, object): only the position differs inside. Needs results that stood at several positions.
- Groups of one query: objects differ too. Taking them as equally attractive puts all of the fall in clicks down to the
  position, which is an upper bound where rankings are any good. Taking attraction as exponential in the score they
  were ranked by lets the score explain what it can, which is a lower bound: scores also carry what only tells
  positions apart. The estimate is the middle of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.examination_curve import ByPosition, Examination, PowerLaw
from estudio_core.clickstream.position_bias import (
    SMALLEST_CHANCE,
    Floats,
    Impressions,
    cells,
    click_rates,
    em_propensities,
    harvested_propensities,
)
from estudio_core.clickstream.ranking_data import FineTuningInput

ASSUMED_EXPONENT = 1.0
"""Where the log does not tell: the curve of Joachims, Swaminathan, Schnabel (WSDM 2017)."""
GREATEST_EXPONENT = 3.0
WANTED_ERROR = 0.15
"""Standard error below which results at several positions decide alone: that needs no assumption on attraction."""
LARGEST_ERROR = 0.5
"""Standard error above which a log does not tell, and the assumed exponent is taken."""

_STEPS = 100
_RIDGE = 1e-9


Kind = Literal["power_law", "em", "harvesting"]


def examination_of(
    sessions: Sequence[FineTuningInput], exponent: float | None = None, kind: Kind | tuple[float, ...] = "power_law"
) -> Examination:
    """Return how attention falls with the position: what is given, or what the log tells.

    Args:
        sessions: The log to estimate from.
        exponent: Of the power law; None: estimated.
        kind: `power_law`; a chance per position by EM (`em_propensities`) or by harvesting
            (`harvested_propensities`), which need results that stood at several positions; or the chances themselves.

    Raises:
        ConfigurationError: a given chance outside of (0, 1].
        DataError: `em` or `harvesting`, and fewer than 20 clicks fell on results away from their usual position.
    """
    if isinstance(kind, tuple):
        return ByPosition(kind, "given by the plugin")
    if kind == "power_law":
        return estimate_examination(sessions) if exponent is None else PowerLaw.given(exponent)
    log = Impressions.of(sessions)
    if kind == "em":
        chances = em_propensities(log.positions, log.clicks, log.pairs)
        # Of a position that was never clicked, no more is known than that: not that it is looked at once in a million.
        chances[click_rates(log.positions, log.clicks) == 0] = np.nan
        return ByPosition(_filled(chances), "estimated by expectation maximisation")
    chances = harvested_propensities(log.positions, log.clicks, log.pairs)
    return ByPosition(_filled(chances), "estimated by intervention harvesting")


def _filled(chances: Floats) -> tuple[float, ...]:
    """Return estimates as chances: above 1 by noise is 1, an unknown one is the known one above it, or the first."""
    known = np.flatnonzero(~np.isnan(chances))
    last = known[np.maximum(np.searchsorted(known, np.arange(len(chances)), side="right") - 1, 0)]
    return tuple(np.clip(chances[last], SMALLEST_CHANCE, 1.0).tolist())


def estimate_examination(sessions: Sequence[FineTuningInput]) -> PowerLaw:
    """Return the exponent that a log tells, or the assumed one.

    Args:
        sessions: Shown results with positions, clicks and (where known) the scores they were ranked by.

    Source: conditional Poisson regression as in Cameron and Trivedi, "Regression Analysis of Count Data" (2013),
    section 9.4; groups of one (query, object) are the interventional sets of Agarwal et al. (WSDM 2019), the use of
    ranking features is that of Wang et al., "Position Bias Estimation for Unbiased Learning to Rank in Personal
    Search" (WSDM 2018).
    """
    if not any(session.events for session in sessions):
        return _assumed()
    counted = _Cells.of(sessions)
    depth = -np.log1p(counted.positions)[:, None]
    moved, error = _fit(counted, depth, counted.pair)
    if error <= WANTED_ERROR:
        return _estimate(moved, error, "several positions", (moved, moved))
    high, error = _fit(counted, depth, counted.query)
    low = high
    if np.isfinite(counted.scores).all() and counted.scores.std() > 0:
        score = (counted.scores - counted.scores.mean()) / counted.scores.std()
        low, error = _fit(counted, np.column_stack([depth, score]), counted.query)
    if error > LARGEST_ERROR:
        return _assumed()
    return _estimate((high + low) / 2, error, "fixed rankings", (low, high))


def _assumed() -> PowerLaw:
    return PowerLaw(ASSUMED_EXPONENT, float("inf"), "assumed", (ASSUMED_EXPONENT, ASSUMED_EXPONENT))


def _estimate(exponent: float, error: float, basis: str, bounds: tuple[float, float]) -> PowerLaw:
    return PowerLaw(float(np.clip(exponent, 0.0, GREATEST_EXPONENT)), error, basis, bounds)


@dataclass(frozen=True)
class _Cells:
    """Distinct (query, object, position): impressions and clicks, score of the object, and the two groups of each."""

    positions: NDArray[np.int64]
    shown: Floats
    clicks: Floats
    scores: Floats
    pair: NDArray[np.int64]
    query: NDArray[np.int64]

    @classmethod
    def of(cls, sessions: Sequence[FineTuningInput]) -> _Cells:
        log = Impressions.of(sessions)
        numbers = {
            query: number for number, query in enumerate(dict.fromkeys(session.query_key for session in sessions))
        }
        query_of = np.array([numbers[session.query_key] for session in sessions], dtype=np.int64)[log.sessions]
        scores = np.array([np.nan if rank is None else rank for session in sessions for rank in session.ranks])
        query_of_pair = np.zeros(int(log.pairs.max()) + 1, dtype=np.int64)
        query_of_pair[log.pairs] = query_of
        score_of_pair = np.bincount(log.pairs, weights=scores) / np.bincount(log.pairs)
        (pair, positions), shown, clicks = cells(log.positions, log.clicks, log.pairs)
        return cls(positions, shown, clicks, score_of_pair[pair], pair, query_of_pair[pair])


def _fit(counted: _Cells, features: Floats, group: NDArray[np.int64]) -> tuple[float, float]:
    """Return the coefficient of the first feature and its standard error, by Newton's method.

    Args:
        counted: Counts.
        features: [cells, k].
        group: Number of each cell's group, whose total of clicks is given.

    A log that says nothing of the coefficient gives (0, inf).
    """
    totals = np.bincount(group, weights=counted.clicks)
    coefficients = np.zeros(features.shape[1])
    information = np.zeros((features.shape[1],) * 2)
    for _ in range(_STEPS):
        expected = counted.shown * np.exp(np.clip(features @ coefficients, -30.0, 30.0))
        share = expected / np.bincount(group, weights=expected)[group]
        mean = np.column_stack([np.bincount(group, weights=share * column) for column in features.T])
        weight = (totals[group] * share)[:, None]
        centred = features - mean[group]
        information = (centred * weight).T @ centred
        gradient = features.T @ (counted.clicks - totals[group] * share)
        step = np.linalg.solve(information + _RIDGE * np.eye(len(coefficients)), gradient)
        coefficients = coefficients + np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < 1e-8:
            break
    variance = np.linalg.pinv(information)[0, 0]
    error = float(np.sqrt(variance)) if variance > 0 else float("inf")
    return (float(coefficients[0]), error) if np.isfinite(error) else (0.0, float("inf"))
