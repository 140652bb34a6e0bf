"""How sure a mean is, at every moment: a confidence sequence by betting.

Values x in [-1, 1] come one after another. Somebody who holds that their mean is m is offered bets: a stake g in (0, 1)
on "more" multiplies a bettor's capital by 1 + g (x - m) / (1 + m), on "less" by 1 - g (x - m) / (1 - m). Where the mean
is m, and each value's expectation given the ones before is m, capital is a martingale of mean 1, so that it ever
reaches 1 / alpha with a chance of at most alpha (Ville's inequality): however often and whenever one looks. All m whose
capital has stayed below are the confidence sequence.

The bettor divides his capital over constant stakes, 0.01 to 0.95. Which of them is right needs not be known; and as the
product of factors has no order, only how often each value came matters.

Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS-B 86 (2024), theorem 1,
with stakes of the kind that they call diversified Kelly; mixtures of constant bets as in Orabona and Jun, "Tight
concentrations and confidence sequences from the regret of universal portfolio", IEEE Trans. Inf. Theory 70 (2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

STAKES: Floats = np.geomspace(0.01, 0.95, 20)
"""A mean of 0.01 with a variance of 1 is what the smallest one is best for; every one costs all others log(20)."""
_LATTICE = 1_000
"""Values are told apart by a thousandth."""
_EXACT = 1e-4
_MOST_TIMES = 1e4


@dataclass(frozen=True)
class Counts:
    """How often each value came.

    Attributes:
        values: Float [distinct], from -1 to 1.
        times: Float [distinct].
    """

    values: Floats
    times: Floats

    @classmethod
    def of(cls, values: ArrayLike) -> Counts:
        """Count values, rounded to a thousandth."""
        rounded = np.rint(np.asarray(values, dtype=np.float64) * _LATTICE).astype(np.int64)
        distinct, times = np.unique(rounded, return_counts=True)
        return cls(distinct / _LATTICE, times.astype(np.float64))

    @property
    def number(self) -> int:
        """How many values there are."""
        return int(self.times.sum())

    @property
    def mean(self) -> float:
        """Their mean; 0 of none."""
        return float(self.values @ self.times / self.times.sum()) if self.number else 0.0

    def capital(self, mean: float, *, more: bool) -> float:
        """Return the logarithm of what a bettor on "more", or "less", than `mean` has, beginning with 1."""
        return float(log_capital(self.values, self.times, mean, more=more))


def log_capital(values: Floats, times: Floats, mean: float, *, more: bool) -> Floats:
    """Return the logarithm of a bettor's capital, see the module.

    Args:
        values: [distinct].
        times: How often each came, [..., distinct].
        mean: What the other side holds, above -1 for `more`, below 1 for less.
        more: What the bettor holds.

    Returns:
        [...].
    """
    returns = (values - mean) / (1 + mean) if more else (mean - values) / (1 - mean)
    return _total(times @ np.log1p(returns[:, None] * STAKES))


def log_capitals(values: Floats, mean: float, *, more: bool) -> Floats:
    """Return the logarithm of a bettor's capital after each of these values, [values]; see `log_capital`."""
    returns = (values - mean) / (1 + mean) if more else (mean - values) / (1 - mean)
    return _total(np.cumsum(np.log1p(returns[:, None] * STAKES), axis=0))


def _total(logs: Floats) -> Floats:
    """Return the logarithm of the mean over stakes, [..., stakes] to [...]."""
    most = logs.max(axis=-1)
    total: Floats = most + np.log(np.exp(logs - most[..., None]).mean(axis=-1))
    return total


def band(counts: Counts, confidence: float) -> tuple[float, float]:
    """Return the ends of the confidence sequence of the mean, both sides together at this level.

    >>> [round(end, 2) for end in band(Counts.of([1.0] * 60 + [-1.0] * 40), 0.95)]
    [-0.13, 0.5]
    """
    needed = math.log(2 / (1 - confidence))
    return _end(counts, needed, more=True), _end(counts, needed, more=False)


def highest(counts: Counts, confidence: float) -> float:
    """Return the upper end of the confidence sequence of the mean, one-sided at this level."""
    return _end(counts, math.log(1 / (1 - confidence)), more=False)


def _end(counts: Counts, needed: float, *, more: bool) -> float:
    """Return the mean nearest to that of the values that a bettor has ruined."""
    outer = (-1.0 if more else 1.0) * (1 - 1e-9)
    inner = counts.mean
    if not counts.number or counts.capital(outer, more=more) < needed:
        return -1.0 if more else 1.0
    while abs(inner - outer) > _EXACT:  # capital falls towards the mean of the values
        middle = (inner + outer) / 2
        if counts.capital(middle, more=more) >= needed:
            outer = middle
        else:
            inner = middle
    return outer


def times_needed(counts: Counts, confidence: float) -> float | None:
    """Return how many times as many values like these exclude zero; 1 where they do, None where none would.

    >>> times_needed(Counts.of([1.0, -1.0]), 0.95) is None
    True
    """
    needed = math.log(2 / (1 - confidence))

    def enough(times: float) -> bool:
        more = Counts(counts.values, counts.times * times)
        return max(more.capital(0.0, more=True), more.capital(0.0, more=False)) >= needed

    if not counts.number or not enough(_MOST_TIMES):
        return None
    low, high = 0.0, math.log(_MOST_TIMES)
    if enough(1.0):
        return 1.0
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(math.exp(middle)) else (middle, high)
    return math.exp(high)
