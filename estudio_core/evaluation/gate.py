"""The gate: whether a candidate may replace the champion."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from estudio_core.errors import DataError
from estudio_core.evaluation.bootstrap import Estimate, bootstrap_mean, paired_gain
from estudio_core.evaluation.evaluate import METRIC_TITLES, QueryMetrics
from estudio_core.evaluation.gate_settings import GateSettings
from estudio_core.evaluation.sign_flip import chance_of_gain

Group = Literal["seen", "unseen"]
"""seen: queries that occur in the training sessions. unseen: queries that do not."""

Chance = Callable[[Group, float], float]
"""From a group and the gain to be exceeded to the p-value of the gain."""

LEAST_SPREAD = 0.5
"""Share of the champion's spread (1 - mean cosine of random item pairs) that a candidate must keep.

Relative, because models differ: unrelated texts have a cosine near 0.1 with MiniLM and near 0.75 with E5. A guard
against collapse, far from what healthy training does.
"""


class MetricComparison(BaseModel):
    """One metric of one group, before and after, and the paired gain."""

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

    def metric(self, name: str) -> MetricComparison | None:
        """Return the comparison of one metric, None where there is none."""
        return next((m for m in self.metrics if m.metric == name), None)


class GateDecision(BaseModel):
    """What was decided, in one sentence, and the figures behind it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    promoted: bool
    reason: str
    settings: GateSettings
    groups: tuple[GroupComparison, ...]
    champion_similarity: float | None = None
    candidate_similarity: float | None = None


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
    if not names or not finite.any():
        return GroupComparison(group=group, queries=len(finite), not_finite=int((~finite).sum()))
    comparisons = []
    for name in names:
        before, after = champion.values[name][finite], candidate.values[name][finite]
        comparisons.append(
            MetricComparison(
                metric=name,
                before=bootstrap_mean(before, confidence=confidence, seed=seed),
                after=bootstrap_mean(after, confidence=confidence, seed=seed),
                gain=paired_gain(before, after, confidence=confidence, seed=seed),
            )
        )
    return GroupComparison(
        group=group, queries=len(finite), not_finite=int((~finite).sum()), metrics=tuple(comparisons)
    )


def decide(
    champion: Mapping[Group, QueryMetrics],
    candidate: Mapping[Group, QueryMetrics],
    settings: GateSettings,
    *,
    champion_similarity: float | None = None,
    candidate_similarity: float | None = None,
    seed: int = 0,
) -> GateDecision:
    """Promote a candidate whose gain is certain enough on queries it saw and on queries it never saw.

    Where both groups have enough queries, the gain on `seen` has to be certain (above `minimum_gain`), and `unseen`
    has to gain in the mean with a loss of more than `maximum_loss` ruled out. Where `unseen` decides alone, its gain
    has to be certain. Without enough unseen queries nothing is promoted: a model can get better for what it was trained
    on and worse for everything else. Without judgments, give the queries of the held-out sessions as `unseen`, and no
    `seen`.

    Certain, and ruled out, is what the bootstrap interval says and the paired randomisation test confirms at the same
    level: of few queries, most of them tied, the interval alone is too narrow.

    Args:
        champion: Metrics per query of the live model, by group.
        candidate: Metrics of the new one, on the same queries.
        settings: Metric, least gain, level, fewest queries.
        champion_similarity: Mean cosine of random item pairs (`mean_random_similarity`) with the champion.
        candidate_similarity: The same with the candidate.
        seed: Of bootstrap and randomisation test.
    """
    order: tuple[Group, ...] = ("seen", "unseen")
    groups = tuple(
        compare_group(group, champion[group], candidate[group], settings.confidence, seed)
        for group in order
        if group in champion and group in candidate
    )

    def chance(group: Group, above: float) -> float:
        before, after = (side[group].values[settings.metric] for side in (champion, candidate))
        return chance_of_gain(before, after, above=above, seed=seed)

    refusal = _collapsed(champion_similarity, candidate_similarity) or _refusal(groups, settings, chance)
    return GateDecision(
        promoted=refusal is None,
        reason=refusal or _success(groups, settings),
        settings=settings,
        groups=groups,
        champion_similarity=champion_similarity,
        candidate_similarity=candidate_similarity,
    )


def _collapsed(champion: float | None, candidate: float | None) -> str | None:
    if candidate is None:
        return None
    if not math.isfinite(candidate):
        return "Refused: the candidate's item vectors are not finite. Lower the learning rate and train again."
    if champion is not None and math.isfinite(champion) and 1.0 - candidate < LEAST_SPREAD * (1.0 - champion):
        return (
            f"Refused: the candidate's vectors have collapsed. Random items have a mean cosine of {candidate:.3f}, "
            f"against {champion:.3f} with the champion. Train with in-batch negatives or fewer epochs."
        )
    return None


def _refusal(groups: tuple[GroupComparison, ...], settings: GateSettings, chance: Chance) -> str | None:
    by_name = {group.group: group for group in groups}
    for group in groups:
        if group.not_finite:
            return f"Refused: {group.not_finite} of {group.queries} {group.group} queries have no finite metric."
    unseen = by_name.get("unseen")
    if unseen is None or unseen.queries < settings.minimum_queries:
        return (
            f"Refused: {unseen.queries if unseen else 0} queries that training never saw, at least "
            f"{settings.minimum_queries} are needed to tell. Collect more sessions, or give judgments."
        )
    deciding = _deciding(groups, settings)
    failed = []
    for group in deciding:
        comparison = group.metric(settings.metric)
        if comparison is None:
            return f"Refused: {METRIC_TITLES[settings.metric]} was not measured on {group.group} queries."
        beside_seen = group is unseen and len(deciding) > 1 and settings.maximum_loss > 0
        shortfall = _shortfall(comparison.gain, settings, partial(chance, group.group), beside_seen=beside_seen)
        if shortfall is not None:
            failed.append(
                f"{METRIC_TITLES[settings.metric]} on {group.group} queries changed by "
                f"{_interval(comparison.gain)}, {shortfall}"
            )
    return f"Refused: {' and '.join(failed)}." if failed else None


def _shortfall(
    gain: Estimate, settings: GateSettings, chance: Callable[[float], float], *, beside_seen: bool
) -> str | None:
    """Return what a gain lacks; None where it is enough."""
    if beside_seen and not gain.mean > settings.minimum_gain:
        return f"where the mean must exceed {settings.minimum_gain:+.3f}"
    least = -settings.maximum_loss if beside_seen else settings.minimum_gain
    if not gain.low > least:
        return f"where the lower end must exceed {least:+.3f}"
    allowed = (1 - settings.confidence) / 2
    if least <= -1:  # no metric can lose as much
        return None
    if not (found := chance(least)) < allowed:
        return (
            f"where chance alone exceeds {least:+.3f} by as much in {found:.1%} of cases (randomisation test; below "
            f"{allowed:.1%} is asked for)"
        )
    return None


def _success(groups: tuple[GroupComparison, ...], settings: GateSettings) -> str:
    gains = [
        f"{_interval(comparison.gain)} on {group.group} queries"
        for group in _deciding(groups, settings)
        if (comparison := group.metric(settings.metric)) is not None
    ]
    return f"Passed: {METRIC_TITLES[settings.metric]} gained {' and '.join(gains)}."


def _deciding(groups: tuple[GroupComparison, ...], settings: GateSettings) -> list[GroupComparison]:
    return [group for group in groups if group.queries >= settings.minimum_queries]


def _interval(gain: Estimate) -> str:
    return f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
