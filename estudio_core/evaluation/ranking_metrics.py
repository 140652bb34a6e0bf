"""Ranking metrics, vectorised over queries; larger is better, 1 is perfect.

One row per query, columns in ranked order, best first. Short rankings are filled with grade 0. A query without any
relevant object has no defined metric: its value is NaN, and the caller decides (`evaluate` leaves such queries out).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def dcg_at_k(grades: ArrayLike, k: int) -> Floats:
    """Return the discounted cumulative gain of each row: sum of `(2**grade - 1) / log2(rank + 1)`, rank from 1.

    >>> dcg_at_k([[3, 0, 1]], k=3).round(4).tolist()
    [7.5]

    Args:
        grades: [queries, results], grades in ranked order.
        k: Results counted.

    Source: Burges et al., "Learning to Rank using Gradient Descent" (ICML 2005).
    """
    top = _matrix(grades)[:, :k]
    discounts = 1.0 / np.log2(np.arange(2, top.shape[1] + 2))
    gains: Floats = (np.exp2(top) - 1.0) @ discounts
    return gains


def ndcg_at_k(ranked_grades: ArrayLike, judged_grades: ArrayLike, k: int = 10) -> Floats:
    """Return nDCG@k of each query; NaN where no judged grade is above 0.

    >>> ndcg_at_k([[0, 3, 0]], judged_grades=[[3, 0, 0]], k=3).round(4).tolist()
    [0.6309]
    >>> ndcg_at_k([[1, 3, 0], [0, 0, 0]], judged_grades=[[3, 1, 0], [0, 0, 0]], k=2).round(4).tolist()
    [0.7098, nan]

    Args:
        ranked_grades: [queries, results], grades of what was returned, in ranked order.
        judged_grades: [queries, judged], all grades of the query in any order, filled with 0: the ideal ranking.
        k: Results counted.
    """
    ideal = dcg_at_k(-np.sort(-_matrix(judged_grades), axis=1), k)
    return _divided(dcg_at_k(ranked_grades, k), ideal)


def mrr_at_k(ranked_grades: ArrayLike, judged_grades: ArrayLike, k: int = 10) -> Floats:
    """Return the reciprocal rank of the first relevant result among the top k, 0 where there is none.

    Relevant is every grade above 0. NaN where no judged grade is above 0.

    >>> mrr_at_k([[0, 2, 3], [0, 0, 0], [0, 0, 0]], judged_grades=[[2, 3], [1, 0], [0, 0]], k=3).tolist()
    [0.5, 0.0, nan]
    """
    relevant = _matrix(ranked_grades)[:, :k] > 0
    if relevant.shape[1] == 0:
        reciprocal = np.zeros(len(relevant))
    else:
        reciprocal = np.where(relevant.any(axis=1), 1.0 / (relevant.argmax(axis=1) + 1.0), 0.0)
    return np.where((_matrix(judged_grades) > 0).any(axis=1), reciprocal, np.nan)


def recall_at_k(ranked_grades: ArrayLike, judged_grades: ArrayLike, k: int = 10) -> Floats:
    """Return the share of a query's relevant objects that stand among the top k; NaN where there are none.

    >>> recall_at_k([[3, 0, 1]], judged_grades=[[3, 1, 1, 2]], k=2).tolist()
    [0.25]
    """
    found = (_matrix(ranked_grades)[:, :k] > 0).sum(axis=1)
    return _divided(found.astype(np.float64), (_matrix(judged_grades) > 0).sum(axis=1).astype(np.float64))


def pairwise_accuracy(scores: ArrayLike, grades: ArrayLike, mask: ArrayLike | None = None) -> Floats:
    """Return the share of pairs of different grade whose scores stand in the right order; ties count half.

    NaN for a query whose results all have one grade.

    >>> pairwise_accuracy([[0.9, 0.5, 0.5], [0.1, 0.2, 0.0]], [[1, 0, 1], [0, 0, 0]]).tolist()
    [0.75, nan]

    Args:
        scores: [queries, results], larger is better.
        grades: [queries, results].
        mask: [queries, results], False where a row is filled up.
    """
    values, levels = _matrix(scores), _matrix(grades)
    present = np.ones(values.shape, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    better = (levels[:, :, None] > levels[:, None, :]) & present[:, :, None] & present[:, None, :]
    right = (values[:, :, None] > values[:, None, :]) + 0.5 * (values[:, :, None] == values[:, None, :])
    return _divided((right * better).sum(axis=(1, 2)), better.sum(axis=(1, 2)).astype(np.float64))


def _matrix(values: ArrayLike) -> Floats:
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"One row per query is needed: an array [queries, results], not of shape {matrix.shape}.")
    return matrix


def _divided(numerator: Floats, denominator: Floats) -> Floats:
    quotient: Floats = np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)
    return quotient
