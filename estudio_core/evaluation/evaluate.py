"""How well a catalog is ranked: exact search over all of it, metrics per query against judgments.

Judgments are seldom complete: people graded what some engine had shown. Two figures say what that leaves open. *Full*
counts what nobody rated as irrelevant, and so favours what resembles that engine. *Judged* condenses the ranking to
rated objects first, and so says nothing of what was never rated. Where judgments are complete, the two coincide.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.ranking_data import FineTuningInput
from estudio_core.errors import DataError
from estudio_core.evaluation.judgments import Judgments
from estudio_core.evaluation.ranking_metrics import mrr_at_k, ndcg_at_k, recall_at_k
from estudio_core.evaluation.scores import EncodedCatalog, Scores, Vectors, query_blocks, similarity_scores
from estudio_core.vectordb.index_info import SearchIndexInfo

FULL, JUDGED, RATED = "ndcg@10", "judged_ndcg@10", "judged_share@10"
"""The two figures, and the share of a top ten that is rated."""
METRICS = (FULL, JUDGED, RATED, "mrr@10", "recall@10")
METRIC_TITLES = {
    FULL: "nDCG@10 full",
    JUDGED: "nDCG@10 judged",
    RATED: "Top ten rated",
    "mrr@10": "MRR@10",
    "recall@10": "Recall@10",
    "shown_ndcg@10": "nDCG@10 of the shown list",
    "shown_pairwise_accuracy": "Clicked above skipped (pairwise accuracy)",
}
ANSWERED_WELL = "answered_well"
"""Beside the metrics: 1 where the first result has the highest grade of its query, else 0."""
OF_RATINGS = (JUDGED, RATED, ANSWERED_WELL)
"""What is told of people's ratings only: clicks grade what the champion showed, and its first results most."""
K = 10


@dataclass(frozen=True)
class Ranked:
    """Top objects per query: rows into `object_ids` and similarities, both [queries, k], best first."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class QueryMetrics:
    """Metrics per query. `values[name][i]` belongs to `queries[i]`; NaN where the model gave no number."""

    queries: tuple[str, ...]
    values: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def only(self, queries: Iterable[str]) -> QueryMetrics:
        """Return the metrics of `queries`, in this object's order."""
        wanted = set(queries)
        keep = [row for row, query in enumerate(self.queries) if query in wanted]
        return QueryMetrics(
            tuple(self.queries[row] for row in keep), {name: values[keep] for name, values in self.values.items()}
        )

    def without(self, names: Iterable[str]) -> QueryMetrics:
        """Return the other metrics."""
        left_out = set(names)
        return QueryMetrics(self.queries, {n: values for n, values in self.values.items() if n not in left_out})


def rank_scores(scores: Scores, queries: int, k: int = K) -> Ranked:
    """Return the `k` best objects of every query; ties go to the earlier object.

    Args:
        scores: Of the queries' rows.
        queries: Number of queries.
        k: Objects wanted; fewer come where the catalogue is smaller.
    """
    found = [best_of(scores(block), k) for block in query_blocks(np.arange(queries))]
    return Ranked(np.concatenate([top.rows for top in found]), np.concatenate([top.scores for top in found]))


def rank(queries: Vectors, catalog: EncodedCatalog, index: SearchIndexInfo, k: int = K) -> Ranked:
    """Return the `k` nearest objects of every query, see `similarity_scores` and `rank_scores`."""
    return rank_scores(similarity_scores(queries, catalog, index), len(queries), k)


def evaluate_scores(
    queries: Sequence[str], scores: Scores, rows: Mapping[str, int], judgments: Judgments
) -> QueryMetrics:
    """Rank the whole catalogue for every query and compare with its judgments.

    The ideal ranking holds judged objects of the catalogue only; queries none of whose relevant objects is in the
    catalogue are left out. Metrics: `METRICS`, of which all but two take the full ranking, and `ANSWERED_WELL`.

    Args:
        queries: Query texts; those without judgments are left out.
        scores: Of the queries' rows.
        rows: Column of each object in the scores, by id.
        judgments: Grades by query.

    Source of the condensed lists: Sakai, "Alternatives to Bpref" (SIGIR 2007).
    """
    known = [
        {rows[object_id]: grade for object_id, grade in judgments.get(query, {}).items() if object_id in rows}
        for query in queries
    ]
    keep = np.array([number for number, grades in enumerate(known) if any(grades.values())], dtype=np.int64)
    graded: list[list[float]] = []
    condensed: list[list[float]] = []
    rated: list[float] = []
    broken: list[bool] = []
    for block in query_blocks(keep):
        found = scores(block)
        top = best_of(found, K)
        broken.extend(not np.isfinite(of_query).all() for of_query in top.scores)
        for query, of_query, best in zip(block.tolist(), found, top.rows.tolist(), strict=True):
            grades = known[query]
            graded.append([grades.get(row, 0.0) for row in best])
            rated.append(sum(row in grades for row in best) / len(best))
            condensed.append(_condensed(of_query, grades))
    judged = [list(known[number].values()) for number in keep]
    well = [float(ranked[0] == max(grades)) for ranked, grades in zip(graded, judged, strict=True)]
    full, ideal = filled(graded), filled(judged)
    values = {
        FULL: ndcg_at_k(full, ideal, K),
        JUDGED: ndcg_at_k(filled(condensed), ideal, K),
        RATED: np.array(rated),
        "mrr@10": mrr_at_k(full, ideal, K),
        "recall@10": recall_at_k(full, ideal, K),
        ANSWERED_WELL: np.array(well),
    }
    texts = tuple(queries[number] for number in keep)
    return QueryMetrics(texts, {name: np.where(broken, np.nan, found) for name, found in values.items()})


