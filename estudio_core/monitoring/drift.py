"""Have users moved away from what the model was trained on? Changes of queries and clicks, told from noise.

A small sample always differs from a large one. Each measure here therefore comes with what it would be by chance: for
queries, with sessions exchanged at random between training and now (a permutation test); for clicks, with a bootstrap
interval over sessions. Only what lies beyond counts as drift. Two-sample tests on what a model sees, with a permutation
test against small samples, are what Rabanser, Günnemann, Lipton, "Failing Loudly: An Empirical Study of Methods for
Detecting Dataset Shift" (NeurIPS 2019) find to work. Sessions of one user or one hour resemble each other, which makes
chance larger than either test thinks: the threshold on top of it is there for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.position_bias import Impressions, click_rates
from estudio_core.errors import DataError
from estudio_core.evaluation.bootstrap import Estimate

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

PERMUTATIONS = 400
"""Exchanges behind a noise floor: enough for its 99th percentile, four of them lying beyond."""
RESAMPLES = 1000
POSITIONS = 10
"""Positions, from the top, whose click-through is compared."""
_CELLS_AT_ONCE = 2_000_000  # float64 numbers of a block of resamples: 16 MB


@dataclass(frozen=True)
class Shift:
    """A measure of change.

    Attributes:
        value: As measured; 0 is no change.
        noise: What it stays below by chance, at the confidence that was asked for.
    """

    value: float
    noise: float

    @property
    def excess(self) -> float:
        """What chance does not explain, 0 or more."""
        return max(0.0, self.value - self.noise)


def new_query_share(reference: Ids, fresh: Ids, *, confidence: float = 0.99, seed: int = 0) -> Shift:
    """Return the share of fresh sessions whose query no reference session asked.

    The long tail makes this large without any drift; the noise floor holds that tail, because exchanged sessions have
    it too.

    >>> new_query_share(np.array([0, 1] * 50), np.array([2] * 20)).value
    1.0

    Args:
        reference: [sessions] number of each session's query, from 0.
        fresh: [sessions] the same numbering.
        confidence: Level of the noise floor.
        seed: Of the exchanges.

    Raises:
        DataError: a side is empty.
    """
    pooled = _pooled(reference, fresh)
    queries = int(pooled.max()) + 1

    def share(is_fresh: NDArray[np.bool_]) -> float:
        asked = np.zeros(queries, dtype=bool)
        asked[pooled[~is_fresh]] = True
        return float((~asked[pooled[is_fresh]]).mean())

    sides = _exchanged(len(reference), len(fresh), seed)
    measured = share(next(sides))
    return Shift(measured, float(np.quantile([share(side) for side in sides], confidence)))


def query_shift(
    reference: Ids, fresh: Ids, vectors: NDArray[np.floating], *, confidence: float = 0.99, seed: int = 0
) -> Shift:
    """Return how far the mean query vector has moved, in root-mean-square distances of a query from the mean.

    Near the share of sessions that ask for something altogether new: half of them moving one such distance away moves
    the mean by half of it. Blind to changes that leave the mean where it is.

    >>> far = query_shift(np.zeros(100, dtype=int), np.ones(100, dtype=int), np.eye(2))
    >>> round(far.value, 6), far.noise < 0.5
    (2.0, True)

    Args:
        reference: [sessions] row of each session's query in `vectors`.
        fresh: [sessions] the same.
        vectors: [queries, dimensions].
        confidence: Level of the noise floor.
        seed: Of the exchanges.

    Raises:
        DataError: a side is empty.

    Source: the maximum mean discrepancy with a linear kernel and a permutation test, Gretton et al., "A Kernel
    Two-Sample Test" (JMLR 2012), over the spread of the pooled queries.
    """
    pooled = _pooled(reference, fresh)
    table = np.asarray(vectors, dtype=np.float64)
    counts = np.bincount(pooled, minlength=len(table)).astype(np.float64)
    table = table - counts @ table / len(pooled)
    spread = float(np.sqrt(counts @ (table**2).sum(axis=1) / len(pooled)))
    if spread == 0:
        return Shift(0.0, 0.0)

    def distance(is_fresh: NDArray[np.bool_]) -> float:
        # The pooled mean is 0, so the two sides' sums are opposite.
        total = np.bincount(pooled[is_fresh], minlength=len(table)) @ table
        return float(np.linalg.norm(total) * (1 / len(fresh) + 1 / len(reference)) / spread)

    sides = _exchanged(len(reference), len(fresh), seed)
    measured = distance(next(sides))
    return Shift(measured, float(np.quantile([distance(side) for side in sides], confidence)))


def click_change(reference: Impressions, fresh: Impressions, *, confidence: float = 0.99, seed: int = 0) -> Estimate:
    """Return fresh clicks over those that the reference's click-through by position lets expect; 1 is no change.

    Position by position, so that longer or shorter lists change nothing. The first `POSITIONS` count.

    Returns:
        The ratio and its bootstrap interval over sessions of both sides; `n` fresh sessions.

    Raises:
        DataError: a side shows nothing there, or the reference has no click.

    Source: clicks over expected clicks, Zhang and Jones, "Comparing Click Logs and Editorial Labels for Training Query
    Rewriting" (WWW 2007); the Poisson bootstrap, Chamandy et al., "Estimating Uncertainty for Massive Data Streams"
    (Google, 2012).
    """
    before, now = _by_session(reference), _by_session(fresh)
    if not (before[0].any() and now[0].any() and before[1].any()):
        raise DataError("Click-through is compared where both sides show results and the earlier one has clicks.")
    ratios = [_clicks_over_expected(before, now, np.ones((1, len(before[0]))), np.ones((1, len(now[0]))))]
    mean = float(ratios[0][0])
    rng = np.random.default_rng(seed)
    rows = max(1, min(RESAMPLES, _CELLS_AT_ONCE // max(len(before[0]), len(now[0]))))
    drawn: list[Floats] = []
    for start in range(0, RESAMPLES, rows):
        size = min(rows, RESAMPLES - start)
        weights = [rng.poisson(1.0, (size, len(side[0]))).astype(np.float64) for side in (before, now)]
        drawn.append(_clicks_over_expected(before, now, *weights))
    low, high = np.nanquantile(np.concatenate(drawn), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(mean=mean, low=float(low), high=float(high), n=len(now[0]))


def rates_by_position(shown: Impressions) -> tuple[list[int], list[float]]:
    """Return impressions, and clicks per impression, at each of the first `POSITIONS` positions."""
    top = shown.positions < POSITIONS
    count = np.bincount(shown.positions[top], minlength=POSITIONS)
    rates = click_rates(shown.positions[top], shown.clicks[top])
    return count.tolist(), [*rates.tolist(), *[0.0] * (POSITIONS - len(rates))]


def _pooled(reference: Ids, fresh: Ids) -> Ids:
    if len(reference) == 0 or len(fresh) == 0:
        raise DataError(f"Two sides are compared; got {len(reference)} and {len(fresh)} sessions.")
    return np.concatenate([np.asarray(reference, dtype=np.int64), np.asarray(fresh, dtype=np.int64)])


def _exchanged(reference: int, fresh: int, seed: int) -> Iterator[NDArray[np.bool_]]:
    """Yield which of the pooled sessions are fresh: as they are, then `PERMUTATIONS` times by lot."""
    is_fresh = np.zeros(reference + fresh, dtype=bool)
    is_fresh[reference:] = True
    yield is_fresh
    rng = np.random.default_rng(seed)
    for _ in range(PERMUTATIONS):
        yield rng.permutation(is_fresh)


def _by_session(log: Impressions) -> tuple[Floats, Floats]:
    """Return what each session showed and what was clicked there, both [sessions, positions]."""
    top = log.positions < POSITIONS
    shape = (int(log.sessions.max()) + 1 if len(log.sessions) else 0, POSITIONS)
    shown, clicked = np.zeros(shape), np.zeros(shape)
    cells = (log.sessions[top], log.positions[top])
    np.add.at(shown, cells, 1.0)
    np.add.at(clicked, cells, log.clicks[top])
    return shown, clicked


def _clicks_over_expected(
    before: tuple[Floats, Floats], now: tuple[Floats, Floats], before_weights: Floats, now_weights: Floats
) -> Floats:
    """Return the ratio for each row of weights, [resamples, sessions]; NaN where nothing is expected."""
    shown = before_weights @ before[0]
    rates = np.divide(before_weights @ before[1], shown, out=np.zeros_like(shown), where=shown > 0)
    expected = ((now_weights @ now[0]) * rates).sum(axis=1)
    clicks = (now_weights @ now[1]).sum(axis=1)
    ratios: Floats = np.divide(clicks, expected, out=np.full(len(clicks), np.nan), where=expected > 0)
    return ratios
