"""Ranking metrics against independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score
from torchmetrics.functional.retrieval import retrieval_recall, retrieval_reciprocal_rank

from estudio_core.evaluation.ranking_metrics import (
    mrr_at_k,
    ndcg_at_k,
    pairwise_accuracy,
    recall_at_k,
)

RNG = np.random.default_rng(5)
GRADES = RNG.integers(0, 4, (40, 25)) * (RNG.random((40, 25)) < 0.3)
GRADES[:, 7] = np.maximum(GRADES[:, 7], 1)  # every query has a relevant object
SCORES = RNG.random((40, 25))
RANKED = np.take_along_axis(GRADES, np.argsort(-SCORES, axis=1), axis=1)


@pytest.mark.parametrize("k", [1, 3, 10, 25, 100])
def test_ndcg_equals_sklearn_with_exponential_gain(k: int) -> None:
    expected = [ndcg_score([2.0**g - 1], [s], k=k) for g, s in zip(GRADES, SCORES, strict=True)]
    np.testing.assert_allclose(ndcg_at_k(RANKED, GRADES, k), expected, rtol=1e-12)


@pytest.mark.parametrize("k", [1, 3, 10, 25])
def test_mrr_and_recall_equal_torchmetrics(k: int) -> None:
    scores, relevant = torch.from_numpy(SCORES), torch.from_numpy(GRADES > 0)
    mrr = [retrieval_reciprocal_rank(s, r, top_k=k).item() for s, r in zip(scores, relevant, strict=True)]
    recall = [retrieval_recall(s, r, top_k=k).item() for s, r in zip(scores, relevant, strict=True)]
    np.testing.assert_allclose(mrr_at_k(RANKED, GRADES, k), mrr, rtol=1e-6)
    np.testing.assert_allclose(recall_at_k(RANKED, GRADES, k), recall, rtol=1e-6)


def test_pairwise_accuracy_equals_counting_pairs_and_ignores_filling() -> None:
    mask = RNG.random(SCORES.shape) < 0.5
    scores = SCORES.round(1)  # with ties
    expected = []
    for s, g, m in zip(scores, GRADES, mask, strict=True):
        s, g = s[m], g[m]
        pairs = [(i, j) for i in range(len(s)) for j in range(len(s)) if g[i] > g[j]]
        right = sum(1.0 if s[i] > s[j] else 0.5 if s[i] == s[j] else 0.0 for i, j in pairs)
        expected.append(right / len(pairs) if pairs else np.nan)
    np.testing.assert_allclose(pairwise_accuracy(scores, GRADES, mask), expected)


@pytest.mark.parametrize("metric", [ndcg_at_k, mrr_at_k, recall_at_k])
def test_a_query_without_relevant_objects_is_not_a_number(metric: object) -> None:
    assert callable(metric)
    values = metric([[0, 0], [1, 0]], [[0, 0], [1, 0]], 2)
    assert np.isnan(values[0])
    assert values[1] == 1.0


@pytest.mark.parametrize("metric", [ndcg_at_k, mrr_at_k, recall_at_k])
def test_no_results_and_no_queries(metric: object) -> None:
    assert callable(metric)
    assert metric(np.empty((2, 0)), [[1.0], [2.0]], 10).tolist() == [0.0, 0.0]
    assert metric(np.empty((0, 5)), np.empty((0, 5)), 10).shape == (0,)
    with pytest.raises(ValueError, match="One row per query"):
        metric([1, 0], [[1, 0]], 10)
