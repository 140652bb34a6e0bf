"""Attraction is told from the clicks of all sessions of a query, whatever the position."""

from __future__ import annotations

import numpy as np
import pytest

from estudio_core.clickstream.attraction import posterior_attraction
from estudio_core.clickstream.examination_curve import PowerLaw
from estudio_core.clickstream.position_bias import Impressions
from estudio_core.clickstream.ranking_data import FineTuningInput


def log(truth: np.ndarray, exponent: float, sessions: int) -> Impressions:
    rng = np.random.default_rng(4)
    examined = (np.arange(len(truth)) + 1.0) ** -exponent
    results = tuple(str(i) for i in range(len(truth)))
    return Impressions.of(
        FineTuningInput(
            str(n),
            "q",
            results,
            tuple(range(len(truth))),
            (None,) * len(truth),
            tuple((rng.random(len(truth)) < examined * truth).astype(float).tolist()),
        )
        for n in range(sessions)
    )


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_the_truth_is_recovered_from_many_sessions(exponent: float) -> None:
    truth = np.array([0.1, 0.9, 0.5, 0.1, 0.9, 0.3])
    found = posterior_attraction(log(truth, exponent, 3_000), PowerLaw.given(exponent))
    assert np.abs(found.of_pair - truth).max() < 0.06
    assert found.average == pytest.approx(truth.mean(), abs=0.15)


def test_what_was_hardly_looked_at_stays_near_the_average() -> None:
    found = posterior_attraction(log(np.full(50, 0.4), 1.0, 2), PowerLaw.given(1.0))
    assert found.of_pair[49] == pytest.approx(found.average, abs=0.05)


def test_no_sessions_tell_nothing() -> None:
    assert len(posterior_attraction(Impressions.of([]), PowerLaw.given(1.0)).of_pair) == 0
