from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from estudio_core.errors import ConfigurationError
from estudio_core.experiments.metrics_accumulator import MetricsAccumulator, MetricValue


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.integers(2, 12))
def test_running_statistics_agree_with_numpy(values: list[float], window: int) -> None:
    accumulator = MetricsAccumulator("m", True, True, True, True, window_size=window)
    for value in values:
        emitted = {one.name: one.value for one in accumulator.accumulate(value)}
    assert list(emitted) == ["m", "mean_m", "sliding_m", "min_m", "max_m"]
    assert emitted["m"] == values[-1]
    assert emitted["mean_m"] == pytest.approx(np.mean(values), abs=1e-6)
    assert emitted["sliding_m"] == pytest.approx(np.mean(values[-window:]), abs=1e-6)
    assert emitted["min_m"] == min(values)
    assert emitted["max_m"] == max(values)


def test_nothing_but_the_value_is_emitted_by_default() -> None:
    assert MetricsAccumulator("test_loss").accumulate(0.5) == [MetricValue("test_loss", 0.5)]


def test_a_value_that_is_not_a_number_spoils_no_statistics() -> None:
    accumulator = MetricsAccumulator("m", calc_mean=True)
    accumulator.accumulate(math.nan)
    accumulator.accumulate(2.0)
    assert accumulator.accumulate(4.0)[1] == MetricValue("mean_m", 3.0)


def test_values_of_other_metrics_are_passed_over() -> None:
    accumulator = MetricsAccumulator("m", calc_mean=True)
    assert accumulator.accumulate(MetricValue("other", 1.0)) == []
    assert accumulator.accumulate(MetricValue("m", 1.0)) == [MetricValue("m", 1.0), MetricValue("mean_m", 1.0)]


def test_clear_and_fresh_forget_all_values() -> None:
    accumulator = MetricsAccumulator("m", calc_max=True)
    accumulator.accumulate(5.0)
    assert accumulator.fresh().accumulate(1.0)[1] == MetricValue("max_m", 1.0)
    accumulator.clear()
    assert accumulator.accumulate(1.0)[1] == MetricValue("max_m", 1.0)


def test_an_empty_name_and_a_window_of_one_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="name"):
        MetricsAccumulator("")
    with pytest.raises(ConfigurationError, match="window_size = 1"):
        MetricsAccumulator("m", window_size=1)
