"""Confidence intervals by resampling queries."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from estudio_core.errors import DataError

RESAMPLES = 10_000
_DRAWS_AT_ONCE = 4_000_000  # int64 indices held at a time: 32 MB
_ALL_EQUAL = 1e-12  # values that lie no further apart differ by rounding

MOST_LEFT_OUT = 5_000
"""For its correction scipy takes the mean anew without each value, which grows with the square: of 5,000 values half a
second, of 50,000 half a minute. Of more, what a mean without each value is stands in a formula."""


class Estimate(BaseModel):
    """A mean with its confidence interval, over `n` queries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap_mean(
    values: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    method: Literal["bca", "percentile"] = "bca",
    seed: int = 0,
) -> Estimate:
    """Return the mean of `values` and its two-sided bootstrap interval.

    For a paired comparison give the differences per query. The same seed gives the same interval.

    >>> bootstrap_mean([0.5, 0.5, 0.5])
    Estimate(mean=0.5, low=0.5, high=0.5, n=3)

    Args:
        values: [n], one value per query.
        confidence: Level, such as 0.95.
        resamples: Bootstrap samples.
        method: `bca` corrects for bias and skewness (nDCG gains are skewed: most queries do not change);
            `percentile` takes plain quantiles.
        seed: Of the resampling.

    Raises:
        DataError: no values, or a value that is not finite.

    Source: Efron, "Better Bootstrap Confidence Intervals" (JASA 1987), as in `scipy.stats.bootstrap`.
    """
    from scipy.stats import bootstrap  # type: ignore[import-untyped]

    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise DataError(f"An interval needs a list of at least one value; got shape {sample.shape}.")
    if not np.isfinite(sample).all():
        raise DataError(f"{int((~np.isfinite(sample)).sum())} of {sample.size} values are not finite.")
    mean = float(sample.mean())
    if np.ptp(sample) <= _ALL_EQUAL:
        return Estimate(mean=mean, low=mean, high=mean, n=sample.size)
    by_formula = method == "bca" and sample.size > MOST_LEFT_OUT
    found = bootstrap(
        (sample,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        batch=max(_DRAWS_AT_ONCE // sample.size, 1),
        method="percentile" if by_formula else method,
        rng=seed,
    )
    low, high = found.confidence_interval
    if by_formula:
        low, high = corrected(sample, found.bootstrap_distribution, confidence)
    return Estimate(mean=mean, low=float(low), high=float(high), n=sample.size)


def corrected(
    sample: NDArray[np.float64], means: NDArray[np.float64], confidence: float
) -> tuple[np.float64, np.float64]:
    """Return the ends of the BCa interval of a mean, from the means of its bootstrap samples.

    The mean without a value differs from that of all by (mean - value) / (n - 1), so that the acceleration needs no
    resampling.

    Args:
        sample: [n].
        means: [resamples].
        confidence: Level, such as 0.95.

    Source: Efron (JASA 1987), equations 2.3 and 6.6; ties count half, as in `scipy.stats.bootstrap`.
    """
    from scipy.special import ndtr, ndtri  # type: ignore[import-untyped]

    mean = sample.mean()
    bias = ndtri(((means < mean).mean() + (means <= mean).mean()) / 2)
    away = sample - mean
    acceleration = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    ends = bias + ndtri(np.array([1 - confidence, 1 + confidence]) / 2)
    low, high = np.quantile(means, ndtr(bias + ends / (1 - acceleration * ends)))
    return low, high


def paired_gain(
    before: ArrayLike, after: ArrayLike, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Return the mean of `after - before` over the same queries, with its interval.

    >>> paired_gain([0.25, 0.5, 0.5], [0.5, 0.5, 1.0], resamples=200).mean
    0.25

    Raises:
        DataError: the lists differ in length, are empty, or hold a value that is not finite.
    """
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.shape != second.shape:
        raise DataError(
            f"A paired comparison needs the same queries on both sides; got {first.size} and {second.size}."
        )
    return bootstrap_mean(second - first, confidence=confidence, resamples=resamples, seed=seed)
