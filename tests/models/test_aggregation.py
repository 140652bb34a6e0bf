"""Similarities of objects with several parts, against a reference that loops."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from estudio_core.models.aggregation import PartTable, object_similarities, object_vectors, similarities
from estudio_core.vectordb.index_info import MetricAggregationType, MetricType

Matrix = NDArray[np.float64]


def one_similarity(query: Matrix, vector: Matrix, metric: MetricType) -> float:
    if metric is MetricType.COSINE:
        return float(query @ vector / np.linalg.norm(query) / np.linalg.norm(vector))
    if metric is MetricType.DOT:
        return float(query @ vector)
    return -float(np.linalg.norm(query - vector))


def reference(query: Matrix, parts: list[Matrix], aggregation: MetricAggregationType, metric: MetricType) -> float:
    if aggregation is MetricAggregationType.MIN:
        return max(one_similarity(query, part, metric) for part in parts)
    return one_similarity(query, np.mean(parts, axis=0), metric)


@pytest.mark.parametrize("metric", list(MetricType))
@pytest.mark.parametrize("aggregation", list(MetricAggregationType))
def test_similarity_equals_the_reference_for_one_to_three_parts(
    aggregation: MetricAggregationType, metric: MetricType
) -> None:
    rng = np.random.default_rng(3)
    owners = [[0], [1, 2], [5, 3, 4]]
    parts, queries = rng.normal(size=(6, 8)), rng.normal(size=(4, 8))
    expected = [[reference(q, [parts[i] for i in rows], aggregation, metric) for rows in owners] for q in queries]
    table = PartTable.of(owners)
    in_numpy = object_similarities(queries, parts, table, aggregation, metric)
    in_torch = object_similarities(torch.tensor(queries), torch.tensor(parts), table, aggregation, metric)
    np.testing.assert_allclose(in_numpy, expected, atol=1e-6)
    np.testing.assert_allclose(in_torch.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("metric", list(MetricType))
@pytest.mark.parametrize("aggregation", list(MetricAggregationType))
def test_gradient_of_a_one_part_object_is_not_zero(aggregation: MetricAggregationType, metric: MetricType) -> None:
    torch.manual_seed(0)
    query, part = torch.randn(1, 8, requires_grad=True), torch.randn(1, 8, requires_grad=True)
    object_similarities(query, part, PartTable.of([[0]]), aggregation, metric).sum().backward()
    assert query.grad is not None
    assert part.grad is not None
    assert query.grad.norm() > 0.01
    assert part.grad.norm() > 0.01


def test_only_the_nearest_part_learns_under_min() -> None:
    parts = torch.tensor([[1.0, 0.1], [0.0, 1.0]], requires_grad=True)
    similarity = object_similarities(
        torch.tensor([[1.0, 0.0]]), parts, PartTable.of([[0, 1]]), MetricAggregationType.MIN
    )
    similarity.sum().backward()
    assert parts.grad is not None
    assert parts.grad[0].norm() > 0
    assert parts.grad[1].norm() == 0


def test_one_vector_per_object_is_the_normalised_mean() -> None:
    vectors = object_vectors(np.array([[1.0, 0.0], [0.0, 1.0]]), PartTable.counted([2]), MetricType.COSINE)
    np.testing.assert_allclose(vectors, [[0.5**0.5, 0.5**0.5]])


def test_opposite_parts_give_a_zero_vector_and_finite_gradients() -> None:
    parts = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    similarity = object_similarities(
        torch.tensor([[1.0, 0.0]]), parts, PartTable.of([[0, 1]]), MetricAggregationType.AVG
    )
    similarity.sum().backward()
    assert similarity.item() == 0
    assert parts.grad is not None
    assert torch.isfinite(parts.grad).all()


def test_counted_parts_lie_one_after_another() -> None:
    table = PartTable.counted([2, 1, 3])
    assert table.index.tolist() == [[0, 1, 0], [2, 2, 2], [3, 4, 5]]
    np.testing.assert_allclose(table.share.sum(axis=1), 1)


def test_an_object_without_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one part"):
        PartTable.of([[0], []])


def test_one_long_object_among_many_takes_no_room_in_the_others() -> None:
    counts = [1] * 4_999 + [200]
    table = PartTable.counted(counts)
    queries, parts = np.eye(4, 8, dtype=np.float32), np.random.default_rng(0).normal(size=(sum(counts), 8))
    tracemalloc.start()
    found = object_similarities(queries, parts.astype(np.float32), table, MetricAggregationType.MIN)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    whole = similarities(queries, parts.astype(np.float32), MetricType.COSINE)
    np.testing.assert_allclose(found[:, :-1], whole[:, :4_999])
    np.testing.assert_allclose(found[:, -1], whole[:, 4_999:].max(axis=1))
    assert peak < 2_000_000  # filled up to 200 parts each, they took 16 MB for four queries


@pytest.mark.parametrize("aggregation", list(MetricAggregationType))
def test_segments_equal_a_loop_over_objects_in_both_libraries(aggregation: MetricAggregationType) -> None:
    rng = np.random.default_rng(1)
    rows = [rng.integers(0, 30, size=size).tolist() for size in (1, 5, 2, 1, 9)]
    queries, parts = rng.normal(size=(3, 6)).astype(np.float32), rng.normal(size=(30, 6)).astype(np.float32)
    table = PartTable.of(rows)
    found = object_similarities(queries, parts, table, aggregation)
    tensors = object_similarities(torch.from_numpy(queries), torch.from_numpy(parts), table, aggregation)
    if aggregation is MetricAggregationType.MIN:
        each = [similarities(queries, parts[own], MetricType.COSINE).max(axis=1) for own in rows]
    else:
        each = [similarities(queries, parts[own].mean(axis=0)[None], MetricType.COSINE)[:, 0] for own in rows]
    np.testing.assert_allclose(found, np.stack(each, axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tensors.numpy(), found, rtol=1e-5, atol=1e-6)
