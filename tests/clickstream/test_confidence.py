"""Confidence of clicks and skips."""

from __future__ import annotations

import numpy as np
import pytest

from estudio_core.clickstream.confidence import session_confidences
from estudio_core.clickstream.examination_curve import EVEN
from estudio_core.errors import DataError


def test_a_click_is_the_stronger_the_deeper_and_a_skip_the_weaker() -> None:
    clicks = [session_confidences(np.eye(10)[p], range(10))[p] for p in range(10)]
    assert (np.diff(clicks) > 0).all()
    skips = session_confidences(np.zeros(10), range(10))
    assert (np.diff(skips) <= 0).all()
    assert skips[0] > skips[-1] > 0


def test_what_stands_above_the_deepest_click_was_looked_at() -> None:
    confidences = session_confidences([0, 1, 0, 0, 1, 0, 0], range(7))
    assert confidences[[0, 2, 3]].tolist() == [1.0, 1.0, 1.0]
    assert 1.0 > confidences[5] > confidences[6]


def test_many_sessions_at_once_equal_each_alone() -> None:
    rng = np.random.default_rng(3)
    clicks, owners = (rng.random(200) < 0.2).astype(float), np.repeat(np.arange(20), 10)
    positions = np.tile(rng.permutation(10), 20)
    order = rng.permutation(200)
    together = session_confidences(clicks[order], positions[order], owners[order])
    alone = np.concatenate([session_confidences(clicks[owners == s], positions[owners == s]) for s in range(20)])
    np.testing.assert_array_equal(together, alone[order])
    assert together.min() > 0
    assert together.max() <= 1


def test_without_attention_loss_every_skip_counts_fully() -> None:
    assert session_confidences([0, 1, 0], range(3), examination=EVEN).tolist() == [1.0, 0.5, 1.0]


def test_empty_and_wrong_input() -> None:
    assert session_confidences([], []).shape == (0,)
    with pytest.raises(DataError, match="equally long"):
        session_confidences([1], [0, 1])
    with pytest.raises(DataError, match="counted from 0"):
        session_confidences([1], [-1])
