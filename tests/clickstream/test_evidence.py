"""Clicks and skips are weighed by what position-biased attention makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from estudio_core.clickstream.evidence import CLICK_WEIGHT_CLIP, weigh_evidence
from estudio_core.preprocessing.ranking_data import FineTuningInput


def session(clicked: list[int], shown: int = 20) -> FineTuningInput:
    return FineTuningInput(
        session_id="s",
        query="lamp",
        results=tuple(str(i) for i in range(shown)),
        positions=tuple(range(shown)),
        ranks=(None,) * shown,
        click_weights=tuple(1.0 if i in clicked else 0.0 for i in range(shown)),
    )


def test_a_click_far_down_counts_for_more_up_to_the_clip() -> None:
    weights = weigh_evidence([session([0, 2, 19])], 1.0).click_weights["s"]
    assert weights[0] == 1.0
    assert weights[2] == pytest.approx(3.0)
    assert weights[19] == CLICK_WEIGHT_CLIP


def test_a_skip_below_the_last_click_is_weak_evidence_and_above_it_strong() -> None:
    confidences = np.array(weigh_evidence([session([3])], 1.0).confidences["s"])
    assert (confidences[:3] == 1.0).all()
    assert (np.diff(confidences[4:]) <= 0).all()
    assert confidences[19] < 0.2


def test_without_correction_all_count_alike() -> None:
    evidence = weigh_evidence([session([0, 10])], 0.0)
    assert set(evidence.click_weights["s"]) == {1.0}
    assert set(evidence.confidences["s"]) == {1.0}
    assert evidence.effective_sample_size == 2.0


def test_the_effective_sample_size_falls_with_unequal_weights() -> None:
    assert weigh_evidence([session([0, 19])], 1.0).effective_sample_size == pytest.approx(36 / 26)
    assert weigh_evidence([session([])], 1.0).effective_sample_size == 0.0
