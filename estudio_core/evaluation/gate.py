"""The gate: whether a candidate may replace the champion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from estudio_core.evaluation.bootstrap import Estimate
from estudio_core.evaluation.click_verdict import ClickVerdict
from estudio_core.evaluation.comparison import FIGURES, Group, GroupComparison, answered_well, compare_group
from estudio_core.evaluation.evaluate import JUDGED, METRIC_TITLES, QueryMetrics
from estudio_core.evaluation.gate_settings import GateSettings
from estudio_core.evaluation.sign_flip import chance_of_gain

LEAST_SPREAD = 0.5
"""Share of the champion's spread (1 - mean cosine of random item pairs) that a candidate must keep.

Relative, because models differ: unrelated texts have a cosine near 0.1 with MiniLM and near 0.75 with E5. A guard
against collapse, far from what healthy training does.
"""


class GateDecision(BaseModel):
    """What was decided, in one sentence, and the figures behind it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    promoted: bool
    reason: str
    settings: GateSettings
    groups: tuple[GroupComparison, ...]
    champion_similarity: float | None = None
    candidate_similarity: float | None = None
    clicks: ClickVerdict | None = None
    """What held-out clicks say; None where there are none."""
    undecided: bool = False
    """Whether nobody but clicks could decide, and they cannot tell."""

    @property
    def title(self) -> str:
        """What was decided, in a few words."""
        if self.undecided:
            return "Clicks alone cannot tell"
        return "Passed the gate" if self.promoted else "Refused by the gate"


def decide(
    champion: Mapping[Group, QueryMetrics],
    candidate: Mapping[Group, QueryMetrics],
    settings: GateSettings,
    *,
    champion_similarity: float | None = None,
    candidate_similarity: float | None = None,
    clicks: ClickVerdict | None = None,
    rated: bool = True,
    seed: int = 0,
) -> GateDecision:
    """Promote a candidate whose gain is certain enough on queries it saw and on queries it never saw.

    Where no people's ratings judge, or clicks are to decide (`decided_by`), the verdict of clicks does, whatever the
    groups say: clicks as grades of the whole catalog side with the champion. Where both are there, ratings decide
    otherwise, and the reason says what clicks say.

    Where both groups have enough queries, the gain on `seen` has to be certain (above `minimum_gain`), and `unseen`
    has to gain in the mean with a loss of more than `maximum_loss` ruled out. Where `unseen` decides alone, its gain
    has to be certain. Without enough unseen queries nothing is promoted: a model can get better for what it was trained
    on and worse for everything else. `known` items are as `seen` is beside `unseen`, and as `unseen`
    where they are alone.

    People's ratings give two figures, and no gain in one is bought by a loss in the other: in either group neither may
    lose more than `maximum_loss` for certain. Nor may the queries that were answered well lose more than `maximum_tax`.

    Certain, and ruled out, is what the bootstrap interval says and the paired randomisation test confirms at the same
    level: of few queries, most of them tied, the interval alone is too narrow.

    Args:
        champion: Metrics per query of the live model, by group.
        candidate: Metrics of the new one, on the same queries.
        settings: Metric, least gain, largest losses, level, fewest queries.
        champion_similarity: Mean cosine of random item pairs (`mean_random_similarity`) with the champion.
        candidate_similarity: The same with the candidate.
        clicks: What held-out clicks say of the candidate.
        rated: Whether people's ratings judge.
        seed: Of bootstrap and randomisation test.
    """
    order: tuple[Group, ...] = ("seen", "known", "unseen")
    groups = tuple(
        compare_group(group, champion[group], candidate[group], settings.confidence, seed)
        for group in order
        if group in champion and group in candidate
    )
    sides = {group.group: _Sides(champion[group.group], candidate[group.group], seed) for group in groups}
    collapsed = _collapsed(champion_similarity, candidate_similarity)
    by_ratings = rated and settings.decided_by == "ratings"
    verdict = "cannot tell" if clicks is None else clicks.verdict
    if by_ratings or (clicks is None and not rated):
        refusal = collapsed or _refusal(groups, settings, sides)
        promoted = refusal is None
        reason = (refusal or _success(groups, settings)) + _agreement(promoted, clicks)
    else:
        promoted = collapsed is None and verdict == "better"
        why = "No held-out query was clicked." if clicks is None else clicks.reason
        reason = collapsed or f"{_OF_CLICKS[verdict]} by clicks alone: {why}"
    return GateDecision(
        promoted=promoted,
        reason=reason,
        settings=settings,
        groups=groups,
        champion_similarity=champion_similarity,
        candidate_similarity=candidate_similarity,
        clicks=clicks,
        undecided=not by_ratings and collapsed is None and (rated or clicks is not None) and verdict == "cannot tell",
    )


