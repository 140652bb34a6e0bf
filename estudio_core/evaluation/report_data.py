"""What an evaluation report says: figures, decision, curves, trials, queries before and after. It is also its JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from estudio_core.evaluation.bootstrap import Estimate, bootstrap_mean
from estudio_core.evaluation.comparison import FIGURES, Group
from estudio_core.evaluation.evaluate import QueryMetrics
from estudio_core.evaluation.gate import GateDecision

TOP_RESULTS = 5


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ResultLine(_Data):
    """One result as a reader sees it. No grade: nobody judged it for this query."""

    object_id: str
    title: str
    grade: float | None = None


class QueryChange(_Data):
    """One query with both models: its metric and its top results."""

    query: str
    group: Group
    before: float
    after: float
    results_before: tuple[ResultLine, ...] = ()
    results_after: tuple[ResultLine, ...] = ()

    @property
    def change(self) -> float:
        """Gain of the metric."""
        return self.after - self.before


class Series(_Data):
    """One line of a chart: (step, value), in order. Points that are not finite are dropped: JSON cannot hold them."""

    name: str
    points: tuple[tuple[float, float], ...]

    @field_validator("points")
    @classmethod
    def _finite(cls, points: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        return tuple(point for point in points if np.isfinite(point).all())


class Curve(_Data):
    """A chart of training: one or more series over steps."""

    title: str
    series: tuple[Series, ...]


class SearchedTrial(_Data):
    """One combination of hyper-parameters that was tried."""

    name: str
    parameters: dict[str, str]
    value: float | None = None
    status: Literal["finished", "stopped early", "failed"] = "finished"
    error: str = ""
    """Why it failed."""
    best: bool = False
    course: tuple[tuple[float, float], ...] = ()
    """(step, metric) at each of its validations."""


class DataFacts(_Data):
    """What the model learned from."""

    dataset_id: str
    simulated: bool
    """Whether the clicks come from a click model rather than from people."""
    sessions: int
    clicked_sessions: int
    sessions_by_split: dict[str, int]
    queries_by_split: dict[str, int]
    items: int
    items_on_both_sides: int
    """Items that occur in training and in held-out sessions."""
    missing_items: int = 0
    left_out: dict[str, int] = {}
    """Sessions that were extracted and not used, by reason."""
    not_by_relevance: int = 0
    """Sessions whose lists were sorted otherwise, filtered, or a further page."""
    window_sessions: int = 0
    """Sessions of the window; 0 where that is not known."""
    extracted_sessions: int = 0
    """Those of them that were drawn."""
    position_bias: str = "none"
    effective_sample_size: float | None = None
    judged_queries: int = 0


class Lane(_Data):
    """How well one way of ranking answers the queries of a group: words, vectors, or what is served of both."""

    name: str
    group: Group
    metrics: dict[str, Estimate]


class EvaluationReport(_Data):
    """An evaluation of a candidate against the champion."""

    plugin: str
    created_at: datetime
    decision: GateDecision
    facts: DataFacts | None = None
    """None: nothing was learned from sessions; the notes say from what."""
    lanes: tuple[Lane, ...] = ()
    """Words alone, vectors alone and both, with the champion and with the candidate."""
    queries: tuple[QueryChange, ...] = ()
    curves: tuple[Curve, ...] = ()
    trials: tuple[SearchedTrial, ...] = ()
    trial_metric: str = "test_ndcg@10"
    champion: str = "champion"
    candidate: str = "candidate"
    runs: dict[str, str] = Field(default_factory=dict)
    """Ids by what they name, such as {"MLflow run": "8f3c…"}."""
    notes: tuple[str, ...] = ()

    def best_changes(self, count: int) -> list[QueryChange]:
        """Return the queries that gained most, best first."""
        gained = [query for query in self.queries if query.change > 0]
        return sorted(gained, key=lambda query: (-query.change, query.query))[:count]

    def worst_changes(self, count: int) -> list[QueryChange]:
        """Return the queries that lost most, worst first."""
        lost = [query for query in self.queries if query.change < 0]
        return sorted(lost, key=lambda query: (query.change, query.query))[:count]


def query_changes(
    group: Group,
    metric: str,
    champion: QueryMetrics,
    candidate: QueryMetrics,
    results_before: Mapping[str, tuple[ResultLine, ...]] | None = None,
    results_after: Mapping[str, tuple[ResultLine, ...]] | None = None,
) -> list[QueryChange]:
    """Return one entry per query of a group on which both models gave a number."""
    changes: Iterable[tuple[str, float, float]] = zip(
        champion.queries, champion.values[metric].tolist(), candidate.values[metric].tolist(), strict=True
    )
    return [
        QueryChange(
            query=query,
            group=group,
            before=before,
            after=after,
            results_before=(results_before or {}).get(query, ()),
            results_after=(results_after or {}).get(query, ()),
        )
        for query, before, after in changes
        if np.isfinite([before, after]).all()
    ]


def lanes(rankings: Mapping[str, Mapping[Group, QueryMetrics]]) -> tuple[Lane, ...]:
    """Return the figures of each ranking, by its name, in each group."""
    found = []
    for name, of_groups in rankings.items():
        for group, metrics in of_groups.items():
            figures = {figure: metrics.values[figure] for figure in FIGURES if figure in metrics.values}
            finite = {figure: values[np.isfinite(values)] for figure, values in figures.items()}
            known = {figure: bootstrap_mean(values) for figure, values in finite.items() if len(values)}
            found.append(Lane(name=name, group=group, metrics=known))
    return tuple(found)
