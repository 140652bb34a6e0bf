"""Confidence intervals by resampling queries."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from estudio_core.errors import DataError

RESAMPLES = 10_000
_DRAWS_AT_ONCE = 4_000_000  # int64 indices held at a time: 32 MB


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

    Source: Efron, "Better Bootstrap Confidence Intervals" (JASA 1987).
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise DataError(f"An interval needs a list of at least one value; got shape {sample.shape}.")
    if not np.isfinite(sample).all():
        raise DataError(f"{int((~np.isfinite(sample)).sum())} of {sample.size} values are not finite.")
    mean = float(sample.mean())
    if np.ptp(sample) == 0:
        return Estimate(mean=mean, low=mean, high=mean, n=sample.size)
    means = np.sort(np.concatenate(list(_resampled_means(sample, resamples, seed))))
    tails = np.array([(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    if method == "bca":
        tails = _corrected(tails, sample, means)
    low, high = np.quantile(means, tails)
    return Estimate(mean=mean, low=float(low), high=float(high), n=sample.size)


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


def _resampled_means(sample: NDArray[np.float64], resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    rows = max(_DRAWS_AT_ONCE // sample.size, 1)
    for start in range(0, resamples, rows):
        draws = rng.integers(0, sample.size, (min(rows, resamples - start), sample.size))
        yield sample[draws].mean(axis=1)


def _corrected(
    tails: NDArray[np.float64], sample: NDArray[np.float64], means: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the quantiles of BCa: shifted by bias and acceleration (from the jackknife)."""
    normal = NormalDist()
    below = (np.count_nonzero(means < sample.mean()) + 0.5 * np.count_nonzero(means == sample.mean())) / means.size
    # Kept off 0 and 1, where the normal quantile is infinite.
    bias = normal.inv_cdf(float(np.clip(below, 0.5 / means.size, 1 - 0.5 / means.size)))
    deviations = sample - sample.mean()  # the jackknife of a mean, up to a constant factor
    spread = float((deviations**2).sum())
    acceleration = float((deviations**3).sum()) / (6.0 * spread**1.5)
    corrected = []
    for tail in tails:
        z = bias + normal.inv_cdf(float(tail))
        corrected.append(normal.cdf(bias + z / (1.0 - acceleration * z)))
    return np.array(corrected)
