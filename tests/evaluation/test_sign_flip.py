"""The paired randomisation test."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from estudio_core.errors import DataError
from estudio_core.evaluation.sign_flip import chance_of_gain


def test_it_counts_all_signs_of_few_queries() -> None:
    gains = np.random.default_rng(3).normal(0.1, 0.3, 8)
    signs = np.array(list(product((-1, 1), repeat=8)))
    expected = float(((signs * gains).mean(axis=1) >= gains.mean() - 1e-12).mean())
    assert chance_of_gain(np.zeros(8), gains) == pytest.approx(expected)
    assert chance_of_gain(np.zeros(28), np.concatenate([gains, np.zeros(20)])) == pytest.approx(expected)


def test_below_a_level_it_says_so_no_more_often_than_that_level_where_nothing_was_gained() -> None:
    rng = np.random.default_rng(0)
    runs = 600
    tied = rng.random((runs, 15)) < 0.5
    gains = np.where(tied, 0.0, rng.choice([-1, 1], (runs, 15)) * rng.exponential(0.2, (runs, 15)))
    found = np.array([chance_of_gain(np.zeros(15), row) for row in gains])
    assert (found < 0.025).mean() <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / runs)
    assert (found < 0.5).mean() > 0.35


def test_what_has_to_be_exceeded_counts_for_tied_queries_too() -> None:
    before, after = np.full(40, 0.5), np.full(40, 0.52) + np.random.default_rng(1).normal(0, 0.01, 40)
    assert chance_of_gain(before, after) < 0.001
    assert chance_of_gain(before, after, above=0.05) > 0.99
    assert chance_of_gain(before, before, above=-0.03) < 0.001


@pytest.mark.parametrize(("after", "chance"), [([0.5, 0.5], 1.0), ([0.5, 0.4], 1.0), ([0.5, 0.6], 0.5)])
def test_hardly_anything_changed(after: list[float], chance: float) -> None:
    assert chance_of_gain([0.5, 0.5], after) == chance


@pytest.mark.parametrize("after", [[0.5], [0.5, float("nan")]])
def test_lists_that_do_not_pair_are_refused(after: list[float]) -> None:
    with pytest.raises(DataError, match="paired test"):
        chance_of_gain([0.5, 0.5], after)
