"""Position bias: the truth of replayed logs is recovered."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

import numpy as np
import pytest

from estudio_core.clickstream.position_bias import (
    Impressions,
    click_rates,
    click_weights,
    coec,
    effective_sample_size,
    em_propensities,
    harvested_propensities,
    inverse_propensity_weights,
)
from estudio_core.clickstream.replay import ClickModel, replay_clicks
from estudio_core.errors import ConfigurationError, DataError

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
    with pytest.raises(DataError, match="cannot be told apart"):
        estimator(log.positions, log.clicks, log.pairs)


def test_positions_that_no_comparison_reaches_are_not_a_number() -> None:
    # pair 0 was seen at 0 and 1, pair 1 at 2 and 3: nothing joins the two groups
    positions = np.array([0, 1, 2, 3] * 10)
    pairs = np.array([0, 0, 1, 1] * 10)
    clicks = np.array([1, 1, 1, 1] * 5 + [1, 0, 1, 0] * 5)
    estimate = harvested_propensities(positions, clicks, pairs)
    np.testing.assert_allclose(estimate[:2], [1.0, 0.5])
    assert np.isnan(estimate[2:]).all()


def test_inverse_propensity_weights_remove_the_bias() -> None:
    log = replayed(1.0, shuffled_share=1.0)  # every object at every position: its fair click share is known
    weighted = click_weights(log, "ipw", propensities=ClickModel(eta=1.0).examination(range(OBJECTS)), clip=100.0)
    by_place = np.bincount(log.positions, weights=log.clicks * weighted.weights)
    assert by_place.max() / by_place.min() < 1.2
    raw = np.bincount(log.positions, weights=log.clicks)
    assert raw.max() / raw.min() > 5


def test_clipping_bounds_weights_and_raises_the_effective_sample_size() -> None:
    log = replayed(2.0, shuffled_share=0.5, sessions=3000)
    truth = ClickModel(eta=2.0).examination(range(OBJECTS))
    free = click_weights(log, "ipw", propensities=truth, clip=1000.0)
    clipped = click_weights(log, "ipw", propensities=truth, clip=5.0)
    none = click_weights(log)
    clicked = log.clicks > 0
    ratio = clipped.weights[clicked].max() / clipped.weights[clicked].min()
    assert ratio == pytest.approx(5.0)
    assert free.effective_sample_size < clipped.effective_sample_size < none.effective_sample_size == none.clicks
    for weights in (free, clipped, none):
        assert weights.weights[clicked].mean() == pytest.approx(1.0)
        assert (weights.weights[~clicked] == 1.0).all()


def test_propensities_are_estimated_where_none_are_given() -> None:
    log = replayed(1.0, shuffled_share=0.3, sessions=5000)
    weighted = click_weights(log, "ipw")
    assert weighted.propensities is not None
    assert weighted.propensities[0] == 1.0
    assert weighted.propensities[-1] < 0.3


def test_coec_of_objects_shown_everywhere_follows_their_attraction() -> None:
    log = replayed(1.0, shuffled_share=1.0)
    ratios = coec(log.positions, log.clicks, log.pairs)
    rates = np.bincount(log.pairs, weights=log.clicks) / np.bincount(log.pairs)
    assert np.corrcoef(ratios, rates)[0, 1] > 0.98
    weighted = click_weights(log, "coec")
    assert weighted.weights[log.clicks > 0].mean() == pytest.approx(1.0)
    assert weighted.propensities is None


def test_a_log_without_clicks_gives_plain_weights() -> None:
    log = Impressions(np.arange(3), np.zeros(3), np.arange(3), np.zeros(3, dtype=np.int64))
    for correction in ("none", "coec"):
        weighted = click_weights(log, correction)  # type: ignore[arg-type]  # a literal of the loop
        assert weighted.weights.tolist() == [1.0, 1.0, 1.0]
        assert weighted.effective_sample_size == 0.0


def test_positions_beyond_the_known_take_the_last_propensity() -> None:
    weights = inverse_propensity_weights(np.array([0, 1, 7]), [1, 1, 1], [1.0, 0.5])
    np.testing.assert_allclose(weights, np.array([1, 2, 2]) / (5 / 3))


def test_wrong_settings_are_refused() -> None:
    log = Impressions(np.arange(2), np.ones(2), np.arange(2), np.zeros(2, dtype=np.int64))
    with pytest.raises(ConfigurationError, match="Did you mean 'coec'"):
        click_weights(log, "coecs")  # type: ignore[arg-type]  # the fault under test
    for wrong in ([], [0.0, 1.0], [1.2], [float("nan")]):
        with pytest.raises(ConfigurationError, match="Propensities"):
            click_weights(log, "ipw", propensities=wrong)
    with pytest.raises(ConfigurationError, match="clip"):
        click_weights(log, "ipw", propensities=[1.0], clip=0.5)


def test_effective_sample_size_of_nothing_is_zero() -> None:
    assert effective_sample_size([]) == 0.0
    assert effective_sample_size([0.0, 0.0]) == 0.0
