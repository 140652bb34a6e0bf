"""From parts to objects: the one definition of MIN and AVG that loss, metrics and vector adjustment use.

An object has one or more parts, each with a vector. Similarities are oriented: larger is nearer.

- MIN distance: similarity to the nearest part, i.e. the largest similarity of any part.
- AVG: one vector per object, the mean of its part vectors, normalised again for cosine; similarity to that vector.

All functions take numpy arrays or torch tensors and return the same kind; with tensors they are differentiable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from estudio_core.vectordb.index_info import MetricAggregationType, MetricType

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", NDArray[np.float32], NDArray[np.float64], "torch.Tensor")

_SMALLEST_NORM = 1e-12  # as torch.nn.functional.normalize: a zero vector stays zero


@dataclass(frozen=True)
class PartTable:
    """Which parts belong to which object.

    Attributes:
        index: int64 [objects, most parts], rows of the part matrix; short rows repeat their first part.
        share: float32 [objects, most parts], 1/number of parts, and 0 where a row is filled up.
    """

    index: NDArray[np.int64]
    share: NDArray[np.float32]

    @classmethod
    def of(cls, parts: Sequence[Sequence[int]]) -> PartTable:
        """Build the table from each object's list of part rows.

        >>> table = PartTable.of([[0], [1, 2]])
        >>> table.index.tolist(), table.share.tolist()
        ([[0, 0], [1, 2]], [[1.0, 0.0], [0.5, 0.5]])

        Raises:
            ValueError: an object has no part.
        """
        if any(len(rows) == 0 for rows in parts):
            raise ValueError("Every object needs at least one part.")
        width = max((len(rows) for rows in parts), default=1)
        index = np.array([[*rows, *[rows[0]] * (width - len(rows))] for rows in parts], dtype=np.int64)
        share = np.array([[1 / len(r)] * len(r) + [0.0] * (width - len(r)) for r in parts], dtype=np.float32)
        return cls(index.reshape(len(parts), width), share.reshape(len(parts), width))

    @classmethod
    def counted(cls, counts: Sequence[int]) -> PartTable:
        """Build the table of objects whose parts lie one after another, `counts` of them each."""
        ends = np.cumsum(counts).tolist()
        return cls.of([range(end - count, end) for end, count in zip(ends, counts, strict=True)])


def normalised(vectors: Array) -> Array:
    """Return `vectors` [..., dim] divided by their L2 norm; a zero vector stays zero."""
    # The floor stands below the root, where the gradient of a zero vector would not be finite.
    norm: Any = (vectors * vectors).sum(-1).clip(min=_SMALLEST_NORM**2) ** 0.5
    result: Array = vectors / norm[..., None]
    return result


def similarities(queries: Array, vectors: Array, metric: MetricType) -> Array:
    """Return the oriented similarity of every query [q, dim] to every vector [n, dim], as [q, n].

    COSINE: cosine. DOT: inner product. EUCLID: the negative distance.
    """
    if metric is MetricType.COSINE:
        queries, vectors = normalised(queries), normalised(vectors)
    result: Array = queries @ vectors.T
    if metric is MetricType.EUCLID:
        squared: Any = (queries * queries).sum(-1)[:, None] + (vectors * vectors).sum(-1)[None, :] - 2 * result
        # The floor keeps the gradient of the root finite where query and vector coincide.
        result = -(squared.clip(min=_SMALLEST_NORM) ** 0.5)
    return result


def object_vectors(parts: Array, table: PartTable, metric: MetricType) -> Array:
    """Return one vector per object [objects, dim]: the mean of its parts, normalised again for cosine."""
    index, share = _like(parts, table)
    mean: Array = (parts[index] * share[..., None]).sum(-2)
    return normalised(mean) if metric is MetricType.COSINE else mean


def object_similarities(
    queries: Array,
    parts: Array,
    table: PartTable,
    aggregation: MetricAggregationType,
    metric: MetricType = MetricType.COSINE,
) -> Array:
    """Return the similarity of every query to every object, [queries, objects]; larger is nearer.

    >>> queries = np.array([[1.0, 0.0]])
    >>> parts = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    >>> table = PartTable.of([[0, 1], [2]])
    >>> object_similarities(queries, parts, table, MetricAggregationType.MIN).round(4).tolist()
    [[1.0, 0.0]]
    >>> object_similarities(queries, parts, table, MetricAggregationType.AVG).round(4).tolist()
    [[0.7071, 0.0]]

    Args:
        queries: [queries, dim].
        parts: [parts, dim].
        table: Which parts belong to which object.
        aggregation: MIN or AVG.
        metric: COSINE, DOT or EUCLID.
    """
    if aggregation is MetricAggregationType.AVG:
        return similarities(queries, object_vectors(parts, table, metric), metric)
    per_part: Any = similarities(queries, parts, metric)[:, _like(parts, table)[0]]
    nearest: Array = per_part.max(-1) if isinstance(per_part, np.ndarray) else per_part.amax(-1)
    return nearest


def _like(parts: Any, table: PartTable) -> tuple[Any, Any]:
    if isinstance(parts, np.ndarray):
        return table.index, table.share.astype(parts.dtype)
    import torch

    index = torch.from_numpy(table.index).to(parts.device)
    return index, torch.from_numpy(table.share).to(parts.device, parts.dtype)
