"""How much each shown result of a session proves: clicks weighed by examination, clicks and skips by confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.attraction import posterior_attraction
from estudio_core.clickstream.confidence import session_confidences
from estudio_core.clickstream.examination_curve import EVEN, Examination
from estudio_core.clickstream.position_bias import Floats, Impressions, coec, effective_sample_size
from estudio_core.preprocessing.ranking_data import FineTuningInput

Pooling = Literal["query", "session"]
PositionBias = Literal["ipw", "coec", "none"]

CLICK_WEIGHT_CLIP = 5.0
"""Most that a click counts against one at the top: bounds the variance that rare clicks far down bring."""


@dataclass(frozen=True)
class Evidence:
    """Weights by session id, one number per result in shown order.

    Attributes:
        click_weights: What a click there counts for, see `weigh_clicks`.
        confidences: Confidence of the click or skip, see `weigh_evidence`.
        effective_sample_size: How many equally weighted clicks would be as certain.
    """

    click_weights: dict[str, tuple[float, ...]]
    confidences: dict[str, tuple[float, ...]]
    effective_sample_size: float


def weigh_evidence(
    sessions: Sequence[FineTuningInput],
    examination: Examination,
    pooling: Pooling = "query",
    position_bias: PositionBias = "ipw",
) -> Evidence:
    """Weigh the clicks and skips of sessions, given how likely each position is looked at.

    Clicks weigh as `weigh_clicks` says. The confidence of a click, and that of a skip:

    - pooling by `query`: all sessions of a query tell together how attractive a result is. A click has the posterior
      attraction of its result, so that one click of many looks counts little; a skip has the share by which the
      result's attraction fell below the log's average, so that a result that nobody looked at counts nothing.
    - pooling by `session`: `session_confidences`, from the positions of the session's own clicks.

    With `position_bias="none"` both are as if every position were looked at.

    >>> from estudio_core.clickstream.examination_curve import PowerLaw
    >>> session = FineTuningInput("s", "lamp", ("a", "b"), (0, 1), (None, None), (0.0, 1.0))
    >>> weigh_evidence([session], PowerLaw.given(1.0)).click_weights
    {'s': (1.0, 2.0)}
    """
    examination = EVEN if position_bias == "none" else examination
    log = Impressions.of(sessions)
    clicked = log.clicks > 0
    weights = _click_weights(log, examination, position_bias)
    if pooling == "query":
        attraction = posterior_attraction(log, examination)
        found = attraction.of_pair[log.pairs]
        confidences = np.where(clicked, found, np.clip(1.0 - found / attraction.average, 0.0, 1.0))
    elif examination.is_even:
        confidences = np.ones(len(clicked))
    else:
        confidences = session_confidences(clicked, log.positions, log.sessions, examination=examination)
    effective = effective_sample_size((weights * confidences)[clicked])
    return Evidence(_by_session(sessions, weights), _by_session(sessions, confidences), effective)


def weigh_clicks(
    sessions: Sequence[FineTuningInput], examination: Examination, position_bias: PositionBias = "ipw"
) -> dict[str, tuple[float, ...]]:
    """Return the weight of a click on each result, in shown order, by session id.

    - `ipw`: the inverse of the examination of its position, five at most.
    - `coec`: clicks of its (query, result) over the clicks that the positions would have brought it in this log, five
      at most, scaled to a mean of 1 over the clicks; 1 for a result that was not clicked.
    - `none`: 1.

    >>> from estudio_core.clickstream.examination_curve import PowerLaw
    >>> session = FineTuningInput("s", "lamp", ("a", "b"), (0, 19), (None, None), (0.0, 1.0))
    >>> weigh_clicks([session], PowerLaw.given(1.0)), weigh_clicks([session], PowerLaw.given(1.0), "none")
    ({'s': (1.0, 5.0)}, {'s': (1.0, 1.0)})

    Source: the position-based model with given propensities, clipped, as in Joachims, Swaminathan, Schnabel,
    "Unbiased Learning-to-Rank with Biased Feedback" (WSDM 2017); `coec` as in Zhang and Jones (WWW 2007).
    """
    return _by_session(sessions, _click_weights(Impressions.of(sessions), examination, position_bias))


def click_weights_at(positions: NDArray[np.int64], examination: Examination) -> Floats:
    """Return the clipped inverse examination of 0-based positions, float64 of their shape.

    >>> from estudio_core.clickstream.examination_curve import PowerLaw
    >>> click_weights_at(np.array([0, 1, 19]), PowerLaw.given(1.0)).tolist()
    [1.0, 2.0, 5.0]
    """
    inverse: Floats = np.minimum(examination.inverse_at(positions), CLICK_WEIGHT_CLIP)
    return inverse


def _click_weights(log: Impressions, examination: Examination, position_bias: PositionBias) -> Floats:
    if position_bias == "none":
        return np.ones(len(log.clicks))
    if position_bias == "ipw":
        return click_weights_at(log.positions, examination)
    clicked = log.clicks > 0
    ratios = np.minimum(coec(log.positions, log.clicks, log.pairs)[log.pairs], CLICK_WEIGHT_CLIP)
    mean = float(ratios[clicked].mean()) if clicked.any() else 1.0
    weights: Floats = np.where(clicked, ratios / mean, 1.0)
    return weights


def _by_session(sessions: Sequence[FineTuningInput], values: Floats) -> dict[str, tuple[float, ...]]:
    ends = np.cumsum([len(session.results) for session in sessions])[:-1]
    parts = np.split(values, ends)
    return {session.session_id: tuple(part.tolist()) for session, part in zip(sessions, parts, strict=False)}
