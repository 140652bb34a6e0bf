"""Whether held-out clicks speak for what training changed: a test that knows where results stood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_ROUNDS = 50
_RIDGE = 1e-6  # of what all results share, such as a score that never differs, nothing can be told


@dataclass(frozen=True)
class ShownList:
    """One session with a click: for each result its position, whether it was clicked, its score before and after.

    `query` is a number that sessions of the same query share.
    """

    query: int
    positions: Floats
    clicked: NDArray[np.bool_]
    before: Floats
    after: Floats


@dataclass(frozen=True)
class ClickEvidence:
    """What held-out clicks say of a change of scores.

    Attributes:
        z: Standard normal where the change means nothing to who clicks; large where clicked results rose.
        queries: Held-out queries with a click.
    """

    z: float
    queries: int

    @property
    def needed(self) -> float:
        """The least `z` with which the change is kept.

        A handful of queries says nothing either way, and most logs teach something: nothing but strong evidence against
        it takes a change back there. Of more queries, a change that is worth having shows: they have to speak for it.

        >>> [round(ClickEvidence(0.0, queries).needed, 2) for queries in (1, 5, 50, 200, 1000)]
        [-4.9, -2.01, 0.0, 1.06, 1.65]
        """
        queries = max(self.queries, 1)
        return min((_WORTH_HAVING * queries - _BELIEF) / math.sqrt(queries), _CERTAIN)

    @property
    def speaks_for_the_change(self) -> bool:
        """True where `z` is as large as is needed."""
        return self.z >= self.needed


_WORTH_HAVING = 0.1
"""Of z per square root of a query."""
_BELIEF = 5.0
"""What 50 queries of that worth add up to: so much is believed of a training beforehand."""
_CERTAIN = 1.645  # one-sided, 5 %


def click_evidence(lists: Sequence[ShownList]) -> ClickEvidence:
    """Return whether clicks follow the change of scores, beyond what positions and scores before explain.

    Which result of a list a click falls on is a conditional logit of its position, its score before, and the change.
    The test is the score test of the change's coefficient being 0, with queries as clusters. A comparison of the two
    orders by weighted clicks says far less: it weighs a click far down by much, and reads the ten best results alone.

    Source: McFadden, "Conditional logit analysis of qualitative choice behavior" (1974); the score test of Rao (1948)
    with the clustered variance of Liang and Zeger (Biometrika 1986).
    """
    lists = [shown for shown in lists if shown.clicked.any() and len(shown.positions) > 1]
    if not lists:
        return ClickEvidence(0.0, 0)
    features = np.concatenate(
        [np.stack([np.log1p(s.positions), s.before, s.after - s.before], axis=1) for s in lists]
    ).astype(np.float64)
    spread = features.std(axis=0)
    features /= np.where(spread > 0, spread, 1.0)
    clicked = np.concatenate([shown.clicked for shown in lists])
    owner = np.repeat(np.arange(len(lists)), [len(shown.positions) for shown in lists])
    clicks = np.bincount(owner, clicked).astype(np.float64)
    known = np.zeros(2)
    for _ in range(_ROUNDS):
        slopes, curvature = _derivatives(features, clicked, owner, clicks, known)
        step = np.linalg.solve(curvature[:2, :2], slopes[:, :2].sum(axis=0))
        known += np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-8:
            break
    slopes, curvature = _derivatives(features, clicked, owner, clicks, known)
    # What is left of the change once position and score before have had their say.
    left = slopes[:, 2] - slopes[:, :2] @ np.linalg.solve(curvature[:2, :2], curvature[:2, 2])
    _, numbers = np.unique([shown.query for shown in lists], return_inverse=True)
    of_query = np.bincount(numbers, left)
    error = math.sqrt(float((of_query**2).sum()))
    return ClickEvidence(float(of_query.sum()) / error if error > 0 else 0.0, len(of_query))


def _derivatives(
    features: Floats, clicked: NDArray[np.bool_], owner: NDArray[np.int64], clicks: Floats, known: Floats
) -> tuple[Floats, Floats]:
    """Return the slope of each session's log-likelihood, [sessions, 3], and the curvature of the sum, [3, 3]."""
    logits = features[:, :2] @ known
    largest = np.full(len(clicks), -np.inf)
    np.maximum.at(largest, owner, logits)
    chances = np.exp(logits - largest[owner])
    chances /= np.bincount(owner, chances)[owner]
    mean = np.stack([np.bincount(owner, chances * column) for column in features.T], axis=1)
    of_clicks = np.stack([np.bincount(owner, clicked * column) for column in features.T], axis=1)
    weight = chances * clicks[owner]
    centred = features - mean[owner]
    curvature = (centred * weight[:, None]).T @ centred + _RIDGE * np.eye(3)
    return of_clicks - clicks[:, None] * mean, curvature
