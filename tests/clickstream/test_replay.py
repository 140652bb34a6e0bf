"""Simulated clicks from graded judgments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from estudio_core.clickstream.replay import ClickModel, Replay, replay_clicks
from estudio_core.errors import ConfigurationError, DataError

END = datetime(2026, 3, 31, tzinfo=UTC)
JUDGMENTS = {
    "cable": {"c0": 3.0, "c3": 1.0},
    "mouse": {"m1": 2.0},
    "screen": {"s2": 3.0},
}
RANKINGS = {query: [(f"{query[0]}{place}", 1.0 - place / 10) for place in range(5)] for query in JUDGMENTS}


def replay(**changes: object) -> Replay:
    arguments: dict[str, object] = {"sessions": 4000, "application": "shop", "end": END, "seed": 3} | changes
    return replay_clicks(JUDGMENTS, arguments.pop("rankings", RANKINGS), **arguments)  # type: ignore[arg-type]  # varied per test


def test_the_same_seed_gives_the_same_rows_and_another_seed_others() -> None:
    assert replay(sessions=50) == replay(sessions=50)
    assert replay(sessions=50).events != replay(sessions=50, seed=4).events


def test_every_row_says_that_it_is_simulated() -> None:
    simulated = replay(sessions=100, release="r1")
    assert simulated.events
    assert all(q.query_attributes == {"simulated": True, "release": "r1"} for q in simulated.queries)
    assert all(e.event_attributes == {"simulated": True} for e in simulated.events)


def test_click_rates_follow_the_click_model() -> None:
    model = ClickModel(eta=1.0, noise=0.1, max_grade=3)
    simulated = replay(sessions=30_000, click_model=model, zipf_exponent=0.0)
    shown = sum(q.user_query == "cable" for q in simulated.queries)
    clicks = np.zeros(5)
    for event in simulated.events:
        if event.user_query == "cable":
            assert event.position_ordinal is not None
            clicks[event.position_ordinal - 1] += 1
    expected = model.examination(range(5)) * model.attraction([3, 0, 0, 1, 0])
    # five standard errors of a share of about 10,000 sessions
    np.testing.assert_allclose(clicks / shown, expected, atol=5 * np.sqrt(0.25 / shown))


def test_frequency_of_queries_is_zipf_like() -> None:
    counts = np.unique([q.user_query for q in replay(zipf_exponent=2.0).queries], return_counts=True)[1]
    np.testing.assert_allclose(np.sort(counts)[::-1] / 4000, np.array([36, 9, 4]) / 49, atol=0.04)


def test_searches_fill_the_period_in_time_order_and_clicks_follow_their_search() -> None:
    simulated = replay(days=10.0)
    times = [q.timestamp for q in simulated.queries]
    assert times == sorted(times)
    assert END - timedelta(days=10) <= times[0] < END - timedelta(days=9)
    assert END - timedelta(days=1) < times[-1] <= END
    asked = {q.query_id: q.timestamp for q in simulated.queries}
    assert all(e.timestamp > asked[e.query_id] for e in simulated.events)


def test_a_clicked_object_stood_at_the_logged_position() -> None:
    simulated = replay(shuffled_share=0.5)
    hits = {q.query_id: q.query_response_hit_ids for q in simulated.queries}
    for event in simulated.events:
        assert event.position_ordinal is not None
        assert hits[event.query_id][event.position_ordinal - 1] == event.object_id


def test_shuffled_share_says_how_many_searches_are_in_random_order() -> None:
    assert all(q.query_response_scores == (1.0, 0.9, 0.8, 0.7, 0.6) for q in replay(sessions=200).queries)
    changed = [
        q.query_response_scores != (1.0, 0.9, 0.8, 0.7, 0.6) for q in replay(sessions=2000, shuffled_share=0.25).queries
    ]
    assert np.mean(changed) == pytest.approx(0.25, abs=0.05)


def test_lists_of_different_length_and_a_function_as_ranking() -> None:
    simulated = replay(rankings=lambda query: RANKINGS[query][: 1 + len(query) % 4], shuffled_share=0.5)
    lengths = {q.user_query: len(q.query_response_hit_ids) for q in simulated.queries}
    assert lengths == {"cable": 2, "mouse": 2, "screen": 3}
    assert {e.position_ordinal for e in simulated.events} <= {1, 2, 3}


def test_results_are_cut_to_what_is_shown() -> None:
    assert all(len(q.query_response_hit_ids) == 2 for q in replay(sessions=10, shown=2).queries)


def test_a_query_without_ranking_is_named() -> None:
    with pytest.raises(DataError, match="'mouse'"):
        replay(rankings={"cable": RANKINGS["cable"], "screen": RANKINGS["screen"]})
    with pytest.raises(DataError, match="0 sessions"):
        replay(sessions=0)


@pytest.mark.parametrize("wrong", [{"eta": -1.0}, {"noise": 1.0}, {"max_grade": 0}])
def test_parameters_that_give_no_probability_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="no click model"):
        ClickModel(**wrong)  # type: ignore[arg-type]  # int or float, by field
