"""On which result of a list a click falls, as a conditional logit of what is known of the results.

Source: McFadden, "Conditional logit analysis of qualitative choice behavior" (1974); variances with queries as clusters
as Liang and Zeger (Biometrika 1986) have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_ROUNDS = 50
_RIDGE = 1e-6  # of what all results share, such as a score that never differs, nothing can be told


@dataclass(frozen=True)
class ShownList:
    """What one session showed: for each result whether it was clicked, and its features [results, features].

    `query` is a number that sessions of the same query share.
    """

    query: int
    clicked: NDArray[np.bool_]
    features: Floats


class ClickChoices:
    """The clicks of lists, those without a click or a choice left out.

    Attributes:
        queries: Distinct queries among them.
        spread: Standard deviation of each feature, by which coefficients are to be divided: features are scaled to 1.
    """

    def __init__(self, lists: Sequence[ShownList]) -> None:
        kept = [shown for shown in lists if shown.clicked.any() and len(shown.clicked) > 1]
        _, self._query = np.unique([shown.query for shown in kept], return_inverse=True)
        self.queries = int(self._query.max()) + 1 if kept else 0
        if not kept:
            return
        features = np.concatenate([shown.features for shown in kept]).astype(np.float64)
        self.spread: Floats = features.std(axis=0)
        self._features = features / np.where(self.spread > 0, self.spread, 1.0)
        self._clicked = np.concatenate([shown.clicked for shown in kept])
        self._owner = np.repeat(np.arange(len(kept)), [len(shown.clicked) for shown in kept])
        self._clicks = np.bincount(self._owner, self._clicked).astype(np.float64)

    def fitted(self, features: int) -> Floats:
        """Return the coefficients of the first `features` by maximum likelihood, the others being 0."""
        found = np.zeros(self._features.shape[1])
        for _ in range(_ROUNDS):
            slopes, curvature = self.derivatives(found)
            step = np.linalg.solve(curvature[:features, :features], slopes[:, :features].sum(axis=0))
            found[:features] += np.clip(step, -2, 2)
            if np.abs(step).max() < 1e-8:
                break
        return found

    def derivatives(self, coefficients: Floats) -> tuple[Floats, Floats]:
        """Return the slope of each query's log-likelihood, [queries, features], and the curvature of their sum."""
        owner = self._owner
        logits = self._features @ coefficients
        largest = np.full(len(self._clicks), -np.inf)
        np.maximum.at(largest, owner, logits)
        chances = np.exp(logits - largest[owner])
        chances /= np.bincount(owner, chances)[owner]
        mean = _sums(owner, chances[:, None] * self._features)
        centred = self._features - mean[owner]
        curvature = (centred * (chances * self._clicks[owner])[:, None]).T @ centred
        slopes = _sums(owner, self._clicked[:, None] * self._features) - self._clicks[:, None] * mean
        return _sums(self._query, slopes), curvature + _RIDGE * np.eye(len(coefficients))


def _sums(groups: NDArray[np.int64], rows: Floats) -> Floats:
    """Return the sum of the rows of each group, [groups, columns]."""
    return np.stack([np.bincount(groups, column) for column in rows.T], axis=1)
