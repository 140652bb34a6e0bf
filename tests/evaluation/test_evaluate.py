"""Exact ranking and metrics per query."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from estudio_core.errors import DataError, DimensionError
from estudio_core.evaluation.evaluate import (
    ANSWERED_WELL,
    evaluate_judgments,
    evaluate_scores,
    rank,
    rank_scores,
)
from estudio_core.evaluation.judgments import Judgments
from estudio_core.evaluation.scores import EncodedCatalog, mean_random_similarity, similarity_scores
from estudio_core.vectordb.index_info import MetricAggregationType, MetricType, SearchIndexInfo

RNG = np.random.default_rng(11)
DIM = 16


def unit(rows: int) -> np.ndarray:
    vectors = RNG.standard_normal((rows, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def index(aggregation: str = "min", metric: str = "cosine", dimensions: int = DIM) -> SearchIndexInfo:
    return SearchIndexInfo(
        dimensions=dimensions,
        metric_type=MetricType(metric),
        metric_aggregation_type=MetricAggregationType(aggregation),
    )


PARTS = {f"o{n}": unit(1 + n % 3) for n in range(300)}
CATALOG = EncodedCatalog.from_parts(PARTS)
QUERIES = unit(100)


@pytest.mark.parametrize("aggregation", ["min", "avg"])
@pytest.mark.parametrize("metric", ["cosine", "dot", "euclid"])
def test_ranking_equals_a_plain_loop(aggregation: str, metric: str) -> None:
    ranked = rank(QUERIES[:5], CATALOG, index(aggregation, metric), k=20)
    for query, rows in zip(QUERIES, ranked.rows, strict=False):
        similarity = []
        for parts in PARTS.values():
            vectors = parts
            if aggregation == "avg":
                mean = parts.mean(axis=0)
                vectors = (mean / np.linalg.norm(mean) if metric == "cosine" else mean)[None]
            if metric == "euclid":
                similarity.append(max(-np.linalg.norm(query - v) for v in vectors))
            else:
                similarity.append(max(float(query @ v) for v in vectors))
        assert rows.tolist() == np.argsort(-np.array(similarity), kind="stable")[:20].tolist()


def test_ties_go_to_the_earlier_object_and_broken_vectors_to_the_end() -> None:
    same = np.tile(unit(1), (5, 1))
    same[1] = np.nan
    catalog = EncodedCatalog(tuple("abcde"), same, np.arange(6))
    assert rank(same[:1], catalog, index(), k=3).rows.tolist() == [[0, 2, 3]]
    assert rank(same[:1], catalog, index(), k=9).rows.tolist() == [[0, 2, 3, 4, 1]]


def test_equal_vectors_are_ranked_in_catalogue_order() -> None:
    pool = unit(4)
    catalog = EncodedCatalog(tuple(map(str, range(400))), pool[RNG.integers(0, 4, 400)], np.arange(401))
    for k in (3, 10, 150, 400):
        expected = np.argsort(-(pool @ catalog.parts.T), axis=1, kind="stable")[:, :k]
        found = rank(pool, catalog, index(metric="dot"), k)
        assert found.rows.tolist() == expected.tolist()


def test_twenty_thousand_objects_are_ranked_in_seconds() -> None:
    parts = np.random.default_rng(0).standard_normal((20_000, 384)).astype(np.float32)
    catalog = EncodedCatalog(tuple(map(str, range(20_000))), parts, np.arange(20_001))
    started = time.process_time()
    ranked = rank(parts[:116], catalog, index(dimensions=384))
    assert ranked.rows[:, 0].tolist() == list(range(116))
    assert time.process_time() - started < 10  # measured: under one second


def test_judgments_are_compared_per_query() -> None:
    vectors = np.eye(DIM, dtype=np.float32)
    catalog = EncodedCatalog(("a", "b", "c"), vectors[:3] + 0.1, np.arange(4))
    judgments = Judgments({"find a": {"a": 3}, "find c": {"c": 0, "a": 2}, "gone": {"z": 3}, "other": {"a": 1}})
    metrics = evaluate_judgments(
        ["find a", "find c", "gone", "not judged"], vectors[[0, 2, 1, 1]], catalog, index(), judgments
    )
    assert metrics.queries == ("find a", "find c")
    np.testing.assert_allclose(metrics.values["ndcg@10"], [1.0, 1 / np.log2(3)])
    np.testing.assert_allclose(metrics.values["mrr@10"], [1.0, 0.5])
    np.testing.assert_allclose(metrics.values["recall@10"], [1.0, 1.0])
    assert metrics.only(["find c"]).values["mrr@10"].tolist() == [0.5]


def given(matrix: list[list[float]]) -> Callable[[np.ndarray], np.ndarray]:
    """Scores [queries, objects] as they are."""
    return lambda rows: np.array(matrix, dtype=np.float32)[rows]


def dcg(*grades: float) -> float:
    return float(sum((2**grade - 1) / np.log2(place + 2) for place, grade in enumerate(grades)))


OBJECTS = {f"o{n}": n for n in range(15)}


def test_what_nobody_rated_is_irrelevant_in_the_full_figure_and_absent_from_the_judged_one() -> None:
    # o0 to o6 are not rated and come first; then o7 with grade 0, o8 with 2, and o9 with 3.
    scores = given([[float(-n) for n in range(15)]])
    metrics = evaluate_scores(["q"], scores, OBJECTS, Judgments({"q": {"o9": 3, "o7": 0, "o8": 2}})).values
    np.testing.assert_allclose(metrics["ndcg@10"], dcg(0, 0, 0, 0, 0, 0, 0, 0, 2, 3) / dcg(3, 2))
    np.testing.assert_allclose(metrics["judged_ndcg@10"], dcg(0, 2, 3) / dcg(3, 2))
    np.testing.assert_allclose(metrics["judged_share@10"], 0.3)


def test_the_condensed_list_is_of_the_whole_ranking_and_ends_at_ten() -> None:
    # Twelve rated objects behind three that are not: two of them stand beyond the tenth place of the condensed list.
    scores = given([[float(-n) for n in range(15)]])
    grades = {f"o{n}": float(n == 14) or float(n == 12) for n in range(3, 15)}
    metrics = evaluate_scores(["q"], scores, OBJECTS, Judgments({"q": grades})).values
    np.testing.assert_allclose(metrics["ndcg@10"], 0.0)
    np.testing.assert_allclose(metrics["judged_ndcg@10"], dcg(*[0] * 9, 1) / dcg(1, 1))
    np.testing.assert_allclose(metrics["judged_share@10"], 0.7)


def test_both_figures_are_one_where_everything_is_rated() -> None:
    rng = np.random.default_rng(4)
    judgments = Judgments(
        {f"q{n}": {name: float(rng.integers(0, 4)) for name in CATALOG.object_ids} for n in range(70)}
    )
    metrics = evaluate_judgments(list(judgments), QUERIES[:70], CATALOG, index(), judgments).values
    np.testing.assert_allclose(metrics["judged_ndcg@10"], metrics["ndcg@10"])
    assert len(set(metrics["ndcg@10"].round(3))) > 40
    assert metrics["judged_share@10"].tolist() == [1.0] * 70


def test_rated_objects_of_one_score_stand_in_catalogue_order() -> None:
    scores = given([[0.0, 0.5, 0.5, 0.5]])
    rows = {"a": 0, "b": 1, "c": 2, "d": 3}
    for best, place in (("b", 1), ("d", 2)):
        grades = {"d": 0.0, "b": 0.0} | {best: 1.0}  # the order of the judgments says nothing
        metrics = evaluate_scores(["q"], scores, rows, Judgments({"q": grades})).values
        np.testing.assert_allclose(metrics["judged_ndcg@10"], dcg(*[0] * (place - 1), 1))


def test_a_query_was_answered_well_where_its_first_result_has_its_highest_grade() -> None:
    scores = given([[3.0, 2.0, 1.0]] * 5)
    rows = {"a": 0, "b": 1, "c": 2}
    judgments = Judgments(
        {
            "best first": {"a": 3, "b": 1},
            "one of the best": {"a": 2, "c": 2},
            "relevant, not the best": {"a": 2, "b": 3},
            "not rated": {"b": 3},
            "best of the catalogue": {"a": 1, "gone": 3},
        }
    )
    metrics = evaluate_scores(list(judgments), scores, rows, judgments).values
    assert metrics[ANSWERED_WELL].tolist() == [1.0, 1.0, 0.0, 0.0, 1.0]


def test_scores_of_any_kind_are_ranked_as_similarities_are() -> None:
    similarity = similarity_scores(QUERIES, CATALOG, index())
    expected = rank(QUERIES, CATALOG, index(), k=7)
    assert rank_scores(similarity, len(QUERIES), k=7).rows.tolist() == expected.rows.tolist()
    lifted = np.zeros(len(CATALOG.object_ids), dtype=np.float32)
    lifted[123] = 5.0
    fused = rank_scores(lambda rows: similarity(rows) + lifted, len(QUERIES), k=2)
    assert fused.rows[:, 0].tolist() == [123] * len(QUERIES)
    for second, similar in zip(fused.rows[:, 1], expected.rows, strict=True):
        assert second == next(row for row in similar if row != 123)


def test_of_no_query_nothing_is_ranked() -> None:
    assert rank(QUERIES[:0], CATALOG, index()).rows.shape == (0, 10)


def test_a_model_that_gives_no_numbers_has_no_metric() -> None:
    judgments = Judgments({"q": {"o1": 3}, "r": {"o2": 1}})
    vectors = QUERIES[:2].copy()
    vectors[0] = np.nan
    metrics = evaluate_judgments(["q", "r"], vectors, CATALOG, index(), judgments)
    for values in metrics.values.values():
        assert np.isnan(values).tolist() == [True, False]
    assert "mrr@10" not in metrics.without(["mrr@10"]).values


def test_no_query_with_judgments_gives_empty_metrics() -> None:
    metrics = evaluate_judgments(["x"], QUERIES[:1], CATALOG, index(), Judgments({"y": {"o1": 1}}))
    assert metrics.queries == ()
    assert metrics.values["ndcg@10"].shape == (0,)


def test_collapse_shows_in_random_pairs() -> None:
    healthy = mean_random_similarity(CATALOG)
    collapsed = EncodedCatalog.from_parts({name: rows * 0.05 + 1.0 for name, rows in PARTS.items()})
    assert abs(healthy) < 0.05
    assert mean_random_similarity(collapsed) > 0.95
    assert np.isnan(mean_random_similarity(EncodedCatalog.from_parts({"one": unit(2)})))


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(DimensionError, match="16 dimensions"):
        rank(QUERIES[:, :4], CATALOG, index())
    with pytest.raises(DataError, match="offsets"):
        EncodedCatalog(("a", "b"), unit(2), np.array([0, 2, 2]))
    with pytest.raises(DataError, match="twice"):
        EncodedCatalog(("a", "a"), unit(2), np.array([0, 1, 2]))
    with pytest.raises(DataError, match="one vector per query"):
        evaluate_judgments(["q"], QUERIES[:2], CATALOG, index(), Judgments({}))
