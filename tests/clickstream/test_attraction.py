"""Attraction is told from the clicks of all sessions of a query, whatever the position."""

from __future__ import annotations

import numpy as np
import pytest

from estudio_core.clickstream.attraction import posterior_attraction
from estudio_core.clickstream.examination_curve import EVEN, PowerLaw
from estudio_core.clickstream.position_bias import Impressions
from estudio_core.clickstream.ranking_data import FineTuningInput


def log(truth: np.ndarray, exponent: float, sessions: int) -> Impressions:
    rng = np.random.default_rng(4)
    examined = (np.arange(len(truth)) + 1.0) ** -exponent
    results = tuple(str(i) for i in range(len(truth)))
    return Impressions.of(
        FineTuningInput(
            str(n),
            "q",
            results,
            tuple(range(len(truth))),
            (None,) * len(truth),
            tuple((rng.random(len(truth)) < examined * truth).astype(float).tolist()),
        )
        for n in range(sessions)
    )


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_the_truth_is_recovered_from_many_sessions(exponent: float) -> None:
    truth = np.array([0.1, 0.9, 0.5, 0.1, 0.9, 0.3])
    found = posterior_attraction(log(truth, exponent, 3_000), PowerLaw.given(exponent))
    assert np.abs(found.of_pair - truth).max() < 0.06
    assert found.average == pytest.approx(truth.mean(), abs=0.15)


def test_what_was_hardly_looked_at_stays_near_the_average() -> None:
    found = posterior_attraction(log(np.full(50, 0.4), 1.0, 2), PowerLaw.given(1.0))
    assert found.of_pair[49] == pytest.approx(found.average, abs=0.05)


@pytest.mark.parametrize("average", [0.02, 0.05, 0.2])
def test_one_look_moves_the_estimate_as_the_beta_distribution_says(average: float) -> None:
    # Each of 2,000 results was looked at once: Beta(2 m, 2 (1 - m)) becomes Beta(2 m + click, 2 (1 - m) + skip).
    count = 2_000
    clicks = (np.arange(count) % round(1 / average) == 0).astype(float)
    found = posterior_attraction(
        Impressions(np.zeros(count, dtype=np.int64), clicks, np.arange(count), np.arange(count)), EVEN
    )
    assert found.of_pair[clicks == 0] == pytest.approx(2 * average / 3, rel=0.01)
    assert found.of_pair[clicks == 1] == pytest.approx((2 * average + 1) / 3, rel=0.01)
    assert found.lowered[clicks == 0] == pytest.approx(1 / 3, rel=0.02)
    assert not found.lowered[clicks == 1].any()


def test_the_log_says_how_firmly_to_believe_before() -> None:
    rng = np.random.default_rng(0)
    count, looks = 3_000, 5
    pairs = np.tile(np.arange(count), looks)
    alike = (rng.random(count * looks) < 0.1).astype(float)
    unlike = (rng.random(count * looks) < rng.beta(0.2, 1.8, count)[pairs]).astype(float)
    firm, open_minded = (
        posterior_attraction(Impressions(np.zeros_like(pairs), clicks, pairs, np.arange(len(pairs))), EVEN)
        for clicks in (alike, unlike)
    )
    assert firm.strength == 64
    assert open_minded.strength == 2
    once = np.bincount(pairs, weights=unlike) == 1
    assert open_minded.of_pair[once].mean() == pytest.approx(1.2 / 7, rel=0.05)


def test_queries_share_what_scores_tell() -> None:
    rng = np.random.default_rng(1)
    queries, shown = 300, 10
    scores = rng.normal(size=(queries, shown))
    clicks = (rng.random((queries, shown)) < 1 / (1 + np.exp(3 - 2 * scores))).astype(float)
    pairs = np.arange(queries * shown)
    log = Impressions(
        np.zeros_like(pairs), clicks.ravel(), pairs, pairs, np.repeat(np.arange(queries), shown), scores.ravel()
    )
    expected = posterior_attraction(log, EVEN).expected.reshape(queries, shown)
    high = np.argsort(scores, axis=1)[:, -3:]
    assert np.take_along_axis(expected, high, 1).mean() > 2 * expected.mean()
    assert set(posterior_attraction(log, EVEN, shared=False).expected.tolist()) == {clicks.mean()}


def test_below_a_click_after_which_users_leave_nothing_is_skipped() -> None:
    leaves = PowerLaw(0.0, 0.1, "given", (0.0, 0.0), after_clicks=(0.0,))
    sessions = [
        FineTuningInput(str(n), "q", ("a", "b", "c"), (0, 1, 2), (None,) * 3, (0.0, 1.0, 0.0)) for n in range(20)
    ]
    found = posterior_attraction(Impressions.of(sessions), leaves)
    assert found.lowered[0] > 0.8
    assert found.lowered[2] == pytest.approx(0.0, abs=0.01)


def test_no_sessions_tell_nothing() -> None:
    assert len(posterior_attraction(Impressions.of([]), PowerLaw.given(1.0)).of_pair) == 0
