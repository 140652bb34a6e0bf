"""Drift is told from noise: small samples and long tails trigger nothing, real changes do."""

from __future__ import annotations

import numpy as np
import pytest

from estudio_core.clickstream.position_bias import Impressions
from estudio_core.errors import DataError
from estudio_core.monitoring.drift import click_change, new_query_share, query_shift, rates_by_position

RNG = np.random.default_rng(3)
TAIL = RNG.zipf(1.3, 20_000) % 100_000
"""Queries of a long tail: most are asked once."""


def test_a_long_tail_is_no_drift_and_queries_of_another_kind_are() -> None:
    same = new_query_share(TAIL[:4000], TAIL[4000:4300])
    assert same.value > 0.1  # a sixth of the sessions asks what was never asked, without any drift
    assert same.excess < 0.02
    other = TAIL[4000:4300].copy()
    other[:150] += 100_000
    assert new_query_share(TAIL[:4000], other).excess > 0.2


def test_chance_alone_seldom_goes_beyond_the_noise_floor() -> None:
    beyond = 0
    for trial in range(60):
        drawn = np.random.default_rng(trial).permutation(TAIL)[:1100]
        beyond += new_query_share(drawn[:1000], drawn[1000:], confidence=0.95, seed=trial).excess > 0
    assert beyond <= 8  # 3 expected; more than 8 has a chance of one in four hundred


def test_few_sessions_have_a_high_noise_floor() -> None:
    vectors = RNG.normal(size=(500, 16))
    few = query_shift(np.arange(400), np.arange(400, 410), vectors)
    many = query_shift(np.arange(250), np.arange(250, 500), vectors)
    assert few.noise > 2 * many.noise
    assert few.excess < 0.1
    assert many.excess < 0.1


def test_the_shift_is_about_the_share_of_sessions_that_ask_for_something_else() -> None:
    vectors = np.concatenate([RNG.normal(size=(300, 64)), RNG.normal(size=(300, 64)) + 1.0])
    # The other topic lies one root-mean-square distance away: sqrt(64) * 1 against sqrt(64).
    moved = np.concatenate([np.arange(150), np.arange(300, 450)])
    found = query_shift(np.arange(300), moved, vectors)
    assert found.value == pytest.approx(0.5, abs=0.1)
    assert found.noise < 0.2


def clicked(sessions: int, rates: list[float], seed: int) -> Impressions:
    rng = np.random.default_rng(seed)
    positions = np.tile(np.arange(len(rates)), sessions)
    clicks = (rng.random(len(positions)) < np.tile(rates, sessions)).astype(float)
    return Impressions(positions, clicks, positions, np.repeat(np.arange(sessions), len(rates)))


RATES = [0.4, 0.2, 0.1, 0.05]


def test_clicks_are_compared_position_by_position_with_an_interval() -> None:
    before = clicked(2000, RATES, 1)
    unchanged = click_change(before, clicked(400, RATES, 2))
    assert unchanged.low < 1 < unchanged.high
    shorter = click_change(before, clicked(400, RATES[:1], 3))  # another list length changes nothing
    assert shorter.low < 1 < shorter.high
    halved = click_change(before, clicked(400, [rate / 2 for rate in RATES], 4))
    assert halved.mean == pytest.approx(0.5, abs=0.1)
    assert halved.high < 0.8
    few = click_change(before, clicked(10, [rate / 2 for rate in RATES], 5))
    assert few.high > 0.8
    assert click_change(before, clicked(400, RATES, 2)) == unchanged


def test_nothing_to_compare_with_is_said() -> None:
    with pytest.raises(DataError, match="Two sides"):
        new_query_share(np.array([], dtype=np.int64), np.array([1]))
    with pytest.raises(DataError, match="has clicks"):
        click_change(clicked(5, [0.0], 1), clicked(5, [0.5], 1))


def test_positions_that_were_not_shown_have_no_impressions() -> None:
    counts, rates = rates_by_position(clicked(10, [1.0, 0.0], 1))
    assert counts == [10, 10, *[0] * 8]
    assert rates == [1.0, *[0.0] * 9]
