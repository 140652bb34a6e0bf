"""Clicks and skips are weighed by what position-biased attention makes of them."""

from __future__ import annotations

from dataclasses import replace

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


def test_in_a_session_a_skip_below_the_last_click_is_weak_evidence_and_above_it_strong() -> None:
    confidences = np.array(weigh_evidence([session([3])], 1.0, "session").confidences["s"])
    assert (confidences[:3] == 1.0).all()
    assert (np.diff(confidences[4:]) <= 0).all()
    assert confidences[19] < 0.2


def test_without_correction_all_positions_of_a_session_count_alike() -> None:
    evidence = weigh_evidence([session([0, 10])], 0.0, "session")
    assert set(evidence.click_weights["s"]) == {1.0}
    assert set(evidence.confidences["s"]) == {1.0}
    assert evidence.effective_sample_size == 2.0


def test_sessions_of_a_query_tell_together_what_a_click_and_a_skip_are_worth() -> None:
    sessions = [replace(session([0] if n else [0, 1]), session_id=str(n)) for n in range(20)]
    confidences = weigh_evidence(sessions, 1.0).confidences
    always, once = confidences["0"][:2]
    assert always > 0.9
    assert once < 0.3  # one click of ten expected looks
    skips = np.array(confidences["5"][1:])
    assert (np.diff(skips[1:]) < 0).all()  # the lower, the less looked at
    assert skips[1] > 2 * skips[-1] > 0


def test_a_result_that_was_skipped_once_is_hardly_a_negative() -> None:
    [confidences] = weigh_evidence([session([0])], 1.0).confidences.values()
    assert confidences[19] < 0.1 < confidences[1]


def test_the_effective_sample_size_falls_with_unequal_weights() -> None:
    alike, unlike = (weigh_evidence([session(clicks)], 1.0).effective_sample_size for clicks in ([0, 1], [0, 19]))
    assert 1.0 < unlike < alike < 2.0
    assert weigh_evidence([session([])], 1.0).effective_sample_size == 0.0
