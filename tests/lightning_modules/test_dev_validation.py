"""Which weights are kept: the latest that dev queries do not find certainly worse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_modules.callbacks.dev_validation import certainly_worse

NAN = math.nan


@pytest.mark.parametrize(
    ("values", "best", "expected"),
    [
        ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5], False),
        ([0.4, 0.4, 0.4], [0.5, 0.5, 0.5], True),  # all alike: no error
        ([0.6, 0.6, 0.6], [0.5, 0.5, 0.5], False),
        ([0.2, 0.9, 0.3], [0.5, 0.5, 0.5], False),  # -0.03 with an error of 0.2
        ([0.45, 0.44, 0.46], [0.5, 0.5, 0.5], True),
        ([0.4], [0.5], False),  # one query makes nothing certain
        ([NAN, 0.4, 0.4], [0.1, 0.5, 0.5], True),  # queries without a value do not count
        # The same differences: certain for many queries only.
        ([0.4, 0.53, 0.45, 0.46], [0.5, 0.5, 0.5, 0.5], False),
        ([0.4, 0.53, 0.45, 0.46] * 5, [0.5] * 20, True),
        ([NAN], [0.5], False),
        ([], [], False),
    ],
)
def test_worse_by_more_than_the_error_of_the_difference(values: list[float], best: list[float], expected: bool) -> None:
    assert certainly_worse(np.array(values), np.array(best)) is expected
