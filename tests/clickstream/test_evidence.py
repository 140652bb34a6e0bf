"""Clicks and skips are weighed by what position-biased attention makes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.position_bias.weights import Log, weighed
from estudio_core.clickstream.evidence import (
    CLICK_WEIGHT_CLIP,
    DEV_WEIGHT_CLIP,
    Pooling,
    weigh_clicks,
    weigh_dev_clicks,
    weigh_evidence,
)
from estudio_core.clickstream.examination_curve import EVEN, ByPosition, PowerLaw
from estudio_core.clickstream.position_bias import effective_sample_size
from estudio_core.clickstream.ranking_data import FineTuningInput


def session(clicked: list[int], shown: int = 20) -> FineTuningInput:
    return FineTuningInput(
        session_id="s",
        query="lamp",
        results=tuple(str(i) for i in range(shown)),
        positions=tuple(range(shown)),
        ranks=(None,) * shown,
        click_weights=tuple(1.0 if i in clicked else 0.0 for i in range(shown)),
    )


def test_a_click_far_down_counts_for_more_up_to_the_clip() -> None:
    weights = weigh_evidence([session([0, 2, 19])], PowerLaw.given(1.0), "session").click_weights["s"]
    assert weights[0] == 1.0
    assert weights[2] == pytest.approx(3.0)
    assert weights[19] == CLICK_WEIGHT_CLIP


def test_a_posterior_that_divides_by_examination_is_not_divided_again() -> None:
    # 200 queries with two sessions each; one look of ten at an irrelevant result is a click.
    rng = np.random.default_rng(7)
    sessions, wrong = [], {}
    for number in range(400):
        relevant = np.random.default_rng(number // 2).random(20) < 0.3 * (np.arange(20) + 1.0) ** -0.5
        chances = np.where(relevant, 0.8, 0.1) / (np.arange(20) + 1.0)
        clicks = tuple((rng.random(20) < chances).astype(float).tolist())
        results = tuple(f"{number // 2}-{i}" for i in range(20))
        wrong[str(number)] = ~relevant
        of = (str(number), str(number // 2), results, tuple(range(20)), (None,) * 20, clicks)
        sessions.append(FineTuningInput(*of))
    evidence = weigh_evidence(sessions, PowerLaw.given(1.0))

    def share_of_noise(weights: dict[str, tuple[float, ...]]) -> float:
        of_clicks = [
            (weight, bad)
            for s in sessions
            for weight, bad, click in zip(weights[s.session_id], wrong[s.session_id], s.click_weights, strict=True)
            if click
        ]
        return sum(weight for weight, bad in of_clicks if bad) / sum(weight for weight, _ in of_clicks)

    twice = weigh_clicks(sessions, PowerLaw.given(1.0))
    products = {key: tuple(np.multiply(evidence.confidences[key], twice[key]).tolist()) for key in twice}
    once = {key: tuple(np.multiply(evidence.confidences[key], evidence.click_weights[key]).tolist()) for key in twice}
    assert share_of_noise(once) < 0.8 * share_of_noise(products)


def test_in_a_session_a_skip_below_the_last_click_is_weak_evidence_and_above_it_strong() -> None:
    confidences = np.array(weigh_evidence([session([3])], PowerLaw.given(1.0), "session").confidences["s"])
    assert (confidences[:3] == 1.0).all()
    assert (np.diff(confidences[4:]) <= 0).all()
    assert confidences[19] < 0.2


def test_without_correction_all_positions_of_a_session_count_alike() -> None:
    evidence = weigh_evidence([session([0, 10])], PowerLaw.given(0.0), "session")
    assert set(evidence.click_weights["s"]) == {1.0}
    assert set(evidence.confidences["s"]) == {1.0}
    assert evidence.effective_sample_size == 2.0


def test_sessions_of_a_query_tell_together_what_a_click_and_a_skip_are_worth() -> None:
    sessions = [replace(session([0] if n else [0, 1]), session_id=str(n)) for n in range(20)]
    confidences = weigh_evidence(sessions, PowerLaw.given(1.0)).confidences
    always, once = confidences["0"][:2]
    assert always > 0.9
    assert once < 0.3  # one click of ten expected looks
    skips = np.array(confidences["5"][1:])
    assert (np.diff(skips[1:]) < 0).all()  # the lower, the less looked at
    assert skips[1] > 2 * skips[-1] > 0


def test_a_result_that_was_skipped_once_is_hardly_a_negative() -> None:
    [confidences] = weigh_evidence([session([0])], PowerLaw.given(1.0)).confidences.values()
    assert confidences[19] < 0.1 < confidences[1]


def test_the_effective_sample_size_falls_with_unequal_weights() -> None:
    alike, unlike = (
        weigh_evidence([session(clicks)], PowerLaw.given(1.0), "session").effective_sample_size
        for clicks in ([0, 1], [0, 19])
    )
    assert 1.0 < unlike < alike < 2.0
    assert weigh_evidence([session([])], PowerLaw.given(1.0)).effective_sample_size == 0.0


def log(eta: float = 1.0, count: int = 300, shown: int = 12) -> list[FineTuningInput]:
    """Sessions of three queries whose clicks follow a power law; every result of a query is as attractive."""
    rng = np.random.default_rng(3)
    made = []
    for number in range(count):
        order = tuple(f"{number % 3}-{i}" for i in rng.permutation(shown))
        clicks = tuple((rng.random(shown) < 0.6 * (np.arange(shown) + 1.0) ** -eta).astype(float).tolist())
        made.append(FineTuningInput(str(number), str(number % 3), order, tuple(range(shown)), (None,) * shown, clicks))
    return made


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("pooling", ["query", "session"])
def test_the_defaults_weigh_by_the_power_law(exponent: float, pooling: Pooling) -> None:
    sessions = log()
    evidence = weigh_evidence(sessions, PowerLaw.given(exponent), pooling)
    assert evidence == weigh_evidence(sessions, PowerLaw.given(exponent), pooling, "ipw")
    positions = np.array(sessions[0].positions)
    for of_session in sessions:
        weights = np.ones(12) if pooling == "query" else np.minimum((positions + 1.0) ** exponent, 5.0)
        assert evidence.click_weights[of_session.session_id] == tuple(weights.tolist())
    if pooling == "session":
        assert evidence.confidences == by_session(sessions, exponent)
    clicked = [
        (w, c)
        for s in sessions
        for w, c, k in zip(
            evidence.click_weights[s.session_id], evidence.confidences[s.session_id], s.click_weights, strict=True
        )
        if k
    ]
    assert evidence.effective_sample_size == effective_sample_size([w * c for w, c in clicked])


def test_all_sessions_of_a_query_and_item_have_one_weight() -> None:
    found: dict[tuple[str, str, bool], set[float]] = {}
    sessions = log()
    confidences = weigh_evidence(sessions, PowerLaw.given(1.0)).confidences
    for of in sessions:
        for result, weight, click in zip(of.results, confidences[of.session_id], of.click_weights, strict=True):
            found.setdefault((of.query, result, click > 0), set()).add(weight)
    assert all(len(weights) == 1 for weights in found.values())


@pytest.mark.parametrize("model", ["PBM 0", "PBM 1", "PBM 2", "cascade", "DBN"])
@pytest.mark.parametrize("click_share", [1.0, 0.1])
def test_irrelevant_results_get_less_of_the_weight_than_of_the_clicks(model: str, click_share: float) -> None:
    found = weighed(Log(model, 0.2, 2, click_share, sessions=1_200), seeds=1)
    assert found.weighted < found.raw
    of_grade = [weight for weight in found.by_grade if np.isfinite(weight)]
    assert of_grade[-1] > of_grade[0]


def test_what_nobody_ranked_by_relevance_is_no_negative() -> None:
    sessions = log(count=60)
    sorted_by_price = replace(sessions[0], session_id="by price", by_relevance=False)
    confidences = weigh_evidence([*sessions, sorted_by_price], PowerLaw.given(1.0)).confidences
    for weight, click in zip(confidences["by price"], sorted_by_price.click_weights, strict=True):
        assert (weight > 0) == (click > 0)
    assert any(weight for weight, click in zip(confidences["0"], sessions[0].click_weights, strict=True) if not click)


def test_a_machine_tells_nothing_of_attraction() -> None:
    people = [replace(s, client_id=f"person {n // 3}") for n, s in enumerate(log(count=200))]
    machine = [
        replace(s, session_id=f"machine {n}", client_id="machine", click_weights=(1.0,) * 12)
        for n, s in enumerate(log(count=300))
    ]
    alone = weigh_evidence(people, PowerLaw.given(1.0)).confidences
    beside = weigh_evidence([*people, *machine], PowerLaw.given(1.0)).confidences
    assert all(beside[key] == values for key, values in alone.items())


def test_clicks_are_weighed_by_attention_a_standard_error_less_steep() -> None:
    sessions = log(count=60)
    unsure = PowerLaw(1.5, 0.5, "fixed rankings", (0.5, 2.0))
    assert weigh_evidence(sessions, unsure) == weigh_evidence(sessions, PowerLaw.given(1.0))
    assumed = PowerLaw(1.0, float("inf"), "assumed", (1.0, 1.0))
    assert weigh_evidence(sessions, assumed) == weigh_evidence(sessions, PowerLaw.given(1.0))


def test_weights_that_models_are_compared_by_have_a_bound() -> None:
    weights = weigh_dev_clicks([session([0])], PowerLaw.given(3.0))["s"]
    assert weights[1] == 8.0
    assert max(weights) == DEV_WEIGHT_CLIP


def by_session(sessions: list[FineTuningInput], eta: float) -> dict[str, tuple[float, ...]]:
    confidences = {}
    for s in sessions:
        place, clicked = np.array(s.positions), np.array(s.click_weights) > 0
        last = place[clicked].max(initial=-1)
        below = np.maximum((np.maximum(place - last - 1, 0) + 1.0 + (last >= 0)) ** -eta, 0.1)
        found = np.where(clicked, 1.0 - 0.5 * (place + 1.0) ** -eta, np.where(place < last, 1.0, below))
        confidences[s.session_id] = tuple((found if eta else np.ones(len(place))).tolist())
    return confidences


def test_given_chances_weigh_inversely_and_positions_beyond_take_the_last() -> None:
    examination = ByPosition((1.0, 0.5, 0.25), "given")
    weights = weigh_clicks([session([0])], examination)["s"]
    assert weights == (1.0, 2.0, *[4.0] * 18)
    power = ByPosition(tuple((1 / (np.arange(12) + 1.0)).tolist()), "given")
    for pooling in ("query", "session"):
        same = [weigh_evidence(log(), curve, pooling) for curve in (power, PowerLaw.given(1.0))]
        np.testing.assert_allclose(list(same[0].confidences.values()), list(same[1].confidences.values()))
        np.testing.assert_allclose(list(same[0].click_weights.values()), list(same[1].click_weights.values()))


def test_inverse_examination_spreads_clicks_evenly_over_positions() -> None:
    sessions = log(eta=0.6, count=3_000)
    weights = weigh_clicks(sessions, PowerLaw.given(0.6))
    raw = np.array([s.click_weights for s in sessions])
    weighed = (raw * np.array([weights[s.session_id] for s in sessions])).sum(axis=0)
    assert raw.sum(axis=0).max() / raw.sum(axis=0).min() > 3
    assert weighed.max() / weighed.min() < 1.3


def test_clicks_over_expected_clicks_tell_attraction_whatever_the_position() -> None:
    liked, disliked = [], []
    for number, clicked in enumerate([0, 0, 0, 1] * 5):  # "a" is clicked at either place more often than others there
        order = ("a", "b") if number % 2 else ("b", "a")
        clicks = tuple(float(result == "a" or clicked) for result in order)
        liked.append(FineTuningInput(str(number), "q", order, (0, 1), (None, None), clicks))
    weights = weigh_clicks(liked, PowerLaw.given(1.0), "coec")
    of_a = {weights[s.session_id][s.results.index("a")] for s in liked}
    of_b = {weights[s.session_id][s.results.index("b")] for s in liked if all(s.click_weights)}
    assert len(of_a) == len(of_b) == 1
    assert of_a.pop() > 1 > of_b.pop()
    clicked_weights = [w for s in liked for w, c in zip(weights[s.session_id], s.click_weights, strict=True) if c]
    assert np.mean(clicked_weights) == pytest.approx(1.0)
    disliked = [replace(s, click_weights=(0.0, 0.0)) for s in liked]
    assert set(weigh_clicks(disliked, EVEN, "coec").values()) == {(1.0, 1.0)}


def test_without_correction_all_is_as_if_every_position_were_looked_at() -> None:
    for pooling in ("query", "session"):
        none = weigh_evidence(log(), PowerLaw.given(2.0), pooling, "none")
        assert none == weigh_evidence(log(), EVEN, pooling)
        assert {w for weights in none.click_weights.values() for w in weights} == {1.0}
