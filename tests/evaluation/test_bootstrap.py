"""Bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from estudio_core.errors import DataError
from estudio_core.evaluation.bootstrap import bootstrap_mean, paired_gain

SKEWED = np.concatenate([np.zeros(50), np.random.default_rng(0).exponential(0.3, 30)])


@pytest.mark.parametrize(("ours", "scipys"), [("bca", "BCa"), ("percentile", "percentile")])
def test_intervals_equal_scipys_up_to_resampling(ours: str, scipys: str) -> None:
    reference = stats.bootstrap((SKEWED,), np.mean, method=scipys, n_resamples=20_000, rng=1).confidence_interval
    interval = bootstrap_mean(SKEWED, method=ours, resamples=20_000, seed=2)  # type: ignore[arg-type]  # parametrised
    assert (interval.low, interval.high) == pytest.approx((reference.low, reference.high), abs=0.003)
    assert interval.mean == pytest.approx(SKEWED.mean())
    assert interval.n == 80


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
