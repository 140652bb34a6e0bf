"""From parts to objects: the one definition of MIN and AVG that loss, metrics and vector adjustment use.

An object has one or more parts, each with a vector. Similarities are oriented: larger is nearer.

- MIN distance: similarity to the nearest part, i.e. the largest similarity of any part.
- AVG: one vector per object, the mean of its part vectors, normalised again for cosine; similarity to that vector.

All functions take numpy arrays or torch tensors and return the same kind; with tensors they are differentiable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
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
        rows: int64, rows of the part matrix, those of one object behind those of the other.
        counts: int64 [objects], parts of each, one or more.
    """

    rows: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, parts: Sequence[Sequence[int]]) -> PartTable:
        """Build the table from each object's list of part rows.

        >>> table = PartTable.of([[0], [1, 2]])
        >>> table.rows.tolist(), table.counts.tolist(), table.index.tolist(), table.share.tolist()
        ([0, 1, 2], [1, 2], [[0, 0], [1, 2]], [[1.0, 0.0], [0.5, 0.5]])

        Raises:
            ValueError: an object has no part.
        """
        counts = np.array([len(rows) for rows in parts], dtype=np.int64)
        if (counts == 0).any():
            raise ValueError("Every object needs at least one part.")
        rows = np.fromiter(chain.from_iterable(parts), dtype=np.int64, count=int(counts.sum()))
        return cls(rows, counts)

    @classmethod
    def counted(cls, counts: Sequence[int]) -> PartTable:
        """Build the table of objects whose parts lie one after another, `counts` of them each."""
        given = np.array(counts, dtype=np.int64)
        if (given == 0).any():
            raise ValueError("Every object needs at least one part.")
        return cls(np.arange(int(given.sum())), given)

    @cached_property
    def owners(self) -> NDArray[np.int64]:
        """The object of each of `rows`."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where the parts of each object begin in `rows`, [objects]."""
        return np.cumsum(self.counts) - self.counts

    @property
    def index(self) -> NDArray[np.int64]:
        """Rows by object, int64 [objects, most parts]; short ones repeat their first part. For a few objects alone."""
        places = np.arange(int(self.counts.max(initial=1)))
        real = places < self.counts[:, None]
        return self.rows[self.starts[:, None] + np.where(real, places, 0)]

    @property
    def share(self) -> NDArray[np.float32]:
        """1/number of parts, and 0 where a row of `index` is filled up, float32 [objects, most parts]."""
        real = np.arange(int(self.counts.max(initial=1))) < self.counts[:, None]
        return np.where(real, 1 / self.counts[:, None], 0).astype(np.float32)


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
    mean: Any
    if isinstance(parts, np.ndarray):
        sums = np.add.reduceat(parts[table.rows], table.starts, axis=0) if len(table.counts) else parts[:0]
        mean = sums / table.counts[:, None].astype(parts.dtype)
    else:
        rows, owners, counts = _like(parts, table)
        mean = parts.new_zeros(len(counts), parts.shape[1]).index_add(0, owners, parts[rows]) / counts[:, None]
    result: Array = normalised(mean) if metric is MetricType.COSINE else mean
    return result


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
    per_part: Any = similarities(queries, parts, metric)
    nearest: Any
    if isinstance(per_part, np.ndarray):
        listed = per_part[:, table.rows]
        nearest = np.maximum.reduceat(listed, table.starts, axis=1) if len(table.counts) else listed
    else:
        rows, owners, counts = _like(parts, table)
        nearest = per_part[:, rows]
        if len(rows) > len(counts):
            empty = nearest.new_full((len(nearest), len(counts)), float("-inf"))
            nearest = empty.scatter_reduce(1, owners.expand(len(nearest), -1), nearest, "amax")
    found: Array = nearest
    return found


def _like(parts: Any, table: PartTable) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return rows, their objects, and parts of each object, where `parts` is."""
    import torch

    return (
        torch.from_numpy(table.rows).to(parts.device),
        torch.from_numpy(table.owners).to(parts.device),
        torch.from_numpy(table.counts).to(parts.device),
    )
