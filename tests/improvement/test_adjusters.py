"""Vector adjusters: the shipped one, and one written as the plugin tutorial shows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from estudio_core.errors import ConfigurationError, DataError, DimensionError, ItemError
from estudio_core.improvement.improvement_input import ImprovementElement, ImprovementInput
from estudio_core.improvement.torch_based_adjuster import TorchBasedAdjuster
from estudio_core.improvement.vectors_adjuster import VectorsAdjuster
from estudio_core.models.aggregation import PartTable, object_similarities
from estudio_core.vectordb.index_info import MetricAggregationType, MetricType, SearchIndexInfo

# ruff: noqa: I001, UP006, UP035, W293 (the tutorial's text below stays as it is)
# fmt: off
# The tutorial's class, letter for letter; only the paths of its imports are ours.
from typing import List

class AdvancedVectorAdjuster(VectorsAdjuster):
    """Custom vector adjuster with advanced features."""
    
    def __init__(self, learning_rate: float = 0.1, decay_factor: float = 0.9):
        self.learning_rate = learning_rate
        self.decay_factor = decay_factor
    
    def adjust_vectors(
        self, data_for_improvement: List[ImprovementInput]
    ) -> List[ImprovementInput]:
        """Adjust vectors with a custom logic."""
        for improvement_input in data_for_improvement:
            query_vector = improvement_input.query.vector
            
            # Adjust clicked items to be closer to query
            for clicked in improvement_input.clicked_elements:
                # Move vector toward query with learning rate
                clicked.vector = clicked.vector + self.learning_rate * (
                    query_vector - clicked.vector
                )
            
            # Adjust non-clicked items to be further from query
            for non_clicked in improvement_input.non_clicked_elements:
                # Move vector away from query with decay factor
                non_clicked.vector = non_clicked.vector - self.learning_rate * self.decay_factor * (
                    query_vector - non_clicked.vector
                )
        
        return data_for_improvement
# fmt: on


def element(name: str, rows: torch.Tensor) -> ImprovementElement:
    return ImprovementElement(name, rows)


def session(dim: int = 16, seed: int = 0, clicked: int = 2, skipped: int = 3, weight: float = 1.0) -> ImprovementInput:
    rng = torch.Generator().manual_seed(seed)

    def rows(count: int) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(count, dim, generator=rng), dim=1)

    return ImprovementInput(
        session_id=f"s{seed}",
        query=element("query", rows(1)),
        clicked_elements=[element(f"{seed}c{i}", rows(i + 1)) for i in range(clicked)],
        non_clicked_elements=[element(f"{seed}n{i}", rows(3 - i % 3)) for i in range(skipped)],
        weight=weight,
    )


def similarity(query: ImprovementElement, item: ImprovementElement, info: SearchIndexInfo) -> float:
    table = PartTable.counted([len(item.vector)])
    return float(
        object_similarities(
            query.vector.numpy(), item.vector.numpy(), table, info.metric_aggregation_type, info.metric_type
        )[0, 0]
    )


def angles(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    return torch.rad2deg(torch.arccos(torch.cosine_similarity(before.double(), after.double()).clamp(-1, 1)))


@pytest.mark.parametrize("metric", list(MetricType))
@pytest.mark.parametrize("aggregation", list(MetricAggregationType))
def test_clicked_objects_come_nearer_and_skipped_ones_go_away_within_the_bound(
    metric: MetricType, aggregation: MetricAggregationType
) -> None:
    info = SearchIndexInfo(dimensions=16, metric_type=metric, metric_aggregation_type=aggregation)
    before, after = [[session(seed=seed, skipped=seed) for seed in range(4)] for _ in range(2)]
    result = TorchBasedAdjuster(info, softmin_temperature=0.1).adjust_vectors(after)
    assert result is after
    for old, new in zip(before, after, strict=True):
        for was, now in zip(old.clicked_elements, new.clicked_elements, strict=True):
            assert similarity(new.query, now, info) > similarity(old.query, was, info)
            assert angles(was.vector, now.vector).max() <= 10.001
            assert torch.allclose(was.vector.norm(dim=1), now.vector.norm(dim=1), atol=1e-5)
            assert now.vector.dtype == torch.float32
        for was, now in zip(old.non_clicked_elements, new.non_clicked_elements, strict=True):
            assert similarity(new.query, now, info) < similarity(old.query, was, info)
            assert angles(was.vector, now.vector).max() <= 10.001
        assert torch.equal(old.query.vector, new.query.vector)


@pytest.mark.parametrize("metric", list(MetricType))
@pytest.mark.parametrize("aggregation", list(MetricAggregationType))
def test_similarity_is_the_one_of_search_and_training(metric: MetricType, aggregation: MetricAggregationType) -> None:
    info = SearchIndexInfo(dimensions=16, metric_type=metric, metric_aggregation_type=aggregation)
    sessions = [session(seed=seed) for seed in range(3)]
    adjuster = TorchBasedAdjuster(info, softmin_temperature=1e-6)
    batch = adjuster._batch(sessions, adjuster._groups(sessions))
    found = adjuster._similarity(batch.vectors, batch)
    expected = [similarity(s.query, e, info) for s in sessions for e in [*s.clicked_elements, *s.non_clicked_elements]]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_a_turn_of_one_vector_equals_the_closed_form() -> None:
    info = SearchIndexInfo(dimensions=2)
    one = ImprovementInput("s", element("q", torch.tensor([[0.0, 1.0]])), [element("a", torch.tensor([[2.0, 0.0]]))])
    TorchBasedAdjuster(info, adjustment_rate=0.1, num_iterations=1).adjust_vectors([one])
    limit = math.radians(10)
    turn = limit * math.tanh(math.atan(0.1) / limit)
    expected = 2 * torch.tensor([[math.cos(turn), math.sin(turn)]])
    assert torch.allclose(one.clicked_elements[0].vector, expected, atol=1e-6)


def test_min_moves_the_nearest_part_as_the_temperature_falls() -> None:
    info = SearchIndexInfo(dimensions=3)
    rows = torch.tensor([[0.6, 0.8, 0.0], [-1.0, 0.1, 0.0]])
    one = ImprovementInput("s", element("q", torch.tensor([[1.0, 0.0, 0.0]])), [element("a", rows.clone())])
    TorchBasedAdjuster(info, softmin_temperature=0.01).adjust_vectors([one])
    turned = angles(rows, one.clicked_elements[0].vector)
    assert turned[0] > 5
    assert turned[1] < 1e-6


def test_the_result_is_deterministic_and_independent_of_other_sessions() -> None:
    adjuster = TorchBasedAdjuster(SearchIndexInfo(dimensions=16))
    alone = adjuster.adjust_vectors([session(seed=1)])
    again = adjuster.adjust_vectors([session(seed=1)])
    together = adjuster.adjust_vectors([session(seed=2, skipped=0), session(seed=1), session(seed=3, clicked=5)])
    for first, second, third in zip(
        alone[0].clicked_elements, again[0].clicked_elements, together[1].clicked_elements, strict=True
    ):
        assert torch.equal(first.vector, second.vector)
        assert torch.allclose(first.vector, third.vector, atol=1e-7)


def test_an_object_of_several_sessions_moves_once_by_the_heavier_reason() -> None:
    def moved(weight_clicked: float, weight_skipped: float) -> float:
        start = torch.tensor([[1.0, 0.0]])
        query = torch.tensor([[0.0, 1.0]])
        other = [element("other", torch.tensor([[0.6, -0.8]]))]
        sessions = [
            ImprovementInput("a", element("q", query), [element("x", start.clone())], [], weight_clicked),
            ImprovementInput("b", element("q", query), other, [element("x", start.clone())], weight_skipped),
        ]
        TorchBasedAdjuster(SearchIndexInfo(dimensions=2)).adjust_vectors(sessions)
        first, second = sessions[0].clicked_elements[0], sessions[1].non_clicked_elements[0]
        assert torch.equal(first.vector, second.vector)
        return float(first.vector[0, 1])

    assert moved(2.0, 1.0) > 0.05
    assert moved(1.0, 2.0) < -0.05
    assert 0 < moved(0.2, 0.1) < moved(2.0, 1.0)


def test_sessions_without_clicks_or_without_skips_are_fine() -> None:
    adjuster = TorchBasedAdjuster(SearchIndexInfo(dimensions=16))
    irrelevant = session(clicked=0)
    before = [item.vector.clone() for item in irrelevant.non_clicked_elements]
    adjuster.adjust_vectors([irrelevant])
    assert all(torch.equal(item.vector, was) for item, was in zip(irrelevant.non_clicked_elements, before, strict=True))
    assert adjuster.adjust_vectors([]) == []
    only_clicked = session(skipped=0)
    adjuster.adjust_vectors([only_clicked])
    assert only_clicked.clicked_elements[0].vector.isfinite().all()


def test_a_vector_that_is_the_query_stays() -> None:
    rows = torch.tensor([[0.6, 0.8]])
    for metric in MetricType:
        one = ImprovementInput("s", element("q", rows), [element("a", rows.clone())])
        TorchBasedAdjuster(SearchIndexInfo(dimensions=2, metric_type=metric)).adjust_vectors([one])
        assert torch.allclose(one.clicked_elements[0].vector, rows, atol=1e-6)


def test_wrong_input_is_refused_by_name() -> None:
    adjuster = TorchBasedAdjuster(SearchIndexInfo(dimensions=16))
    with pytest.raises(DimensionError, match=r"\[parts, 16\]"):
        adjuster.adjust_vectors([session(dim=15)])
    zero = session()
    zero.clicked_elements[0].vector = torch.zeros(1, 16)
    with pytest.raises(ItemError, match="0c0"):
        adjuster.adjust_vectors([zero])
    with pytest.raises(ConfigurationError, match="max_angle_degrees"):
        TorchBasedAdjuster(SearchIndexInfo(dimensions=2), max_angle_degrees=0)
    with pytest.raises(DimensionError, match="matrix"):
        element("a", torch.zeros(3))
    with pytest.raises(DataError, match="weight"):
        session(weight=0)


def test_the_tutorials_adjuster_works_as_written() -> None:
    before, after = session(), session()
    AdvancedVectorAdjuster(learning_rate=0.1, decay_factor=0.8).adjust_vectors([after])
    query = before.query.vector
    for was, now in zip(before.clicked_elements, after.clicked_elements, strict=True):
        assert now.vector.shape == was.vector.shape
        np.testing.assert_allclose(now.vector, 0.9 * was.vector + 0.1 * query, atol=1e-6)
    for was, now in zip(before.non_clicked_elements, after.non_clicked_elements, strict=True):
        np.testing.assert_allclose(now.vector, 1.08 * was.vector - 0.08 * query, atol=1e-6)
