"""The exponent of attention is recovered from replayed logs whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from estudio_core.clickstream.examination import (
    ASSUMED_EXPONENT,
    Kind,
    estimate_examination,
    examination_of,
)
from estudio_core.clickstream.examination_curve import EVEN, ByPosition, PowerLaw
from estudio_core.clickstream.ranking_data import FineTuningInput
from estudio_core.clickstream.replay import ClickModel, replay_clicks
from estudio_core.errors import ConfigurationError, DataError

QUERIES, OBJECTS = 60, 20
ETAS = [0.0, 0.5, 1.0, 2.0]


def log(
    eta: float, *, shuffled_share: float = 0.0, sessions: int = 4_000, scores: bool = True
) -> list[FineTuningInput]:
    """Sessions over rankings that know something: better objects stand higher, with noise."""
    rng = np.random.default_rng(8)
    grades = {
        f"q{q}": {f"o{o}": float(grade) for o, grade in enumerate(rng.integers(0, 4, OBJECTS))} for q in range(QUERIES)
    }
    rankings = {
        query: sorted(((o, 0.1 * g + rng.normal(0, 0.15)) for o, g in of_query.items()), key=lambda pair: -pair[1])
        for query, of_query in grades.items()
    }
    replayed = replay_clicks(
        grades,
        rankings,
        sessions=sessions,
        application="test",
        end=datetime(2026, 1, 1, tzinfo=UTC),
        click_model=ClickModel(eta=eta),
        shuffled_share=shuffled_share,
        seed=1,
    )
    inputs = replayed.training_inputs()
    return inputs if scores else [replace(session, ranks=(None,) * OBJECTS) for session in inputs]


@pytest.mark.parametrize("eta", ETAS)
def test_results_at_several_positions_tell_the_exponent(eta: float) -> None:
    estimate = estimate_examination(log(eta, shuffled_share=0.3))
    assert estimate.basis == "several positions"
    assert estimate.exponent == pytest.approx(eta, abs=0.1)
    assert estimate.standard_error < 0.1


@pytest.mark.parametrize("eta", ETAS)
def test_fixed_rankings_bound_the_exponent(eta: float) -> None:
    estimate = estimate_examination(log(eta))
    low, high = estimate.bounds
    assert estimate.basis == "fixed rankings"
    assert low < eta < high
    assert estimate.exponent == pytest.approx(eta, abs=0.25)
    assert "between" in str(estimate)


def test_without_scores_there_is_the_upper_bound_alone() -> None:
    estimate = estimate_examination(log(1.0, scores=False))
    assert estimate.bounds[0] == estimate.bounds[1] == pytest.approx(estimate.exponent)
    assert estimate.exponent > 1.0


@pytest.mark.parametrize("shuffled_share", [0.0, 0.3])
def test_one_clients_ten_thousand_sessions_do_not_move_the_exponent(shuffled_share: float) -> None:
    rng = np.random.default_rng(2)
    honest = [
        replace(session, client_id=f"person {number // 4}")
        for number, session in enumerate(log(1.0, shuffled_share=shuffled_share))
    ]
    everything = [
        replace(s, session_id=f"all {s.session_id}", client_id="bot", click_weights=(1.0,) * OBJECTS) for s in honest
    ]
    anywhere = [
        replace(
            s,
            session_id=f"any {s.session_id}",
            client_id="other bot",
            click_weights=tuple((np.arange(OBJECTS) == rng.integers(OBJECTS)).astype(float).tolist()),
        )
        for s in honest
    ]
    alone = estimate_examination(honest).exponent
    assert alone == pytest.approx(1.0, abs=0.12)
    for bots in (everything, anywhere):
        crowded = estimate_examination(
            [*honest, *(replace(s, session_id=f"{s.session_id} {i}") for i in range(2) for s in bots)]
        )
        assert crowded.exponent == pytest.approx(alone, abs=0.06)


def test_errors_are_those_of_clients_not_of_their_sessions() -> None:
    own = log(1.0, shuffled_share=0.3, sessions=1_500)
    alone = estimate_examination(own)
    # Each client repeats one search: 3 sessions that say the same are not three observations.
    repeated = [
        replace(s, session_id=f"{s.session_id} {i}", client_id=s.session_id) for s in own[:500] for i in range(3)
    ]
    assert estimate_examination(repeated).standard_error > 1.3 * alone.standard_error
    once = estimate_examination(own[:500])
    assert estimate_examination(repeated).standard_error == pytest.approx(once.standard_error, rel=0.25)


@pytest.mark.parametrize("unknown", [None, float("inf")])
def test_a_session_without_scores_hardly_changes_the_exponent(unknown: float | None) -> None:
    sessions = log(1.0, sessions=3_000)
    changed = [*sessions[:-1], replace(sessions[-1], ranks=(unknown,) * OBJECTS)]
    new = replace(sessions[-1], session_id="new", query="asked once", ranks=(unknown,) * OBJECTS)
    expected = estimate_examination(sessions).exponent
    for given in (changed, [*sessions, new]):
        assert estimate_examination(given).exponent == pytest.approx(expected, abs=0.02)


def test_lists_that_are_not_by_relevance_tell_nothing_of_attention() -> None:
    sessions = log(1.0, sessions=2_000)
    upside_down = [
        replace(s, session_id=f"by price {s.session_id}", results=s.results[::-1], by_relevance=False) for s in sessions
    ]
    assert estimate_examination([*sessions, *upside_down]) == estimate_examination(sessions)


def test_users_who_leave_at_a_click_look_at_nothing_below() -> None:
    first_only = []
    for session in log(0.0, sessions=3_000):
        clicks = np.array(session.click_weights)
        first_only.append(replace(session, click_weights=tuple((clicks * (np.cumsum(clicks) == 1)).tolist())))
    estimate = estimate_examination(first_only)
    assert estimate.after_clicks[0] == 0.0
    assert estimate.exponent < 0.3
    assert "0% of it left below a click" in str(estimate)


def test_a_log_that_cannot_tell_gives_the_assumed_exponent() -> None:
    for sessions in ([], log(1.0, sessions=3)):
        estimate = estimate_examination(sessions)
        assert (estimate.basis, estimate.exponent) == ("assumed", ASSUMED_EXPONENT)
        assert "assumed" in str(estimate)


def test_what_is_given_is_not_estimated() -> None:
    assert examination_of(log(1.0, sessions=50), 0.3) == PowerLaw(0.3, 0.0, "given", (0.3, 0.3))
    estimated = examination_of(log(2.0))
    assert isinstance(estimated, PowerLaw)
    assert estimated.exponent > 1.5
    chances = examination_of([], kind=(1.0, 0.4))
    assert chances.at(np.array([0, 1, 9])).tolist() == [1.0, 0.4, 0.4]
    assert str(chances) == "1.00, 0.40 by position, given by the plugin"


@pytest.mark.parametrize("kind", ["em", "harvesting"])
def test_a_curve_by_position_is_estimated_where_results_stood_at_several(kind: Kind) -> None:
    places = np.arange(OBJECTS)
    curve = examination_of(log(1.0, shuffled_share=0.5), kind=kind)
    assert np.abs(curve.at(places) - 1 / (places + 1.0)).max() < 0.1
    assert "estimated" in str(curve)
    with pytest.raises(DataError, match="take 'power_law'"):
        examination_of(log(1.0), kind=kind)


def test_of_a_position_that_was_never_clicked_no_more_is_known_than_that() -> None:
    sessions = [
        replace(session, click_weights=(*session.click_weights[:15], *(0.0,) * 5))
        for session in log(1.0, shuffled_share=0.5)
    ]
    chances = examination_of(sessions, kind="em").at(np.arange(OBJECTS))
    assert chances[14] > 0.01
    assert (chances[15:] == chances[14]).all()


def test_a_position_that_harvesting_cannot_reach_is_looked_at_like_the_last_one_that_it_can() -> None:
    def seen(number: int, places: tuple[int, int], clicks: tuple[float, float]) -> FineTuningInput:
        results = (("a", "b"), ("b", "a"))[number % 2] if places == (0, 1) else (("c", "d"), ("d", "c"))[number % 2]
        return FineTuningInput(f"{places}{number}", "q", results, places, (None, None), clicks)

    first = [seen(n, (0, 1), (1.0, float(n % 4 < 2))) for n in range(40)]
    apart = [seen(n, (2, 3), (1.0, 1.0)) for n in range(40)]  # nothing joins them with the topmost position
    curve = examination_of([*first, *apart], kind="harvesting")
    np.testing.assert_allclose(curve.at(np.arange(5)), [1.0, 0.5, 0.5, 0.5, 0.5])


def test_chances_that_are_none_are_refused() -> None:
    for wrong in ((), (0.0, 1.0), (1.2,), (float("nan"),)):
        with pytest.raises(ConfigurationError, match="above 0 and at most 1"):
            ByPosition(wrong, "given")
    assert EVEN.is_even
    assert ByPosition((1.0, 1.0), "given").is_even
    assert not ByPosition((1.0, 0.9), "given").is_even
