"""How much each shown result of a session proves: clicks weighed by examination, clicks and skips by confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from estudio_core.clickstream.attraction import posterior_attraction
from estudio_core.clickstream.confidence import session_confidences
from estudio_core.clickstream.examination_curve import EVEN, Examination
from estudio_core.clickstream.position_bias import Floats, Impressions, coec, effective_sample_size
from estudio_core.clickstream.ranking_data import FineTuningInput

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

    Clicks weigh as `weigh_clicks` says, but for `ipw` with pooling by `query`, where they weigh 1: the posterior knows
    of examination already, and to divide by it again makes clicks on irrelevant results the heaviest where a query has
    few sessions. The confidence of a click, and that of a skip:

    - pooling by `query`: all sessions of a query tell together how attractive a result is. A click has the posterior
      attraction of its result, so that one click of many looks counts little; a skip has the share by which the
      result's attraction fell below the log's average, so that a result that nobody looked at counts nothing.
    - pooling by `session`: `session_confidences`, from the positions of the session's own clicks.

    With `position_bias="none"` both are as if every position were looked at.

    >>> from estudio_core.clickstream.examination_curve import PowerLaw
    >>> session = FineTuningInput("s", "lamp", ("a", "b"), (0, 1), (None, None), (0.0, 1.0))
    >>> weigh_evidence([session], PowerLaw.given(1.0), "session").click_weights
    {'s': (1.0, 2.0)}
    """
    examination = EVEN if position_bias == "none" else examination
    log = Impressions.of(sessions)
    clicked = log.clicks > 0
    divided = pooling == "query" and position_bias == "ipw"
    weights = _click_weights(log, examination, "none" if divided else position_bias, CLICK_WEIGHT_CLIP)
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
    sessions: Sequence[FineTuningInput],
    examination: Examination,
    position_bias: PositionBias = "ipw",
    *,
    clip: float = CLICK_WEIGHT_CLIP,
) -> dict[str, tuple[float, ...]]:
    """Return the weight of a click on each result, in shown order, by session id.

    - `ipw`: the inverse of the examination of its position, `clip` at most.
    - `coec`: clicks of its (query, result) over the clicks that the positions would have brought it in this log,
      `clip` at most, scaled to a mean of 1 over the clicks; 1 for a result that was not clicked.
    - `none`: 1.

    >>> from estudio_core.clickstream.examination_curve import PowerLaw
    >>> session = FineTuningInput("s", "lamp", ("a", "b"), (0, 19), (None, None), (0.0, 1.0))
    >>> weigh_clicks([session], PowerLaw.given(1.0)), weigh_clicks([session], PowerLaw.given(1.0), "none")
    ({'s': (1.0, 5.0)}, {'s': (1.0, 1.0)})

    Source: the position-based model with given propensities, clipped, as in Joachims, Swaminathan, Schnabel,
    "Unbiased Learning-to-Rank with Biased Feedback" (WSDM 2017); `coec` as in Zhang and Jones (WWW 2007).
    """
    return _by_session(sessions, _click_weights(Impressions.of(sessions), examination, position_bias, clip))


def weigh_dev_clicks(
    sessions: Sequence[FineTuningInput], examination: Examination, position_bias: PositionBias = "ipw"
) -> dict[str, tuple[float, ...]]:
    """Return `weigh_clicks` without a clip, for sessions that models are compared on.

    Where a gradient wants little variance, a comparison wants no bias: clipped weights count clicks far down for too
    little, and so side with the order that was shown against every better one.
    """
    return weigh_clicks(sessions, examination, position_bias, clip=np.inf)


def _click_weights(log: Impressions, examination: Examination, position_bias: PositionBias, clip: float) -> Floats:
    if position_bias == "none":
        return np.ones(len(log.clicks))
    if position_bias == "ipw":
        inverse: Floats = np.minimum(examination.inverse_at(log.positions), clip)
        return inverse
    clicked = log.clicks > 0
    ratios = np.minimum(coec(log.positions, log.clicks, log.pairs)[log.pairs], clip)
    mean = float(ratios[clicked].mean()) if clicked.any() else 1.0
    weights: Floats = np.where(clicked, ratios / mean, 1.0)
    return weights


def _by_session(sessions: Sequence[FineTuningInput], values: Floats) -> dict[str, tuple[float, ...]]:
    ends = np.cumsum([len(session.results) for session in sessions])[:-1]
    parts = np.split(values, ends)
    return {session.session_id: tuple(part.tolist()) for session, part in zip(sessions, parts, strict=False)}
