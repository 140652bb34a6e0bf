"""Vector adjustment by gradient steps on the sphere, bounded in angle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from estudio_core.errors import ConfigurationError, DimensionError, ItemError
from estudio_core.improvement.bounds import turned
from estudio_core.improvement.improvement_input import ImprovementElement, ImprovementInput
from estudio_core.improvement.vectors_adjuster import VectorsAdjuster
from estudio_core.models.aggregation import PartTable, normalised
from estudio_core.vectordb.index_info import MetricAggregationType, MetricType, SearchIndexInfo

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class _Batch:
    """Sessions as tensors: P parts of O objects (W parts at most), S sessions, N (session, object) pairs."""

    vectors: torch.Tensor  # [P, dim]
    index: torch.Tensor  # [O, W] rows of `vectors`
    share: torch.Tensor  # [O, W] 1 / parts, 0 where the row is filled up
    queries: torch.Tensor  # [S, dim]
    session: torch.Tensor  # [N]
    object: torch.Tensor  # [N]
    pull: torch.Tensor  # [N] weight of the pair: positive for clicked, negative for skipped


class TorchBasedAdjuster(VectorsAdjuster):
    """Turns vectors of clicked objects towards the query, and of skipped ones away from it.

    Descends `L = sum over sessions of w · (mean s(q, skipped) - mean s(q, clicked))` over the directions of the part
    vectors; lengths stay. s is the similarity of the index: for AVG to the mean of the parts (normalised again for
    cosine), for MIN to the nearest part, softly: parts weighted by softmax(s / softmin_temperature). After
    `num_iterations` steps of size `adjustment_rate`, a turn by the angle a is cut to `A · tanh(a / A)`,
    A = `max_angle_degrees`: never more than A, and a stronger reason still turns further.

    An object that several sessions showed is moved once, by all of them. Sessions without a click move nothing.
    The same input gives the same output.

    Args:
        search_index_info: Dimension, metric and aggregation of the index.
        adjustment_rate: Size of a step, radians per unit of similarity.
        num_iterations: Steps.
        softmin_temperature: For MIN: near 0, only the nearest part moves; large, all parts move alike.
        max_angle_degrees: Bound of the turn of each part vector, in (0, 90].

    Raises:
        ConfigurationError: an argument is out of range.
    """

    def __init__(
        self,
        search_index_info: SearchIndexInfo,
        adjustment_rate: float = 0.1,
        num_iterations: int = 10,
        softmin_temperature: float = 1.0,
        max_angle_degrees: float = 10.0,
    ) -> None:
        ranges = {
            "adjustment_rate": (adjustment_rate, 0 < adjustment_rate < math.inf, "a positive number"),
            "num_iterations": (num_iterations, num_iterations >= 1, "1 or more"),
            "softmin_temperature": (softmin_temperature, 0 < softmin_temperature < math.inf, "a positive number"),
            "max_angle_degrees": (max_angle_degrees, 0 < max_angle_degrees <= 90, "above 0 and at most 90"),
        }
        for name, (value, legal, rule) in ranges.items():
            if not legal:
                raise ConfigurationError(f"{name} is {value}; it has to be {rule}.")
        self.search_index_info = search_index_info
        self.adjustment_rate = adjustment_rate
        self.num_iterations = num_iterations
        self.softmin_temperature = softmin_temperature
        self.max_angle_degrees = max_angle_degrees

    def adjust_vectors(self, data_for_improvement: list[ImprovementInput]) -> list[ImprovementInput]:
        """Replace the vectors of clicked and skipped elements, in place, and return the same list.

        Raises:
            DimensionError: a vector does not have the dimension of the index, or one object comes with two shapes.
            ItemError: a vector is zero or not finite.
        """
        sessions = [session for session in data_for_improvement if session.clicked_elements]
        if not sessions:
            return data_for_improvement
        groups = self._groups(sessions)
        batch = self._batch(sessions, groups)
        moved = self._bounded(batch.vectors, self._descend(batch))
        start = 0
        for elements in groups.values():
            end = start + len(elements[0].vector)
            for element in elements:
                element.vector = moved[start:end].to(element.vector)
            start = end
        return data_for_improvement

    def _groups(self, sessions: list[ImprovementInput]) -> dict[tuple[str, str | None], list[ImprovementElement]]:
        groups: dict[tuple[str, str | None], list[ImprovementElement]] = {}
        for session in sessions:
            self._check(session.query)
            for element in [*session.clicked_elements, *session.non_clicked_elements]:
                self._check(element)
                group = groups.setdefault((element.id, element.user_id), [])
                if group and group[0].vector.shape != element.vector.shape:
                    raise DimensionError(
                        f"Object {element.id!r} comes with vectors of shape {tuple(group[0].vector.shape)} and "
                        f"{tuple(element.vector.shape)} in one batch. Load it once."
                    )
                group.append(element)
        return groups

    def _check(self, element: ImprovementElement) -> None:
        dimensions = self.search_index_info.dimensions
        if element.vector.ndim != 2 or element.vector.shape[1] != dimensions:
            raise DimensionError(
                f"{element.id!r} has vectors of shape {tuple(element.vector.shape)}; expected [parts, {dimensions}]."
            )
        if not element.vector.isfinite().all() or not element.vector.any(dim=1).all():
            raise ItemError(f"{element.id!r} has a vector that is zero or not finite.", [element.id])

    def _batch(
        self,
        sessions: list[ImprovementInput],
        groups: dict[tuple[str, str | None], list[ImprovementElement]],
    ) -> _Batch:
        import torch

        firsts = [elements[0].vector.detach().double().cpu() for elements in groups.values()]
        table = PartTable.counted([len(vectors) for vectors in firsts])
        row_of = {key: number for number, key in enumerate(groups)}
        pairs = [
            (number, row_of[element.id, element.user_id], sign * session.weight / len(elements))
            for number, session in enumerate(sessions)
            for sign, elements in ((1.0, session.clicked_elements), (-1.0, session.non_clicked_elements))
            for element in elements
        ]
        return _Batch(
            vectors=torch.cat(firsts),
            index=torch.from_numpy(table.index),
            share=torch.from_numpy(table.share).double(),
            queries=torch.stack([session.query.vector.detach().double().cpu().mean(dim=0) for session in sessions]),
            session=torch.tensor([pair[0] for pair in pairs]),
            object=torch.tensor([pair[1] for pair in pairs]),
            pull=torch.tensor([pair[2] for pair in pairs], dtype=torch.float64),
        )

    def _similarity(self, vectors: torch.Tensor, batch: _Batch) -> torch.Tensor:
        """Return s of every pair, [N]."""
        metric = self.search_index_info.metric_type
        queries = batch.queries[batch.session]
        parts = vectors[batch.index]
        if self.search_index_info.metric_aggregation_type is MetricAggregationType.AVG:
            mean = (parts * batch.share[..., None]).sum(dim=1)
            return _similar(queries, mean[batch.object], metric)
        per_part = _similar(queries[:, None, :], parts[batch.object], metric)
        unused = batch.share[batch.object] == 0
        weights = (per_part / self.softmin_temperature).masked_fill(unused, -math.inf).softmax(dim=1)
        return (weights * per_part).sum(dim=1)

    def _descend(self, batch: _Batch) -> torch.Tensor:
        """Return the vectors after all steps; each step turns them along the sphere of their length."""
        import torch

        length = batch.vectors.norm(dim=1, keepdim=True)
        direction = batch.vectors / length
        for _ in range(self.num_iterations):
            free = direction.clone().requires_grad_(True)
            with torch.enable_grad():
                gain = (batch.pull * self._similarity(free * length, batch)).sum()
                (gradient,) = torch.autograd.grad(gain, free)
            tangent = gradient - (gradient * direction).sum(dim=1, keepdim=True) * direction
            direction = normalised(direction + self.adjustment_rate * tangent)
        moved: torch.Tensor = direction * length
        return moved

    def _bounded(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Turn `before` towards `after` by the cut angle; a row that did not move stays bit for bit."""
        limit = math.radians(self.max_angle_degrees)
        return turned(before, after, lambda angle: limit * (angle / limit).tanh())


def _similar(queries: torch.Tensor, vectors: torch.Tensor, metric: MetricType) -> torch.Tensor:
    """Return row-wise similarities, larger is nearer, as `models.aggregation.similarities` defines them."""
    if metric is MetricType.EUCLID:
        # The floor keeps the gradient of the root finite where query and vector coincide.
        squared: torch.Tensor = (queries - vectors).square().sum(dim=-1)
        distance: torch.Tensor = squared.clamp_min(1e-12).sqrt()
        return -distance
    if metric is MetricType.COSINE:
        queries, vectors = normalised(queries), normalised(vectors)
    similarity: torch.Tensor = (queries * vectors).sum(dim=-1)
    return similarity
