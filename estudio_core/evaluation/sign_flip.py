"""Whether a gain may be chance: the paired randomisation test, which few and tied queries do not mislead."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estudio_core.errors import DataError

RESAMPLES = 10_000
_SIGNS_AT_ONCE = 2_000_000


def chance_of_gain(before: ArrayLike, after: ArrayLike, *, above: float = 0.0, seed: int = 0) -> float:
    """Return the one-sided p-value of a mean gain of more than `above`, over the same queries.

    The chance that the mean of `after - before - above` is as high as it is where each query's sign is drawn by lot.
    Exact up to 13 queries that changed, else estimated from 10,000 draws. Queries that differ by nothing say nothing:
    of five that changed, the best case is 2^-5 = 0.031, so that no gain of fewer than six is certain at 95 %.

    >>> chance_of_gain([0.5] * 12, [0.5] * 7 + [0.75] * 5)
    0.03125
    >>> chance_of_gain([0.5] * 12, [0.5] * 6 + [0.75] * 6)
    0.015625

    Args:
        before: [n], one value per query.
        after: [n], of the same queries.
        above: Gain that has to be exceeded, in units of the metric.
        seed: Of the draws.

    Raises:
        DataError: the lists differ in length, or hold a value that is not finite.

    Source: Smucker, Allan, Carterette, "A Comparison of Statistical Significance Tests for Information Retrieval
    Evaluation" (CIKM 2007).
    """
    from scipy.stats import permutation_test  # type: ignore[import-untyped]

    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.shape != second.shape or not np.isfinite(second - first).all():
        raise DataError(
            f"A paired test needs two lists of finite values; got {first.shape} and {second.shape} of them."
        )
    gains = second - first - above
    changed = gains[gains != 0]
    if changed.size < 2:
        return 1.0 if changed.size == 0 or changed[0] < 0 else 0.5

    def mean_gain(ours: NDArray[np.float64], nothing: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = (ours - nothing).mean(axis=axis)
        return mean

    found = permutation_test(
        (changed, np.zeros_like(changed)),
        mean_gain,
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, _SIGNS_AT_ONCE // changed.size),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)
