"""Position bias: the truth of replayed logs is recovered."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

import numpy as np
import pytest

from estudio_core.clickstream.position_bias import (
    Impressions,
    click_rates,
    coec,
    effective_sample_size,
    em_propensities,
    harvested_propensities,
)
from estudio_core.clickstream.replay import ClickModel, replay_clicks
from estudio_core.errors import DataError

QUERIES, OBJECTS = 30, 10


@cache
def replayed(eta: float, shuffled_share: float, sessions: int = 10_000) -> Impressions:
    """A log over rankings that know something: better objects stand higher, with noise."""
    rng = np.random.default_rng(8)
    grades = {
        f"q{q}": {f"o{o}": float(grade) for o, grade in enumerate(rng.integers(0, 4, OBJECTS))} for q in range(QUERIES)
    }
    rankings = {
        query: sorted(((o, g + rng.normal(0, 1.0)) for o, g in of_query.items()), key=lambda pair: -pair[1])
        for query, of_query in grades.items()
    }
    log = replay_clicks(
        grades,
        rankings,
        sessions=sessions,
        application="test",
        end=datetime(2026, 1, 1, tzinfo=UTC),
        click_model=ClickModel(eta=eta),
        shuffled_share=shuffled_share,
        seed=1,
    )
    return Impressions.of(log.training_inputs())


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 2.0])
def test_em_recovers_the_examination_curve(eta: float) -> None:
    log = replayed(eta, shuffled_share=0.3)
    truth = ClickModel(eta=eta).examination(range(OBJECTS))
    naive = click_rates(log.positions, log.clicks)
    estimate = em_propensities(log.positions, log.clicks, log.pairs)
    assert np.abs(estimate - truth).max() < 0.06
    if eta < 2.0:  # the raw click rate mixes in that good results stand high
        assert np.abs(naive / naive[0] - truth).max() > 2 * np.abs(estimate - truth).max()


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 2.0])
def test_intervention_harvesting_recovers_the_examination_curve(eta: float) -> None:
    log = replayed(eta, shuffled_share=0.3)
    estimate = harvested_propensities(log.positions, log.clicks, log.pairs)
    assert estimate[0] == 1.0
    assert np.abs(estimate - ClickModel(eta=eta).examination(range(OBJECTS))).max() < 0.06


@pytest.mark.parametrize("estimator", [em_propensities, harvested_propensities])
def test_one_fixed_ranking_cannot_tell_position_from_attraction(estimator: object) -> None:
    log = replayed(1.0, shuffled_share=0.0, sessions=500)
    assert callable(estimator)
    with pytest.raises(DataError, match="needed to tell position and attraction apart"):
        estimator(log.positions, log.clicks, log.pairs)


@pytest.mark.parametrize("estimator", [em_propensities, harvested_propensities])
def test_a_handful_of_other_rankings_tells_nothing_yet(estimator: object) -> None:
    fixed = replayed(1.0, shuffled_share=0.0, sessions=500)
    first = fixed.sessions < 3
    positions = np.where(first, OBJECTS - 1 - fixed.positions, fixed.positions)
    assert callable(estimator)
    with pytest.raises(DataError, match="and 20 are needed"):
        estimator(positions, fixed.clicks, fixed.pairs)


def test_a_topmost_position_that_nobody_clicks_says_nothing_of_the_others() -> None:
    log = replayed(1.0, shuffled_share=0.3)
    clicks = np.where(log.positions == 0, 0.0, log.clicks)  # a place that is blocked
    estimate = em_propensities(log.positions, clicks, log.pairs)
    truth = ClickModel(eta=1.0).examination(range(OBJECTS))
    np.testing.assert_allclose(estimate[1:], truth[1:] / truth[1], atol=0.12)
    with pytest.raises(DataError, match="nothing can be compared with the topmost"):
        harvested_propensities(log.positions, clicks, log.pairs)


def test_positions_that_no_comparison_reaches_are_not_a_number() -> None:
    # pair 0 was seen at 0 and 1, pair 1 at 2 and 3: nothing joins the two groups
    positions = np.array([0, 1, 2, 3] * 40)
    pairs = np.array([0, 0, 1, 1] * 40)
    clicks = np.array([1, 1, 1, 1] * 20 + [1, 0, 1, 0] * 20)
    estimate = harvested_propensities(positions, clicks, pairs)
    np.testing.assert_allclose(estimate[:2], [1.0, 0.5])
    assert np.isnan(estimate[2:]).all()


def test_coec_of_objects_shown_everywhere_follows_their_attraction() -> None:
    log = replayed(1.0, shuffled_share=1.0)
    ratios = coec(log.positions, log.clicks, log.pairs)
    rates = np.bincount(log.pairs, weights=log.clicks) / np.bincount(log.pairs)
    assert np.corrcoef(ratios, rates)[0, 1] > 0.98


def test_coec_of_nothing_is_nothing() -> None:
    nothing = np.empty(0, dtype=np.int64)
    assert coec(nothing, [], nothing).size == 0


def test_effective_sample_size_of_nothing_is_zero() -> None:
    assert effective_sample_size([]) == 0.0
    assert effective_sample_size([0.0, 0.0]) == 0.0
