"""Bootstrap intervals."""

from __future__ import annotations

from statistics import NormalDist
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from estudio_core.errors import DataError
from estudio_core.evaluation.bootstrap import MOST_LEFT_OUT, bootstrap_mean, paired_gain

Values = NDArray[np.float64]

SKEWED = np.concatenate([np.zeros(50), np.random.default_rng(0).exponential(0.3, 30)])


def by_hand(values: Values, resamples: int, seed: int, tails: list[float], corrected: bool) -> Values:
    """Return quantiles of means of resampled `values`, with Efron's BCa formula written out."""
    draws = np.random.default_rng(seed).integers(0, values.size, (resamples, values.size))
    means = values[draws].mean(axis=1)
    if corrected:
        normal, deviations = NormalDist(), values - values.mean()
        bias = normal.inv_cdf((np.mean(means < values.mean()) + np.mean(means <= values.mean())) / 2)
        acceleration = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
        moved = [bias + normal.inv_cdf(tail) for tail in tails]
        tails = [normal.cdf(bias + z / (1 - acceleration * z)) for z in moved]
    return np.quantile(means, tails)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_intervals_are_those_of_the_formula(method: Literal["bca", "percentile"]) -> None:
    for seed in (0, 2):
        interval = bootstrap_mean(SKEWED, method=method, confidence=0.9, resamples=2_000, seed=seed)
        expected = by_hand(SKEWED, 2_000, seed, [0.05, 0.95], method == "bca")
        assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-9)
        assert interval.mean == pytest.approx(SKEWED.mean())
        assert interval.n == 80


def test_of_many_values_the_correction_is_a_formula_and_the_same() -> None:
    many = np.tile(SKEWED, MOST_LEFT_OUT // SKEWED.size + 1)
    interval = bootstrap_mean(many, resamples=2_000)
    assert (interval.low, interval.high) == pytest.approx(by_hand(many, 2_000, 0, [0.025, 0.975], True), abs=1e-9)
    plain = bootstrap_mean(many, resamples=2_000, method="percentile")
    assert (plain.low, plain.high) == pytest.approx(by_hand(many, 2_000, 0, [0.025, 0.975], False), abs=1e-9)
    assert plain != interval


def test_values_that_differ_by_rounding_are_one_value() -> None:
    interval = bootstrap_mean([0.1 + 0.2, 0.3] * 20)
    assert (interval.low, interval.high) == pytest.approx((0.3, 0.3))


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for trial in range(200):
        interval = bootstrap_mean(rng.normal(0.1, 1.0, 40), confidence=0.9, resamples=500, seed=trial)
        covered += interval.low <= 0.1 <= interval.high
    assert 0.82 <= covered / 200 <= 0.96


def test_the_same_seed_gives_the_same_interval() -> None:
    assert bootstrap_mean(SKEWED, seed=3) == bootstrap_mean(SKEWED, seed=3)
    assert bootstrap_mean(SKEWED, seed=3) != bootstrap_mean(SKEWED, seed=4)


def test_a_paired_gain_is_tighter_than_two_means() -> None:
    before = np.random.default_rng(1).random(60)
    gain = paired_gain(before, before + 0.01 + 0.001 * np.arange(60))
    assert gain.low > 0.01
    assert gain.high - gain.low < bootstrap_mean(before).high - bootstrap_mean(before).low


def test_values_that_give_no_interval_are_refused() -> None:
    with pytest.raises(DataError, match="at least one value"):
        bootstrap_mean([])
    with pytest.raises(DataError, match="1 of 2 values"):
        bootstrap_mean([0.1, float("nan")])
    with pytest.raises(DataError, match="same queries"):
        paired_gain([0.1], [0.1, 0.2])


def test_many_queries_fit_in_memory_and_extreme_samples_stay_finite() -> None:
    large = bootstrap_mean(np.linspace(0, 1, 50_000), resamples=300)
    assert large.low < 0.5 < large.high
    lone = bootstrap_mean([0.0] * 30 + [1.0])
    assert np.isfinite([lone.low, lone.high]).all()
