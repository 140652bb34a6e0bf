"""Confidence: how much a click, or its absence, says about a result, given where it stood in the session.

- A click far down is stronger evidence than one at the top: the user read on, and chose it over what stood above.
- A skipped top result is stronger evidence than a skipped low one, which may never have been looked at.
- What stood above the deepest click was looked at, whatever its position.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estudio_core.clickstream.examination_curve import Examination, PowerLaw
from estudio_core.errors import DataError

CLICK_AT_TOP = 0.5
"""Confidence of a click on the topmost result: half habit, half choice."""

LEAST_CONFIDENCE = 0.1
"""Confidence of a result that was probably never looked at. Above 0, so that no session is left without any pair."""

_ASSUMED = PowerLaw.given(1.0)


def session_confidences(
    clicks: ArrayLike,
    positions: ArrayLike,
    sessions: ArrayLike | None = None,
    *,
    examination: Examination = _ASSUMED,
    least: float = LEAST_CONFIDENCE,
) -> NDArray[np.float64]:
    """Return the confidence of each shown result, from `least` to 1.

    With examination e of the position: a click has `1 - e / 2`, rising with depth; a skipped result
    above the session's deepest click has 1, as it was looked at; a skipped result below it has e, but at least `least`,
    where e counts from the deepest click on (from the top, in a session without clicks).

    >>> session_confidences([0, 1, 0, 0], [0, 1, 2, 3]).round(3).tolist()
    [1.0, 0.75, 0.5, 0.333]
    >>> session_confidences([0, 0, 0], [0, 1, 2]).round(3).tolist()
    [1.0, 0.5, 0.333]

    Args:
        clicks: [n], above 0 where clicked.
        positions: [n], 0-based place at which a result was shown.
        sessions: [n], number of the session, from 0; one session where None.
        examination: How attention falls with depth; by default with 1 / (position + 1).
        least: Lowest confidence, above 0 and at most 1.

    Raises:
        DataError: arrays of different length, or a negative position.
    """
    position = np.asarray(positions, dtype=np.int64)
    clicked = np.asarray(clicks, dtype=np.float64) > 0
    owner = np.zeros(len(position), dtype=np.int64) if sessions is None else np.asarray(sessions, dtype=np.int64)
    if not (position.shape == clicked.shape == owner.shape) or position.ndim != 1:
        raise DataError(
            "Clicks, positions and sessions must be equally long; "
            f"got {clicked.shape}, {position.shape}, {owner.shape}."
        )
    if position.size == 0:
        return np.empty(0)
    if position.min() < 0:
        raise DataError(f"Positions are counted from 0; got {position.min()}.")
    deepest = np.full(int(owner.max()) + 1, -1, dtype=np.int64)
    np.maximum.at(deepest, owner[clicked], position[clicked])
    last = deepest[owner]
    skipped = np.where(
        position < last, 1.0, np.maximum(examination.at(np.maximum(position - last - 1, 0) + (last >= 0)), least)
    )
    confidences: NDArray[np.float64] = np.where(clicked, 1.0 - (1.0 - CLICK_AT_TOP) * examination.at(position), skipped)
    return confidences
