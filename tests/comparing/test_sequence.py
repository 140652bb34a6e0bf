"""Confidence sequences by betting: they hold at all moments at once, and are about as narrow as a fixed test's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from estudio_core.comparing.sequence import STAKES, Counts, band, highest, log_capitals, times_needed


def test_the_capital_is_what_bettors_of_each_stake_have_on_average() -> None:
    values = [0.5, -1.0, 1.0, 0.25, 0.5]
    for mean in (-0.4, 0.0, 0.3):
        more = np.mean([math.prod(1 + g * (x - mean) / (1 + mean) for x in values) for g in STAKES])
        less = np.mean([math.prod(1 - g * (x - mean) / (1 - mean) for x in values) for g in STAKES])
        counts = Counts.of(values)
        assert counts.capital(mean, more=True) == pytest.approx(math.log(more))
        assert counts.capital(mean, more=False) == pytest.approx(math.log(less))
        for side in (True, False):
            course = log_capitals(np.array(values), mean, more=side)
            assert course[-1] == pytest.approx(counts.capital(mean, more=side))
            assert course[1] == pytest.approx(Counts.of(values[:2]).capital(mean, more=side))


def test_a_band_ends_where_a_bettor_has_what_the_level_asks_for() -> None:
    counts = Counts.of(np.random.default_rng(1).choice([-1, 0.2, 1], 400, p=[0.3, 0.2, 0.5]))
    low, high = band(counts, 0.9)
    assert low < counts.mean < high
    assert counts.capital(low, more=True) == pytest.approx(math.log(20), abs=0.05)
    assert counts.capital(high, more=False) == pytest.approx(math.log(20), abs=0.05)
    assert counts.capital(highest(counts, 0.9), more=False) == pytest.approx(math.log(10), abs=0.05)
    assert band(counts, 0.99)[0] < low


def test_nothing_is_known_of_nothing_and_little_of_little() -> None:
    assert band(Counts.of([]), 0.95) == (-1.0, 1.0)
    low, high = band(Counts.of([1.0] * 3), 0.95)
    assert (low < 0, high) == (True, 1.0)
    assert band(Counts.of([1.0] * 200), 0.95)[0] > 0.9
    assert times_needed(Counts.of([]), 0.95) is None


def test_who_looks_after_each_value_is_misled_in_at_most_as_many_cases_as_the_level_says() -> None:
    """600 fair sequences of 2,000 values, looked at after each one."""
    rng = np.random.default_rng(2)
    misled = 0
    for sequence in rng.choice([-1.0, -0.3, 0.0, 0.3, 1.0], (600, 2000), p=[0.1, 0.3, 0.2, 0.3, 0.1]):
        both = [log_capitals(sequence, 0.0, more=more).max() for more in (True, False)]
        misled += max(both) >= math.log(2 / 0.05)
    assert misled <= 30


def test_an_effect_is_found_with_little_more_than_a_test_of_fixed_size_needs() -> None:
    """A mean of 0.1 in coins: 785 are asked for by a test of 5 % and a power of 80 %; here 80 % need about 1,500."""
    rng = np.random.default_rng(3)
    needed = []
    for sequence in rng.choice([-1.0, 1.0], (300, 4000), p=[0.45, 0.55]):
        told = np.flatnonzero(log_capitals(sequence, 0.0, more=True) >= math.log(40))
        needed.append(told[0] + 1 if len(told) else 4000)
    assert 600 < np.median(needed) < 1100
    assert np.quantile(needed, 0.8) < 1900


def test_how_many_more_are_needed_is_what_decides_if_they_are_alike() -> None:
    counts = Counts.of([1.0] * 60 + [-1.0] * 40)
    times = times_needed(counts, 0.95)
    assert times is not None
    assert times > 1
    enough = Counts(counts.values, counts.times * times)
    assert band(enough, 0.95)[0] == pytest.approx(0, abs=0.005)
    assert times_needed(Counts.of([1.0] * 90 + [-1.0] * 10), 0.95) == 1.0
