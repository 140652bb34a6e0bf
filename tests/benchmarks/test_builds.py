"""The bench of large builds: its rates, its filters and its verdicts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from benchmarks.builds.catalog import BUCKETS, bucket
from benchmarks.builds.load import _tenths
from benchmarks.builds.table import table


def test_rates_are_those_between_chunks_of_one_process() -> None:
    seen = [(1, 10.0, 0, 5.0), (1, 11.0, 500, 6.0), (2, 60.0, 500, 30.0), (2, 61.0, 600, 30.5), (2, 63.0, 1000, 31.0)]
    rates = _tenths(seen, 1_000)
    assert rates[0] == {"items_per_s": 500, "items_per_cpu_s": 500}
    assert rates[5] == {"items_per_s": 100, "items_per_cpu_s": 200}
    assert rates[6] == {"items_per_s": 200, "items_per_cpu_s": 800}
    assert rates[9]["items_per_s"] == 0


def test_each_value_of_the_field_has_as_many_items() -> None:
    assert set(Counter(bucket(number) for number in range(5 * BUCKETS)).values()) == {5}


@pytest.mark.parametrize(("last", "lost", "verdict"), [(900.0, 0, "pass"), (700.0, 0, "fail"), (900.0, 1, "fail")])
def test_a_bar_that_is_missed_is_called_missed(last: float, lost: int, verdict: str) -> None:
    rates = [{"items_per_s": rate, "items_per_cpu_s": rate} for rate in (1_000.0, *[950.0] * 8, last)]
    load: dict[str, Any] = {
        "items": 1_000, "shards": 1, "kills": 5, "load_s": 1.0, "tenths": rates, "most_mb": 100.0, "lost": lost,
        "doubled": 0, "machine": "one",
    }  # fmt: skip
    told = table(load, None, None, None)
    assert ("fail" in told) == (verdict == "fail")
    assert told.count("pass") == 5 - (verdict == "fail")