_OF_CLICKS = {"better": "Passed", "not better": "Refused", "cannot tell": "Not to be told"}


def _agreement(promoted: bool, clicks: ClickVerdict | None) -> str:
    """Return what clicks say beside ratings, and whether they disagree."""
    if clicks is None:
        return ""
    disagree = clicks.verdict != "cannot tell" and promoted is not (clicks.verdict == "better")
    beside = "Clicks disagree" if disagree else "Clicks"
    return f" {beside}: {clicks.verdict}. {clicks.reason}"


@dataclass(frozen=True)
class _Sides:
    """What both models gave for each query of a group, for the randomisation test: its p-values."""

    champion: QueryMetrics
    candidate: QueryMetrics
    seed: int

    def gained(self, metric: str, above: float) -> float:
        before, after = self.champion.values[metric], self.candidate.values[metric]
        return chance_of_gain(before, after, above=above, seed=self.seed)

    def lost(self, metric: str, above: float, *, answered: bool = False) -> float:
        """Of all queries, or of those that were `answered` well."""
        before, after = self.champion.values[metric], self.candidate.values[metric]
        if answered:
            well = answered_well(self.champion)
            before, after = before[well], after[well]
        return chance_of_gain(after, before, above=above, seed=self.seed)


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


def _refusal(groups: tuple[GroupComparison, ...], settings: GateSettings, sides: Mapping[Group, _Sides]) -> str | None:
    by_name = {group.group: group for group in groups}
    for group in groups:
        if group.not_finite:
            return f"Refused: {group.not_finite} of {group.queries} {group.group} queries have no finite metric."
    unseen = by_name.get("unseen") or by_name.get("known")
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
        shortfall = _shortfall(comparison.gain, settings, sides[group.group], beside_seen=beside_seen)
        if shortfall is not None:
            failed.append(
                f"{METRIC_TITLES[settings.metric]} on {group.group} queries changed by "
                f"{_interval(comparison.gain)}, {shortfall}"
            )
        failed += _losses(group, settings, sides[group.group], known=settings.metric if shortfall else None)
    return f"Refused: {' and '.join(failed)}." if failed else None


def _shortfall(gain: Estimate, settings: GateSettings, sides: _Sides, *, beside_seen: bool) -> str | None:
    """Return what a gain lacks; None where it is enough."""
    if beside_seen and not gain.mean > settings.minimum_gain:
        return f"where the mean must exceed {settings.minimum_gain:+.3f}"
    least = -settings.maximum_loss if beside_seen else settings.minimum_gain
    if not gain.low > least:
        return f"where the lower end must exceed {least:+.3f}"
    allowed = _allowed(settings)
    if least <= -1:  # no metric can lose as much
        return None
    if not (found := sides.gained(settings.metric, least)) < allowed:
        return (
            f"where chance alone exceeds {least:+.3f} by as much in {found:.1%} of cases (randomisation test; below "
            f"{allowed:.1%} is asked for)"
        )
    return None


def _losses(group: GroupComparison, settings: GateSettings, sides: _Sides, *, known: str | None) -> list[str]:
    """Return which figures lose too much for certain, but for the one whose shortfall is `known`.

    Where people's ratings judge: what clicks do not grade is no loss.
    """
    if group.metric(JUDGED) is None:
        return []
    bounded = [
        (comparison, f"on {group.group} queries", settings.maximum_loss, False)
        for comparison in group.metrics
        if comparison.metric in FIGURES and comparison.metric != known
    ]
    bounded += [
        (comparison, f"of {comparison.gain.n} {group.group} queries answered well before", settings.maximum_tax, True)
        for comparison in group.tax
        if comparison.gain.n >= settings.minimum_queries
    ]
    return [
        f"{METRIC_TITLES[comparison.metric]} {where} changed by {_interval(comparison.gain)}, where a mean loss of "
        f"more than {most:.3f} is certain"
        for comparison, where, most, answered in bounded
        if comparison.gain.high < -most and sides.lost(comparison.metric, most, answered=answered) < _allowed(settings)
    ]


def _allowed(settings: GateSettings) -> float:
    """Return the p-value below which the randomisation test confirms."""
    return (1 - settings.confidence) / 2


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
