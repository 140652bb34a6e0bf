"""How much each shown result of a session proves: clicks weighed by examination, clicks and skips by confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.attraction import posterior_attraction
from estudio_core.clickstream.confidence import session_confidences
from estudio_core.clickstream.position_bias import Floats, Impressions, effective_sample_size
from estudio_core.preprocessing.ranking_data import FineTuningInput

Pooling = Literal["query", "session"]

CLICK_WEIGHT_CLIP = 5.0
"""Most that a click counts against one at the top: bounds the variance that rare clicks far down bring."""


@dataclass(frozen=True)
class Evidence:
    """Weights by session id, one number per result in shown order.

    Attributes:
        click_weights: Clipped inverse propensity of a click at that position.
        confidences: Confidence of the click or skip, see `weigh_evidence`.
        effective_sample_size: How many equally weighted clicks would be as certain.
    """

    click_weights: dict[str, tuple[float, ...]]
    confidences: dict[str, tuple[float, ...]]
    effective_sample_size: float


def weigh_evidence(
    sessions: Sequence[FineTuningInput], examination_exponent: float, pooling: Pooling = "query"
) -> Evidence:
    """Weigh sessions for an examination of `(position + 1) ** -examination_exponent`; 0 weighs all alike.

    A click weighs by the clipped inverse of the examination of its position. Its confidence, and that of a skip:

    - pooling by `query`: all sessions of a query tell together how attractive a result is. A click has the posterior
      attraction of its result, so that one click of many looks counts little; a skip has the share by which the
      result's attraction fell below the log's average, so that a result that nobody looked at counts nothing.
    - pooling by `session`: `session_confidences`, from the positions of the session's own clicks.

    >>> session = FineTuningInput("s", "lamp", ("a", "b"), (0, 1), (None, None), (0.0, 1.0))
    >>> weigh_evidence([session], 1.0).click_weights
    {'s': (1.0, 2.0)}

    Source: the position-based model with given propensities, clipped, as in Joachims, Swaminathan, Schnabel,
    "Unbiased Learning-to-Rank with Biased Feedback" (WSDM 2017).
    """
    log = Impressions.of(sessions)
    clicked = log.clicks > 0
    weights = click_weights_at(log.positions, examination_exponent)
    if pooling == "query":
        attraction = posterior_attraction(log, examination_exponent)
        found = attraction.of_pair[log.pairs]
        confidences = np.where(clicked, found, np.clip(1.0 - found / attraction.average, 0.0, 1.0))
    elif examination_exponent > 0:
        confidences = session_confidences(clicked, log.positions, log.sessions, eta=examination_exponent)
    else:
        confidences = np.ones(len(clicked))
    ends = np.cumsum([len(session.results) for session in sessions])[:-1]

    def by_session(values: Floats) -> dict[str, tuple[float, ...]]:
        parts = np.split(values, ends)
        return {session.session_id: tuple(part.tolist()) for session, part in zip(sessions, parts, strict=False)}

    effective = effective_sample_size((weights * confidences)[clicked])
    return Evidence(by_session(weights), by_session(confidences), effective)


def click_weights_at(positions: NDArray[np.int64], examination_exponent: float) -> Floats:
    """Return the clipped inverse examination of 0-based positions, float64 of their shape.

    >>> click_weights_at(np.array([0, 1, 19]), 1.0).tolist()
    [1.0, 2.0, 5.0]
    """
    inverse: Floats = np.minimum((positions + 1.0) ** examination_exponent, CLICK_WEIGHT_CLIP)
    return inverse
