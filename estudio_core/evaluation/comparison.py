"""Champion and candidate on the same queries: each metric before and after, and what well-answered queries lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from estudio_core.errors import DataError
from estudio_core.evaluation.bootstrap import Estimate, bootstrap_mean, paired_gain
from estudio_core.evaluation.evaluate import ANSWERED_WELL, FULL, JUDGED, METRIC_TITLES, QueryMetrics

Group = Literal["seen", "known", "unseen"]
"""seen: queries that occur in the training sessions. unseen: queries that do not. known: queries drawn of items that
training has not seen, which they are to find; people's judgments, where there are some, are *unseen* beside them."""

FIGURES = (FULL, JUDGED)
"""Metrics of which none is to be bought by a loss of another."""


class MetricComparison(BaseModel):
    """One metric, before and after, and the paired gain, over the queries that the estimates count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    before: Estimate
    after: Estimate
    gain: Estimate


class GroupComparison(BaseModel):
    """Champion and candidate on the same queries of one group. No metrics: no query could be compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: Group
    queries: int
    not_finite: int = 0
    """Queries for which one of the models gave no number."""
    metrics: tuple[MetricComparison, ...] = ()
    tax: tuple[MetricComparison, ...] = ()
    """The figures of the queries that the champion answered well: those whose first result had the highest grade of
    the query. They were chosen by the champion's success, so that any other ranking loses some of it by chance alone.
    Empty without people's ratings, and where no query was answered well."""

    def metric(self, name: str) -> MetricComparison | None:
        """Return the comparison of one metric, None where there is none."""
        return next((m for m in self.metrics if m.metric == name), None)


def compare_group(
    group: Group, champion: QueryMetrics, candidate: QueryMetrics, confidence: float = 0.95, seed: int = 0
) -> GroupComparison:
    """Compare two models on the queries of one group.

    Raises:
        DataError: they were evaluated on different queries.
    """
    if champion.queries != candidate.queries:
        raise DataError(
            f"Group {group!r}: the champion was evaluated on {len(champion.queries)} queries and the candidate on "
            f"{len(candidate.queries)}, or in another order. Evaluate both on the same list."
        )
    names = [name for name in METRIC_TITLES if name in champion.values and name in candidate.values]
    stacked = np.array([side.values[name] for side in (champion, candidate) for name in names])
    finite = np.isfinite(stacked.reshape(-1, len(champion.queries))).all(axis=0)

    def compared(metrics: Sequence[str], queries: NDArray[np.bool_]) -> tuple[MetricComparison, ...]:
        if not queries.any():
            return ()
        return tuple(
            MetricComparison(
                metric=name,
                before=bootstrap_mean(before, confidence=confidence, seed=seed),
                after=bootstrap_mean(after, confidence=confidence, seed=seed),
                gain=paired_gain(before, after, confidence=confidence, seed=seed),
            )
            for name in metrics
            for before, after in [(champion.values[name][queries], candidate.values[name][queries])]
        )

    return GroupComparison(
        group=group,
        queries=len(finite),
        not_finite=int((~finite).sum()),
        metrics=compared(names, finite),
        tax=compared([name for name in FIGURES if name in names], finite & answered_well(champion)),
    )


def answered_well(champion: QueryMetrics) -> NDArray[np.bool_]:
    """Return which queries the champion answered well, [queries]; none where that was not told."""
    told: NDArray[np.bool_] = champion.values.get(ANSWERED_WELL, np.zeros(len(champion.queries))) == 1
    return told
