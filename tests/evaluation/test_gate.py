"""When a candidate replaces the champion."""

from __future__ import annotations

import numpy as np
import pytest

from estudio_core.errors import DataError
from estudio_core.evaluation.bootstrap import Estimate
from estudio_core.evaluation.click_verdict import ClickVerdict
from estudio_core.evaluation.comparison import compare_group
from estudio_core.evaluation.evaluate import ANSWERED_WELL, METRICS, OF_RATINGS, QueryMetrics
from estudio_core.evaluation.gate import GateDecision, decide
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
    assert decision.reason.startswith("Passed: nDCG@10 full gained +0.100 [+0.100, +0.100] on seen queries and +0.0")
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


def rated(full: np.ndarray, judged: np.ndarray, well: np.ndarray | None = None) -> QueryMetrics:
    """Figures of ratings, and which queries were answered well."""
    values = metrics(full).values | {"judged_ndcg@10": judged}
    return QueryMetrics(metrics(full).queries, values | ({} if well is None else {ANSWERED_WELL: well}))


@pytest.mark.parametrize("group", ["seen", "unseen"])
def test_a_gain_in_the_full_figure_is_not_bought_by_a_certain_loss_in_the_judged_one(group: str) -> None:
    judged = {"seen": SEEN + 0.4, "unseen": UNSEEN + 0.4}
    champion = {name: rated(CHAMPION[name].values["ndcg@10"], judged[name]) for name in judged}

    def promoted(loss: float) -> GateDecision:
        lost = {name: values - loss * (name == group) for name, values in judged.items()}
        candidate = {name: rated(CHAMPION[name].values["ndcg@10"] + 0.1, lost[name]) for name in judged}
        return decide(champion, candidate, SETTINGS)  # type: ignore[arg-type]  # keys are literals

    assert promoted(0.02).promoted
    refused = promoted(0.04)
    assert refused.reason == (
        f"Refused: nDCG@10 judged on {group} queries changed by -0.040 [-0.040, -0.040], where a mean loss of more "
        "than 0.030 is certain."
    )
    assert refused.groups[0].metric("ndcg@10").gain.mean == pytest.approx(0.1)  # type: ignore[union-attr]  # measured


def test_a_gain_in_another_metric_is_not_bought_by_a_certain_loss_in_the_full_figure() -> None:
    settings = SETTINGS.model_copy(update={"metric": "recall@10"})
    champion, candidate = rated(UNSEEN, UNSEEN), rated(UNSEEN - 0.1, UNSEEN)
    candidate = QueryMetrics(candidate.queries, {**candidate.values, "recall@10": UNSEEN + 0.1})
    refused = decide({"unseen": champion}, {"unseen": candidate}, settings)
    assert "Refused: nDCG@10 full on unseen queries changed by -0.100" in refused.reason
    clicks = [side.without(OF_RATINGS) for side in (champion, candidate)]
    assert decide({"unseen": clicks[0]}, {"unseen": clicks[1]}, settings).promoted, "clicks grade no loss"


def test_a_loss_in_the_judged_figure_that_may_be_chance_refuses_nothing() -> None:
    for lost, promoted in ((5, True), (6, False)):
        judged = np.where(np.arange(12) < lost, 0.5, 0.9)
        champion, candidate = rated(UNSEEN[:12], np.full(12, 0.9)), rated(UNSEEN[:12] + 0.1, judged)
        settings = SETTINGS.model_copy(update={"maximum_loss": 0.0})
        decision = decide({"unseen": champion}, {"unseen": candidate}, settings)
        assert decision.groups[0].metric("judged_ndcg@10").gain.high < 0  # type: ignore[union-attr]  # measured
        assert decision.promoted is promoted


def taxed(loss: float, well: int, settings: GateSettings = SETTINGS) -> GateDecision:
    """Of 40 queries those answered well lose, and the others gain, so that all gain 0.1 in the mean."""
    answered = np.arange(40) < well
    gains = np.where(answered, -loss, (4.0 + loss * well) / (40 - well))
    champion = rated(UNSEEN, UNSEEN, answered.astype(float))
    candidate = rated(UNSEEN + gains, UNSEEN, np.ones(40))  # how well the candidate answers is not asked
    return decide({"unseen": champion}, {"unseen": candidate}, settings)


