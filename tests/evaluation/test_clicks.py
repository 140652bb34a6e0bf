"""What held-out clicks say of a candidate: against simulated clicks whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.gate.simulation import Clicks, World, candidates, click_log, noise_for, noisy, ranked_pairs
from estudio_core.clickstream.click_attention import Attention, standardised
from estudio_core.clickstream.click_log import Cells, ClickLog
from estudio_core.clickstream.ranking_data import FineTuningInput
from estudio_core.errors import DataError
from estudio_core.evaluation.click_gain import ClickGain, RankedPairs
from estudio_core.evaluation.click_ranking import rank_pairs
from estudio_core.evaluation.click_verdict import ClickVerdict, judge_clicks, sessions_for_decision
from estudio_core.evaluation.gate_settings import GateSettings


def simulated(model: str, noise: float = 0.2, sessions: int = 5_000, seed: int = 0) -> tuple[World, ClickGain]:
    rng = np.random.default_rng(seed)
    world = World.drawn(rng)
    log = click_log(world, rng, sessions, Clicks(model, noise))
    return world, ClickGain(log, np.take_along_axis(world.champion, world.shown, 1).ravel())


def judged(world: World, estimator: ClickGain, scores: np.ndarray, **settings: float) -> ClickVerdict:
    champion = ranked_pairs(world, world.champion)
    return judge_clicks(estimator, champion, ranked_pairs(world, scores), GateSettings(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(("model", "exponent"), [("PBM 0", 0.0), ("PBM 1", 1.0), ("PBM 2", 2.0)])
def test_attention_is_told_apart_from_the_order_although_each_query_shows_one_list(model: str, exponent: float) -> None:
    attention = simulated(model)[1].attention
    assert attention.exponent == pytest.approx(exponent, abs=3 * attention.standard_error)
    assert attention.standard_error < 0.12
    assert attention.highest > exponent + 0.25  # with the champion's knowledge taken for attention


def test_attention_that_is_no_power_of_the_position_is_taken_for_as_even_as_its_evenest_part() -> None:
    fold = simulated("fold")[1].attention  # four results at a glance, of the others one in four
    assert fold.exponent > 0.3
    assert fold.evenest < 0.1
    power = simulated("PBM 1")[1].attention
    assert (power.evenest, power.lowest) == (power.exponent, power.exponent - 0.05)


@pytest.mark.parametrize(("model", "left"), [("PBM 1", 1.0), ("cascade", 0.0)])
def test_attention_below_a_click_is_what_the_click_model_leaves(model: str, left: float) -> None:
    assert simulated(model)[1].cells.attention_after_click == pytest.approx(left, abs=0.1)


@pytest.mark.parametrize("model", ["PBM 1", "cascade", "DBN"])
def test_the_same_order_gains_nothing_and_the_reverse_is_never_better(model: str) -> None:
    world, estimator = simulated(model)
    champion = ranked_pairs(world, world.champion)
    gain = estimator.at(champion, champion, estimator.attention.exponent)
    assert (gain.low, gain.high, gain.standard_error) == (0, 0, 0)
    names = candidates(0.95)
    for name in ("reversed", "worse by 0.05, correlated", "collapsed", "filler"):
        scores = names[name](world, np.random.default_rng(1))
        assert judged(world, estimator, scores).verdict != "better", name


def test_a_better_candidate_is_told_and_its_gain_is_about_the_true_one() -> None:
    world, estimator = simulated("PBM 1", noise=0.0)
    scores = noisy(world, np.random.default_rng(1), noise_for(0.05, 0.95), 0.95)
    true = float((world.ndcg(np.argsort(-scores, axis=1)[:, :10]) - world.ndcg(world.shown)).mean())
    verdict = judged(world, estimator, scores)
    assert verdict.verdict == "better"
    assert verdict.least.low < true < verdict.most.high
    assert verdict.least.mean == pytest.approx(true, abs=0.025)
    assert "at the least" in verdict.reason


def test_a_champion_that_did_not_serve_the_log_is_heard_like_the_candidate() -> None:
    gains = []
    for seed in range(4):
        world, estimator = simulated("cascade", seed=seed)
        rng = np.random.default_rng(seed)
        champion, candidate = (noisy(world, rng, noise_for(0.05, 0.95), 0.95) for _ in range(2))
        sides = ranked_pairs(world, champion), ranked_pairs(world, candidate)
        assert judge_clicks(estimator, *sides, GateSettings()).verdict == "cannot tell"
        gains.append(estimator.at(*sides, estimator.attention.lowest).low)
    assert np.mean(gains) < 0.01  # +0.018 where the candidate's scores alone explain clicks


def test_the_perfect_order_is_never_refused() -> None:
    world, estimator = simulated("PBM 1")
    names, rng = candidates(0.95), np.random.default_rng(1)
    assert judged(world, estimator, names["perfect on what was shown"](world, rng)).verdict == "better"
    whole = judged(world, estimator, names["perfect"](world, rng))
    assert whole.verdict == "cannot tell"
    assert whole.unshown > 0.2
    assert "were never shown" in whole.reason


def test_a_loss_that_no_attention_explains_is_not_better() -> None:
    world, estimator = simulated("PBM 0", noise=0.0)
    reversed_scores = candidates(0.95)["reversed"](world, np.random.default_rng(1))
    verdict = judged(world, estimator, reversed_scores)
    assert verdict.verdict == "not better"
    assert verdict.most.high < 0


def test_a_small_log_says_how_many_sessions_are_missing() -> None:
    world, estimator = simulated("PBM 1", sessions=500)
    scores = noisy(world, np.random.default_rng(1), noise_for(0.02, 0.95), 0.95)
    verdict = judged(world, estimator, scores)
    assert verdict.verdict == "cannot tell"
    assert verdict.sessions_needed is not None
    assert 500 < verdict.sessions_needed < 3_000  # with 5,000, nine in ten gains of 0.05 are found
    assert f"About {verdict.sessions_needed:,} held-out sessions would do, there are 500." in verdict.reason


def test_few_clicked_queries_tell_nothing_and_the_number_missing_is_said() -> None:
    world, estimator = simulated("PBM 1", sessions=25)
    verdict = judged(world, estimator, world.champion)
    clicked = estimator.log.clicked_queries
    assert verdict.verdict == "cannot tell"
    assert f"{clicked} held-out queries were clicked, {30 - clicked} more are needed." in verdict.reason


def session(number: int, query: str, clicks: str, client: str | None = None, **fields: object) -> FineTuningInput:
    ids = tuple("abcdefghij"[: len(clicks)])
    weights = tuple(float(click) for click in clicks)
    scores = tuple(float(-place) for place in range(len(clicks)))
    return FineTuningInput(
        f"s{number}", query, ids, tuple(range(len(clicks))), scores, weights, user_id=client, **fields
    )  # type: ignore[arg-type]


def test_rewards_are_counted_by_their_importance_and_what_stands_below_a_click_is_told() -> None:
    log = ClickLog.of([session(1, "lamp", "0105"), session(2, "chair", "00")])
    assert log.rewards.tolist() == [0, 1, 0, 5, 0, 0]
    assert log.clicks_above.tolist() == [0, 0, 1, 1, 0, 0]
    assert log.sessions_of_query.tolist() == [1, 1]
    assert log.names[:2] == (("lamp", "a"), ("lamp", "b"))
    cells = Cells.of(log)
    assert cells.clicks.sum() == 2
    assert cells.rewards.sum() == 6


def test_one_client_does_not_count_without_end() -> None:
    crowd = [session(number, "lamp", "01", "bot") for number in range(50)]
    log = ClickLog.of([*crowd, session(99, "lamp", "10", "ana"), session(100, "lamp", "10")])
    assert len(log.clients) == 5  # three of the bot, one each of the others
    many = [session(number, f"query {number}", "01", "bot") for number in range(150)]
    assert len(ClickLog.of(many).clients) == 100


def test_errors_grow_where_the_same_clients_stand_behind_many_queries() -> None:
    world, alone = simulated("PBM 1", sessions=2_000)
    log = alone.log
    # Ten clients, each of whom clicks either on everything or on nothing.
    lavish = np.arange(2_000) % 10 < 5
    rewards = np.where(lavish[log.sessions], 1.0, 0.0)
    scores = noisy(world, np.random.default_rng(1), 1.0, 0.95)
    sides = ranked_pairs(world, world.champion), ranked_pairs(world, scores)
    errors = [
        ClickGain(
            ClickLog(log.sessions, log.positions, log.pairs, rewards, log.queries, log.scores, clients),
            log.scores,
            1.0,
        )
        .at(*sides, 1.0)
        .standard_error
        for clients in (np.full(2_000, -1), np.arange(2_000) % 10)
    ]
    assert errors[1] > 1.2 * errors[0]


def test_a_log_out_of_order_is_refused() -> None:
    some = np.array([0, 0])
    with pytest.raises(DataError, match="from the top down"):
        ClickLog(some, np.array([1, 0]), some, np.zeros(2), np.zeros(1, dtype=np.int64), np.zeros(1), np.zeros(1))  # type: ignore[arg-type]


def test_pairs_are_ranked_in_the_whole_catalog() -> None:
    log = ClickLog.of([session(1, "lamp", "010"), session(2, "chair", "01")])
    rows = {name: row for row, name in enumerate("abcxyz")}
    table = np.array([[0.1, 0.2, 0.3, 0.9, 0.0, 0.8], [9.0, 1.0, 2.0, 3.0, 4.0, 5.0]], dtype=np.float32)
    # The order of the queries is that of the scores, not that of the log.
    found = rank_pairs(log, ["chair", "lamp"], lambda asked: table[asked][:, ::-1], rows)
    discount = 1 / np.log2(np.arange(2, 8))
    chair = [table[0][::-1][rows[name]] for name in "ab"]
    lamp = [table[1][::-1][rows[name]] for name in "abc"]
    assert found.scores.tolist() == pytest.approx([*lamp, *chair])
    places = {value: place for place, value in enumerate(sorted(table[1].tolist(), reverse=True))}
    assert found.discounts[:3].tolist() == pytest.approx([discount[places[value]] for value in lamp])
    assert found.unshown[0] == pytest.approx(discount.sum() - found.discounts[:3].sum())
    with pytest.raises(DataError, match="cannot be ranked"):
        rank_pairs(log, ["lamp"], lambda asked: table[asked], rows)


def test_never_shown_counts_against_the_candidate_at_the_least_and_for_it_at_the_most() -> None:
    world, estimator = simulated("PBM 1")
    champion = ranked_pairs(world, world.champion)
    lost = np.full(len(champion.unshown), 0.1)
    same = RankedPairs(champion.discounts, lost, champion.scores)
    plain, unseen = (estimator.at(champion, side, 1.0) for side in (champion, same))
    assert 0 == plain.low < unseen.low < unseen.high


def test_attention_that_is_given_has_no_error_of_its_own() -> None:
    given = Attention.given(0.7, 3)
    assert (given.lowest, given.highest, given.is_known) == (0.7, 0.7, True)
    assert str(given) == "(position + 1)^-0.70, given by the plugin"
    assert standardised(np.array([5.0, 5.0]), np.array([0, 0])).tolist() == [0, 0]


def test_what_a_decision_needs_is_known_before_there_is_a_candidate() -> None:
    world, estimator = simulated("PBM 1", sessions=2_000)
    needed = sessions_for_decision(estimator.log, GateSettings())
    assert needed is not None
    assert 1_000 < needed < 6_000  # a third of gains of 0.05 are found with 500, nine in ten with 5,000
    scores = noisy(world, np.random.default_rng(1), noise_for(0.05, 0.95), 0.95)
    assert judged(world, estimator, scores).sessions_needed == pytest.approx(needed, rel=0.5)
    less = sessions_for_decision(estimator.log, GateSettings(told_gain=0.06))
    assert less == pytest.approx(needed / 4, rel=0.01)
    assert sessions_for_decision(ClickLog.of([session(1, "lamp", "000")]), GateSettings()) is None
