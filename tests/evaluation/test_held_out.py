"""Held-out sessions: clicks as judgments, shown lists ranked again, distance shifts."""

from __future__ import annotations

import numpy as np
import pytest

from estudio_core.clickstream.ranking_data import FineTuningInput
from estudio_core.evaluation.evaluate import judgments_from_sessions
from estudio_core.evaluation.held_out import evaluate_shown
from estudio_core.evaluation.scores import EncodedCatalog, similarity_scores
from estudio_core.vectordb.index_info import SearchIndexInfo

DIM = 4
INDEX = SearchIndexInfo(dimensions=DIM)


def session(name: str, query: str, results: str, clicked: str) -> FineTuningInput:
    shown = tuple(results.split())
    return FineTuningInput(
        session_id=name,
        query=query,
        results=shown,
        positions=tuple(range(len(shown))),
        ranks=(None,) * len(shown),
        click_weights=tuple(float(r in clicked.split()) for r in shown),
    )


def test_clicks_become_grades() -> None:
    judgments = judgments_from_sessions(
        [session("1", "q", "a b c", "b"), session("2", "q", "b a", "b a"), session("3", "p", "a", "")]
    )
    gains = {object_id: 2**grade - 1 for object_id, grade in judgments["q"].items()}
    assert gains == pytest.approx({"a": 0.5, "b": 1.0, "c": 0.0})
    assert list(judgments.answerable()) == ["q"]


def test_shown_lists_are_ranked_again() -> None:
    vectors = np.eye(DIM, dtype=np.float32)
    catalog = EncodedCatalog(("a", "b", "c"), vectors[:3] + 0.1, np.arange(4))
    metrics = evaluate_shown(
        [
            session("1", "q", "c b a", "a"),
            session("2", "q", "b a", "b"),
            session("3", "q", "a", "a"),  # nothing skipped
            session("4", "p", "a b", ""),  # nothing clicked
            session("5", "p", "a b gone", "b gone"),
        ],
        ["p", "q"],
        similarity_scores(vectors[[1, 0]], catalog, INDEX),
        catalog,
    )
    assert metrics.queries == ("p", "q")
    np.testing.assert_allclose(metrics.values["shown_ndcg@10"], [1.0, (1 + 1 / np.log2(3)) / 2])
    np.testing.assert_allclose(metrics.values["shown_pairwise_accuracy"], [1.0, 0.5])
    assert evaluate_shown([], ["q"], similarity_scores(vectors[:1], catalog, INDEX), catalog).queries == ()


def test_many_queries_are_ranked_again_block_by_block() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((150, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # Object n is query n's own vector: every query finds its clicked object first, unless blocks are mixed up.
    catalog = EncodedCatalog(tuple(f"o{n}" for n in range(150)), vectors, np.arange(151))
    sessions = [session(str(n), f"q{n}", f"o{(n + 1) % 150} o{n}", f"o{n}") for n in range(150)]
    ranks = similarity_scores(vectors, catalog, INDEX)
    metrics = evaluate_shown(sessions, [f"q{n}" for n in range(150)], ranks, catalog)
    assert len(metrics.queries) == 150
    assert metrics.values["shown_pairwise_accuracy"].tolist() == [1.0] * 150


def test_a_query_whose_vector_is_broken_has_no_metric() -> None:
    catalog = EncodedCatalog(("a", "b"), np.eye(2, DIM, dtype=np.float32), np.arange(3))
    vectors = np.array([[np.nan] * DIM, [1, 0, 0, 0]], dtype=np.float32)
    metrics = evaluate_shown(
        [session("1", "p", "a b", "a"), session("2", "q", "a b", "a")],
        ["p", "q"],
        similarity_scores(vectors, catalog, INDEX),
        catalog,
    )
    assert np.isnan(metrics.values["shown_ndcg@10"]).tolist() == [True, False]
