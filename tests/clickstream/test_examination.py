"""The exponent of attention is recovered from replayed logs whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from estudio_core.clickstream.examination import (
    ASSUMED_EXPONENT,
    Examination,
    estimate_examination,
    examination_of,
)
from estudio_core.clickstream.replay import ClickModel, replay_clicks
from estudio_core.preprocessing.ranking_data import FineTuningInput

QUERIES, OBJECTS = 60, 20
ETAS = [0.0, 0.5, 1.0, 2.0]


def log(
    eta: float, *, shuffled_share: float = 0.0, sessions: int = 4_000, scores: bool = True
) -> list[FineTuningInput]:
    """Sessions over rankings that know something: better objects stand higher, with noise."""
    rng = np.random.default_rng(8)
    grades = {
        f"q{q}": {f"o{o}": float(grade) for o, grade in enumerate(rng.integers(0, 4, OBJECTS))} for q in range(QUERIES)
    }
    rankings = {
        query: sorted(((o, 0.1 * g + rng.normal(0, 0.15)) for o, g in of_query.items()), key=lambda pair: -pair[1])
        for query, of_query in grades.items()
    }
    replayed = replay_clicks(
        grades,
        rankings,
        sessions=sessions,
        application="test",
        end=datetime(2026, 1, 1, tzinfo=UTC),
        click_model=ClickModel(eta=eta),
        shuffled_share=shuffled_share,
        seed=1,
    )
    inputs = replayed.training_inputs()
    return inputs if scores else [replace(session, ranks=(None,) * OBJECTS) for session in inputs]


@pytest.mark.parametrize("eta", ETAS)
def test_results_at_several_positions_tell_the_exponent(eta: float) -> None:
    estimate = estimate_examination(log(eta, shuffled_share=0.3))
    assert estimate.basis == "several positions"
    assert estimate.exponent == pytest.approx(eta, abs=0.1)
    assert estimate.standard_error < 0.1


@pytest.mark.parametrize("eta", ETAS)
def test_fixed_rankings_bound_the_exponent(eta: float) -> None:
    estimate = estimate_examination(log(eta))
    low, high = estimate.bounds
    assert estimate.basis == "fixed rankings"
    assert low < eta < high
    assert estimate.exponent == pytest.approx(eta, abs=0.25)
    assert "between" in str(estimate)


def test_without_scores_there_is_the_upper_bound_alone() -> None:
    estimate = estimate_examination(log(1.0, scores=False))
    assert estimate.bounds[0] == estimate.bounds[1] == pytest.approx(estimate.exponent)
    assert estimate.exponent > 1.0


def test_a_log_that_cannot_tell_gives_the_assumed_exponent() -> None:
    for sessions in ([], log(1.0, sessions=3)):
        estimate = estimate_examination(sessions)
        assert (estimate.basis, estimate.exponent) == ("assumed", ASSUMED_EXPONENT)
        assert "assumed" in str(estimate)


def test_what_is_given_is_not_estimated() -> None:
    assert examination_of(log(1.0, sessions=50), 0.3) == Examination(0.3, 0.0, "given", (0.3, 0.3))
    assert examination_of(log(2.0), None).exponent > 1.5
