"""How fast attention falls with the position, estimated from the log: the exponent of `(position + 1) ** -exponent`.

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

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.position_bias import Floats, Impressions, cells
from estudio_core.preprocessing.ranking_data import FineTuningInput

ASSUMED_EXPONENT = 1.0
"""Where the log does not tell: the curve of Joachims, Swaminathan, Schnabel (WSDM 2017)."""
GREATEST_EXPONENT = 3.0
WANTED_ERROR = 0.15
"""Standard error below which results at several positions decide alone: that needs no assumption on attraction."""
LARGEST_ERROR = 0.5
"""Standard error above which a log does not tell, and the assumed exponent is taken."""

_STEPS = 100
_RIDGE = 1e-9


@dataclass(frozen=True)
class Examination:
    """Estimate of the exponent.

    Attributes:
        exponent: 0 (every position is looked at) to 3.
        standard_error: Of the exponent, from the curvature of the likelihood; inf for an assumed one.
        basis: `given`. `several positions`: same result at different positions. `fixed rankings`: middle of two
            bounds. `assumed`: too few clicks.
        bounds: The estimate with all of the fall put down to position, and that with scores explaining a part;
            the same number twice where there is only one.
    """

    exponent: float
    standard_error: float
    basis: str
    bounds: tuple[float, float]

    def __str__(self) -> str:
        """Say it in a line."""
        if self.basis == "given":
            return f"{self.exponent:g}, given by the plugin"
        if self.basis == "assumed":
            return f"{self.exponent:g}, assumed: the log has too few clicks to tell"
        low, high = sorted(self.bounds)
        between = f", between {low:.2f} and {high:.2f}" if high > low else ""
        return f"{self.exponent:.2f} ± {self.standard_error:.2f}, estimated from {self.basis}{between}"


def examination_of(sessions: Sequence[FineTuningInput], given: float | None) -> Examination:
    """Return the exponent that is `given`, or where None is, what the log tells."""
    if given is None:
        return estimate_examination(sessions)
    return Examination(given, 0.0, "given", (given, given))


def estimate_examination(sessions: Sequence[FineTuningInput]) -> Examination:
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


def _assumed() -> Examination:
    return Examination(ASSUMED_EXPONENT, float("inf"), "assumed", (ASSUMED_EXPONENT, ASSUMED_EXPONENT))


def _estimate(exponent: float, error: float, basis: str, bounds: tuple[float, float]) -> Examination:
    return Examination(float(np.clip(exponent, 0.0, GREATEST_EXPONENT)), error, basis, bounds)


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
