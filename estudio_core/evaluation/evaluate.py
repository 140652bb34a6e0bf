"""How well a model ranks: exact search over the whole catalogue, metrics per query against judgments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.ranking_data import FineTuningInput
from estudio_core.errors import DataError, DimensionError
from estudio_core.evaluation.judgments import Judgments
from estudio_core.evaluation.ranking_metrics import mrr_at_k, ndcg_at_k, recall_at_k
from estudio_core.models.aggregation import PartTable, normalised, object_similarities, object_vectors, similarities
from estudio_core.vectordb.index_info import MetricAggregationType, MetricType, SearchIndexInfo

Vectors = NDArray[np.float32]

METRICS = ("ndcg@10", "mrr@10", "recall@10")
METRIC_TITLES = {
    "ndcg@10": "nDCG@10",
    "mrr@10": "MRR@10",
    "recall@10": "Recall@10",
    "shown_ndcg@10": "nDCG@10 of the shown list",
    "shown_pairwise_accuracy": "Clicked above skipped (pairwise accuracy)",
}
K = 10
_QUERIES_AT_ONCE = 64  # x 20,000 objects x 3 parts in float32: 15 MB


@dataclass(frozen=True)
class EncodedCatalog:
    """The vectors of all objects: `parts[offsets[i]:offsets[i + 1]]` are those of `object_ids[i]`.

    Attributes:
        object_ids: Ids, each once.
        parts: float32 [parts, dim].
        offsets: int64 [objects + 1], rising from 0 to the number of parts.
    """

    object_ids: tuple[str, ...]
    parts: Vectors
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Refuse objects without parts, and offsets that do not fit."""
        offsets = np.asarray(self.offsets)
        fits = offsets.shape == (len(self.object_ids) + 1,) and offsets[0] == 0 and offsets[-1] == len(self.parts)
        if not self.object_ids or not fits or (np.diff(offsets) < 1).any():
            raise DataError(
                f"{len(self.object_ids)} objects with offsets of shape {offsets.shape} for {len(self.parts)} parts: "
                "offsets must rise from 0 to the number of parts, with at least one part for each of some objects."
            )
        if len(set(self.object_ids)) != len(self.object_ids):
            raise DataError("An object id stands twice in the catalogue. Give each object once, with all its parts.")

    @classmethod
    def from_parts(cls, parts: Mapping[str, Vectors]) -> EncodedCatalog:
        """Build from a [parts, dim] matrix per object id."""
        counts = [len(rows) for rows in parts.values()]
        matrix = np.concatenate(list(parts.values())) if counts else np.empty((0, 0), dtype=np.float32)
        return cls(tuple(parts), matrix, np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64))

    @cached_property
    def table(self) -> PartTable:
        """Which parts belong to which object, by row of `object_ids`."""
        return PartTable.counted(np.diff(self.offsets).tolist())

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row of each object id."""
        return {object_id: row for row, object_id in enumerate(self.object_ids)}


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


def rank(queries: Vectors, catalog: EncodedCatalog, index: SearchIndexInfo, k: int = K) -> Ranked:
    """Return the `k` nearest objects of every query, by exact search; ties go to the earlier object.

    Args:
        queries: float32 [queries, dim].
        catalog: The objects.
        index: Metric and aggregation.
        k: Objects wanted; fewer come where the catalogue is smaller.

    Raises:
        DimensionError: vectors of another dimension than the index's.
    """
    k = min(k, len(catalog.object_ids))
    rows = np.empty((len(queries), k), dtype=np.int64)
    scores = np.empty((len(queries), k), dtype=np.float32)
    for block, found in similarity_blocks(queries, catalog, index):
        # Not a number sorts last, so that a broken vector is never returned as the best one.
        top = _smallest(np.where(np.isnan(found), np.inf, -found), k)
        rows[block], scores[block] = top, np.take_along_axis(found, top, 1)
    return Ranked(rows, scores)


def evaluate_judgments(
    queries: Sequence[str], vectors: Vectors, catalog: EncodedCatalog, index: SearchIndexInfo, judgments: Judgments
) -> QueryMetrics:
    """Rank the whole catalogue for every query and compare with its judgments.

    The ideal ranking holds judged objects of the catalogue only; queries none of whose relevant objects is in the
    catalogue are left out. Metrics: `METRICS`.

    Args:
        queries: Query texts; those without judgments are left out.
        vectors: float32 [queries, dim], parallel to `queries`.
        catalog: All objects.
        index: Metric and aggregation.
        judgments: Grades by query.
    """
    if len(queries) != len(vectors):
        raise DataError(f"{len(queries)} queries and {len(vectors)} query vectors: one vector per query is needed.")
    known = [
        {
            catalog.rows[object_id]: grade
            for object_id, grade in judgments.get(query, {}).items()
            if object_id in catalog.rows
        }
        for query in queries
    ]
    keep = [number for number, grades in enumerate(known) if any(grades.values())]
    texts = tuple(queries[number] for number in keep)
    ranked = rank(vectors[keep], catalog, index, K)
    graded = np.array(
        [[known[number].get(row, 0.0) for row in top] for number, top in zip(keep, ranked.rows.tolist(), strict=True)]
    ).reshape(len(keep), ranked.rows.shape[1])
    judged = filled([list(known[number].values()) for number in keep])
    broken = ~np.isfinite(ranked.scores).all(axis=1)
    computed = (ndcg_at_k(graded, judged, K), mrr_at_k(graded, judged, K), recall_at_k(graded, judged, K))
    return QueryMetrics(texts, {n: np.where(broken, np.nan, v) for n, v in zip(METRICS, computed, strict=True)})


def judgments_from_sessions(sessions: Iterable[FineTuningInput]) -> Judgments:
    """Return clicks as grades: of a query's sessions that showed an object, the share in which it was clicked.

    For ranking the whole catalogue. An object that was never shown has no grade, so a model that finds better ones
    gets no credit for them: the figures lean towards the release that served the sessions.
    """
    shown: dict[str, dict[str, int]] = {}
    clicked: dict[str, dict[str, int]] = {}
    for session in sessions:
        shows, clicks = shown.setdefault(session.query, {}), clicked.setdefault(session.query, {})
        for object_id, weight in zip(session.results, session.click_weights, strict=True):
            shows[object_id] = shows.get(object_id, 0) + 1
            clicks[object_id] = clicks.get(object_id, 0) + (weight > 0)
    return Judgments(
        {
            query: {object_id: clicked[query][object_id] / count for object_id, count in shows.items()}
            for query, shows in shown.items()
        }
    )


def mean_random_similarity(catalog: EncodedCatalog, pairs: int = 20_000, seed: int = 0) -> float:
    """Return the mean cosine of random pairs of different objects: near 1 where all vectors have become the same.

    NaN for a catalogue of one object.
    """
    count = len(catalog.object_ids)
    if count < 2:
        return float("nan")
    vectors = normalised(object_vectors(catalog.parts, catalog.table, MetricType.COSINE))
    rng = np.random.default_rng(seed)
    first = rng.integers(0, count, pairs)
    second = (first + rng.integers(1, count, pairs)) % count
    return float(np.einsum("ij,ij->i", vectors[first], vectors[second], dtype=np.float64).mean())


def similarity_blocks(
    queries: Vectors, catalog: EncodedCatalog, index: SearchIndexInfo
) -> Iterator[tuple[slice, Vectors]]:
    """Yield the similarity of blocks of queries to all objects: (which queries, [block, objects]).

    Raises:
        DimensionError: vectors of another dimension than the index's.
    """
    for name, vectors in (("query", queries), ("item", catalog.parts)):
        if vectors.ndim != 2 or vectors.shape[1] != index.dimensions:
            raise DimensionError(f"The index has {index.dimensions} dimensions; {name} vectors have {vectors.shape}.")
    aggregation, metric = index.metric_aggregation_type, index.metric_type
    # Object vectors of AVG are the same for every block.
    whole = object_vectors(catalog.parts, catalog.table, metric) if aggregation is MetricAggregationType.AVG else None
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        block = slice(start, start + _QUERIES_AT_ONCE)
        if whole is not None:
            yield block, similarities(queries[block], whole, metric)
        else:
            yield block, object_similarities(queries[block], catalog.parts, catalog.table, aggregation, metric)


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