def test_queries_that_were_answered_well_must_not_lose_more_than_the_tax() -> None:
    few = SETTINGS.model_copy(update={"maximum_tax": 0.02})
    paid = taxed(0.015, well=12, settings=few)
    assert paid.promoted
    assert [(c.metric, c.gain.n) for c in paid.groups[0].tax] == [("ndcg@10", 12), ("judged_ndcg@10", 12)]
    assert paid.groups[0].tax[0].gain.mean == pytest.approx(-0.015)
    assert paid.groups[0].tax[1].gain.mean == 0
    refused = taxed(0.025, well=12, settings=few)
    assert refused.reason == (
        "Refused: nDCG@10 full of 12 unseen queries answered well before changed by -0.025 [-0.025, -0.025], where a "
        "mean loss of more than 0.020 is certain."
    )
    assert refused.groups[0].metrics[0].gain.mean == pytest.approx(0.1)
    assert taxed(0.025, well=9, settings=few).promoted, "nine are too few to tell"


def test_without_ratings_no_tax_is_told() -> None:
    assert decided(0.1, 0.05).groups[0].tax == ()
    assert taxed(0.1, well=0).groups[0].tax == ()


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


def said(verdict: str) -> ClickVerdict:
    gain = Estimate(mean=0.02, low=0.01, high=0.03, n=50)
    return ClickVerdict(
        verdict=verdict,  # type: ignore[arg-type]
        reason="Because.",
        least=gain,
        most=gain,
        attention="given",
        attention_after_click=1.0,
        sessions=500,
        clicked_queries=50,
        unshown=0.0,
        modelled=0.1,
        sessions_needed=900,
    )


@pytest.mark.parametrize(
    ("verdict", "promoted", "title"),
    [
        ("better", True, "Passed the gate"),
        ("not better", False, "Refused by the gate"),
        ("cannot tell", False, "Clicks alone cannot tell"),
    ],
)
def test_without_ratings_the_verdict_of_clicks_decides_whatever_click_shares_say_of_the_catalog(
    verdict: str, promoted: bool, title: str
) -> None:
    loses = {"unseen": metrics(UNSEEN - 0.1 if promoted else UNSEEN + 0.1)}
    decision = decide({"unseen": CHAMPION["unseen"]}, loses, SETTINGS, clicks=said(verdict), rated=False)
    assert (decision.promoted, decision.title) == (promoted, title)
    assert decision.undecided is (verdict == "cannot tell")
    assert decision.reason.endswith("by clicks alone: Because.")


def test_a_collapsed_candidate_cannot_pass_by_clicks() -> None:
    decision = decide(
        {"unseen": CHAMPION["unseen"]},
        {"unseen": CHAMPION["unseen"]},
        SETTINGS,
        clicks=said("better"),
        rated=False,
        champion_similarity=0.1,
        candidate_similarity=0.95,
    )
    assert not decision.promoted
    assert "collapsed" in decision.reason


@pytest.mark.parametrize(
    ("verdict", "gain", "disagree"),
    [("better", 0.1, False), ("not better", 0.1, True), ("better", -0.1, True), ("cannot tell", -0.1, False)],
)
def test_beside_ratings_clicks_are_shown_and_a_disagreement_is_said(verdict: str, gain: float, disagree: bool) -> None:
    candidate = {"seen": metrics(SEEN + gain), "unseen": metrics(UNSEEN + gain)}
    decision = decide(CHAMPION, candidate, SETTINGS, clicks=said(verdict))  # type: ignore[arg-type]
    assert decision.promoted is (gain > 0)
    assert ("Clicks disagree" in decision.reason) is disagree
    assert f"{verdict}. Because." in decision.reason
    assert not decision.undecided


@pytest.mark.parametrize(
    ("verdict", "gain", "promoted"),
    [("better", -0.1, True), ("not better", 0.1, False), ("cannot tell", 0.1, False), (None, 0.1, False)],
)
def test_where_clicks_are_to_decide_ratings_are_told_and_change_nothing(
    verdict: str | None, gain: float, promoted: bool
) -> None:
    candidate = {"seen": metrics(SEEN + gain), "unseen": metrics(UNSEEN + gain)}
    settings = SETTINGS.model_copy(update={"decided_by": "clicks"})
    decision = decide(CHAMPION, candidate, settings, clicks=None if verdict is None else said(verdict))  # type: ignore[arg-type]
    assert decision.promoted is promoted
    assert decision.undecided is (verdict in ("cannot tell", None))
    assert "by clicks alone" in decision.reason
    told = decision.groups[1].metric("ndcg@10")
    assert told is not None
    assert told.gain.mean == pytest.approx(gain)
