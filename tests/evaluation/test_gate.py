"""When a candidate replaces the champion."""

from __future__ import annotations

import numpy as np
import pytest

from estudio_core.errors import DataError
from estudio_core.evaluation.evaluate import METRICS, QueryMetrics
from estudio_core.evaluation.gate import GateDecision, compare_group, decide
from estudio_core.evaluation.gate_settings import GateSettings

RNG = np.random.default_rng(2)
SETTINGS = GateSettings(minimum_queries=10)


def metrics(values: np.ndarray) -> QueryMetrics:
    return QueryMetrics(tuple(f"q{n}" for n in range(len(values))), dict.fromkeys(METRICS, values))


SEEN = RNG.random(76) * 0.5
UNSEEN = RNG.random(40) * 0.5
NOISE = RNG.normal(0, 0.01, 40)
CHAMPION = {"seen": metrics(SEEN), "unseen": metrics(UNSEEN)}


def decided(
    seen_gain: float, unseen_gain: float, settings: GateSettings = SETTINGS, **similarity: float
) -> GateDecision:
    candidate = {"seen": metrics(SEEN + seen_gain), "unseen": metrics(UNSEEN + unseen_gain + NOISE)}
    return decide(CHAMPION, candidate, settings, **similarity)  # type: ignore[arg-type]  # keys are literals


def test_a_gain_on_both_groups_is_promoted() -> None:
    decision = decided(0.1, 0.05)
    assert decision.promoted
    assert decision.reason.startswith("Passed: nDCG@10 gained +0.100 [+0.100, +0.100] on seen queries and +0.0")
    assert [g.group for g in decision.groups] == ["seen", "unseen"]


@pytest.mark.parametrize(
    ("seen", "unseen", "named"), [(0.1, -0.1, "unseen"), (-0.1, 0.1, "seen"), (0.1, -0.01, "unseen"), (0, 0.1, "seen")]
)
def test_a_loss_on_one_group_or_no_certain_gain_on_seen_queries_is_refused(
    seen: float, unseen: float, named: str
) -> None:
    decision = decided(seen, unseen)
    assert not decision.promoted
    assert f"on {named} queries" in decision.reason


@pytest.mark.parametrize(("maximum_loss", "promoted"), [(0.2, True), (0.01, False), (0.0, False)])
def test_an_uncertain_gain_on_unseen_queries_passes_where_a_loss_that_matters_is_ruled_out(
    maximum_loss: float, promoted: bool
) -> None:
    spread = np.random.default_rng(5).normal(0, 0.2, 40)
    unseen = metrics(UNSEEN + spread - spread.mean() + 0.02)  # a gain of 0.02, with a standard error of 0.03
    decision = decide(
        CHAMPION,  # type: ignore[arg-type]  # keys are literals
        {"seen": metrics(SEEN + 0.1), "unseen": unseen},
        SETTINGS.model_copy(update={"maximum_loss": maximum_loss}),
    )
    assert decision.promoted is promoted
    assert promoted or "where the lower end must exceed" in decision.reason


def test_a_gain_that_may_be_chance_is_refused() -> None:
    spread = RNG.normal(0, 0.2, 40)
    candidate = metrics(UNSEEN + spread - spread.mean() + 0.02)  # a gain of 0.02, with a standard error of 0.03
    decision = decide({"unseen": CHAMPION["unseen"]}, {"unseen": candidate}, SETTINGS)
    assert decision.groups[0].metrics[0].gain.mean == pytest.approx(0.02)
    assert not decision.promoted


@pytest.mark.parametrize(("changed", "promoted"), [(5, False), (6, True)])
def test_a_gain_of_so_few_queries_that_chance_gives_it_is_refused_whatever_the_interval(
    changed: int, promoted: bool
) -> None:
    gains = np.where(np.arange(12) < changed, 0.2, 0.0)
    decision = decide({"unseen": metrics(UNSEEN[:12])}, {"unseen": metrics(UNSEEN[:12] + gains)}, SETTINGS)
    assert decision.groups[0].metrics[0].gain.low > 0
    assert decision.promoted is promoted
    assert promoted or "+0.000 by as much in 3.1% of cases (randomisation test; below 2.5%" in decision.reason


def test_the_least_gain_counts() -> None:
    assert not decided(0.1, 0.05, SETTINGS.model_copy(update={"minimum_gain": 0.08})).promoted
    assert decided(0.1, 0.1, SETTINGS.model_copy(update={"minimum_gain": 0.08})).promoted


def test_the_chosen_metric_decides() -> None:
    candidate = QueryMetrics(
        CHAMPION["unseen"].queries, {"ndcg@10": UNSEEN + 0.1, "mrr@10": UNSEEN - 0.1, "recall@10": UNSEEN}
    )
    verdicts = {
        metric: decide({"unseen": CHAMPION["unseen"]}, {"unseen": candidate}, GateSettings(metric=metric)).promoted
        for metric in ("ndcg@10", "mrr@10", "recall@10")
    }
    assert verdicts == {"ndcg@10": True, "mrr@10": False, "recall@10": False}


def test_held_out_queries_alone_can_decide() -> None:
    assert decide({"unseen": CHAMPION["unseen"]}, {"unseen": metrics(UNSEEN + 0.1)}, SETTINGS).promoted


def test_too_few_unseen_queries_are_refused_and_too_few_seen_ones_decide_nothing() -> None:
    few = metrics(UNSEEN[:9])
    gained = metrics(UNSEEN[:9] + 0.2)
    refused = decide(
        {"seen": CHAMPION["seen"], "unseen": few}, {"seen": metrics(SEEN + 0.2), "unseen": gained}, SETTINGS
    )
    assert not refused.promoted
    assert "9 queries that training never saw" in refused.reason
    assert not decide({"seen": CHAMPION["seen"]}, {"seen": metrics(SEEN + 0.2)}, SETTINGS).promoted
    lost = metrics(UNSEEN[:9] - 0.2)
    assert decide(
        {"seen": few, "unseen": CHAMPION["unseen"]}, {"seen": lost, "unseen": metrics(UNSEEN + 0.1)}, SETTINGS
    ).promoted


def test_a_collapsed_model_is_refused_whatever_it_gained() -> None:
    decision = decided(0.1, 0.1, champion_similarity=0.1, candidate_similarity=0.8)
    assert not decision.promoted
    assert "collapsed" in decision.reason
    assert decided(0.1, 0.1, champion_similarity=0.75, candidate_similarity=0.8).promoted
    assert "not finite" in decided(0.1, 0.1, champion_similarity=0.1, candidate_similarity=float("nan")).reason


def test_metrics_that_are_not_finite_are_refused_and_counted() -> None:
    broken = UNSEEN + 0.2
    broken[3] = np.nan
    decision = decide({"unseen": CHAMPION["unseen"]}, {"unseen": metrics(broken)}, SETTINGS)
    assert decision.reason == "Refused: 1 of 40 unseen queries have no finite metric."
    nothing = decide({"unseen": CHAMPION["unseen"]}, {"unseen": metrics(np.full(40, np.nan))}, SETTINGS)
    assert nothing.reason == "Refused: 40 of 40 unseen queries have no finite metric."


def test_different_queries_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="same list"):
        compare_group("unseen", metrics(UNSEEN), metrics(UNSEEN[:30]))


def test_a_decision_survives_json() -> None:
    decision = decided(0.1, 0.05, champion_similarity=0.1, candidate_similarity=0.1)
    assert GateDecision.model_validate_json(decision.model_dump_json()) == decision