def evaluate_judgments(
    queries: Sequence[str], vectors: Vectors, catalog: EncodedCatalog, index: SearchIndexInfo, judgments: Judgments
) -> QueryMetrics:
    """Rank by similarity alone and compare with judgments, see `similarity_scores` and `evaluate_scores`.

    Raises:
        DataError: not one vector per query.
        DimensionError: vectors of another dimension than the index's.
    """
    if len(queries) != len(vectors):
        raise DataError(f"{len(queries)} queries and {len(vectors)} query vectors: one vector per query is needed.")
    return evaluate_scores(queries, similarity_scores(vectors, catalog, index), catalog.rows, judgments)


def judgments_from_sessions(sessions: Iterable[FineTuningInput]) -> Judgments:
    """Return clicks as grades, whose gain is the share of a query's sessions that showed an object and saw it clicked.

    A metric's gain is 2^grade - 1, and clicks are gains: on the dev split, where they choose weights, as here.

    For ranking the whole catalogue. An object that was never shown has no grade, so a model that finds better ones
    gets no credit for them: the figures lean towards the release that served the sessions. Lists that are not by
    relevance tell nothing.
    """
    shown: dict[str, dict[str, int]] = {}
    clicked: dict[str, dict[str, int]] = {}
    for session in sessions:
        if not session.by_relevance:
            continue
        shows, clicks = shown.setdefault(session.query, {}), clicked.setdefault(session.query, {})
        for object_id, weight in zip(session.results, session.click_weights, strict=True):
            shows[object_id] = shows.get(object_id, 0) + 1
            clicks[object_id] = clicks.get(object_id, 0) + (weight > 0)
    return Judgments(
        {
            query: {object_id: math.log2(1 + clicked[query][object_id] / count) for object_id, count in shows.items()}
            for query, shows in shown.items()
        }
    )


def best_of(scores: Vectors, k: int) -> Ranked:
    """Return the best objects of a block of scores."""
    top = _smallest(_ascending(scores), min(k, scores.shape[1]))
    return Ranked(top, np.take_along_axis(scores, top, 1))


def _condensed(scores: Vectors, grades: Mapping[int, float]) -> list[float]:
    """Return the grades of a query's rated objects, best first, as if nothing else were there; ties as in `rank`.

    Args:
        scores: Of the query with all objects, [objects].
        grades: By row of the object.
    """
    rated = np.array(sorted(grades))
    order = np.argsort(_ascending(scores[rated]), kind="stable")
    return [grades[row] for row in rated[order].tolist()]


def _ascending(scores: Vectors) -> Vectors:
    """Return keys that sort best first. Not a number sorts last: a broken vector is never returned as the best one."""
    return np.where(np.isnan(scores), np.float32(np.inf), -scores)


def _smallest(keys: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return the columns of the `k` smallest keys of each row, in order; equal keys by column.

    Partitioning 20,000 columns is several times faster than sorting them, but picks any of several equal keys at the
    boundary: rows where that matters are sorted.
    """
    top = np.sort(np.argpartition(keys, k - 1, axis=1)[:, :k], axis=1)
    values = np.take_along_axis(keys, top, 1)
    last = values.max(axis=1, keepdims=True)
    ambiguous = (keys == last).sum(axis=1) > (values == last).sum(axis=1)
    top = np.take_along_axis(top, np.argsort(values, axis=1, kind="stable"), 1)
    top[ambiguous] = np.argsort(keys[ambiguous], axis=1, kind="stable")[:, :k]
    return top


def filled(rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Return ragged rows as a matrix, filled up with 0.

    >>> filled([[1, 2], [3]]).tolist()
    [[1.0, 2.0], [3.0, 0.0]]
    """
    matrix = np.zeros((len(rows), max((len(row) for row in rows), default=0)))
    for number, row in enumerate(rows):
        matrix[number, : len(row)] = row
    return matrix
