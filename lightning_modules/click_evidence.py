"""Whether held-out clicks speak for what training changed: a test that knows where results stood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_modules.conditional_logit import ClickChoices, ShownList


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

    The score test (Rao, 1948) of the change's coefficient being 0, with queries as clusters. A comparison of the two
    orders by weighted clicks says far less: it weighs a click far down by much, and reads the ten best results alone.

    Args:
        lists: With the features log(1 + position), score before, change of the score.
    """
    choices = ClickChoices(lists)
    if not choices.queries:
        return ClickEvidence(0.0, 0)
    slopes, curvature = choices.derivatives(choices.fitted(2))
    # What is left of the change once position and score before have had their say.
    left = slopes[:, 2] - slopes[:, :2] @ np.linalg.solve(curvature[:2, :2], curvature[:2, 2])
    error = math.sqrt(float((left**2).sum()))
    return ClickEvidence(float(left.sum()) / error if error > 0 else 0.0, choices.queries)
