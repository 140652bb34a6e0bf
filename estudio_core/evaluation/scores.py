"""What ranks a catalog: the score of every object for some queries. The nearest vectors are one way to give scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from estudio_core.errors import DataError, DimensionError
from estudio_core.models.aggregation import PartTable, normalised, object_similarities, object_vectors, similarities
from estudio_core.vectordb.index_info import MetricAggregationType, MetricType, SearchIndexInfo

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]

Scores = Callable[[Rows], Vectors]
"""From rows of queries, int64 [block], to their scores with every object, float32 [block, objects]; larger is better.

Asked for block by block (`query_blocks`), so that the scores of a large catalog never lie in memory at once. A sum of
two such functions is one: words and vectors, alone or together, are ranked and evaluated by the same code.
"""

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


def similarity_scores(queries: Vectors, catalog: EncodedCatalog, index: SearchIndexInfo) -> Scores:
    """Return what gives the similarity of queries to all objects.

    Args:
        queries: float32 [queries, dim].
        catalog: The objects.
        index: Metric and aggregation.

    Raises:
        DimensionError: vectors of another dimension than the index's.
    """
    for name, vectors in (("query", queries), ("item", catalog.parts)):
        if vectors.ndim != 2 or vectors.shape[1] != index.dimensions:
            raise DimensionError(f"The index has {index.dimensions} dimensions; {name} vectors have {vectors.shape}.")
    aggregation, metric = index.metric_aggregation_type, index.metric_type
    if aggregation is MetricAggregationType.AVG:  # object vectors are the same for every block
        whole = object_vectors(catalog.parts, catalog.table, metric)
        return lambda rows: similarities(queries[rows], whole, metric)
    return lambda rows: object_similarities(queries[rows], catalog.parts, catalog.table, aggregation, metric)


def query_blocks(rows: Rows) -> Iterator[Rows]:
    """Yield rows of queries in blocks whose scores fit into memory; an empty block where there are none.

    >>> [block.tolist() for block in query_blocks(np.arange(0))]
    [[]]
    """
    for start in range(0, max(len(rows), 1), _QUERIES_AT_ONCE):
        yield rows[start : start + _QUERIES_AT_ONCE]


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
