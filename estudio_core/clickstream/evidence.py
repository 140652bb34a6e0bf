"""How much each shown result of a session proves: clicks weighed by examination, clicks and skips by confidence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from estudio_core.clickstream.attraction import posterior_attraction
from estudio_core.clickstream.clients import which_count
from estudio_core.clickstream.confidence import session_confidences
from estudio_core.clickstream.examination_curve import EVEN, Examination
from estudio_core.clickstream.fine_tuning_input import FineTuningInput
from estudio_core.clickstream.position_bias import Floats, Impressions, coec, effective_sample_size
from estudio_core.clickstream.session_weights import SessionWeights
from estudio_core.clickstream.table_builder import table_of

Pooling = Literal["query", "session"]
PositionBias = Literal["ipw", "coec", "none"]

CLICK_WEIGHT_CLIP = 5.0
"""Most that a click counts against one at the top: bounds the variance that rare clicks far down bring."""
DEV_WEIGHT_CLIP = 20.0
"""The same where models are compared: that of the last of twenty results under exponent 1."""


@dataclass(frozen=True)
class Evidence:
    """Weights by session id, one number per result in shown order.

    Attributes:
        click_weights: What a click there counts for, see `weigh_clicks`.
        confidences: Confidence of the click or skip, see `weigh_evidence`.
        effective_sample_size: How many equally weighted clicks would be as certain.
    """

    click_weights: SessionWeights
    confidences: SessionWeights
    effective_sample_size: float


def weigh_evidence(
    sessions: Iterable[FineTuningInput],
    examination: Examination,
    pooling: Pooling = "query",
    position_bias: PositionBias = "ipw",
) -> Evidence:
    """Weigh the clicks and skips of sessions, given how likely each position is looked at.

    Clicks weigh as `weigh_clicks` says, but for `ipw` with pooling by `query`, where they weigh 1: the posterior knows
    of examination already, and to divide by it again makes clicks on irrelevant results the heaviest where a query has
    few sessions. The confidence of a click, and that of a skip:

    - pooling by `query`: all sessions of a query tell together how attractive a result is, beside what its score and
      the query let expect by all other queries (`posterior_attraction`). A click has the posterior attraction of its
      result, so that one click of many looks counts little, and one on what nothing spoke for less than one on what
      was ranked well for good reason; a skip has the share by which skips lowered the estimate, so that a result that
      nobody looked at counts nothing. All sessions of a (query, item) have one weight. Attention counts as a standard
      error less steep than was estimated.
    - pooling by `session`: `session_confidences`, from the positions of the session's own clicks.

    With `position_bias="none"` both are as if every position were looked at. Where a list was not by relevance
    (`FineTuningInput.by_relevance`), a skip has 0. Sessions that do not count (`counted_sessions`) tell nothing.

    >>> from estudio_core.clickstream.examination_curve import PowerLaw
    >>> session = FineTuningInput("s", "lamp", ("a", "b"), (0, 1), (None, None), (0.0, 1.0))
    >>> weigh_evidence([session], PowerLaw.given(1.0), "session").click_weights
    {'s': (1.0, 2.0)}
    """
    examination = EVEN if position_bias == "none" else examination
    table = table_of(sessions)
    log = Impressions.of(table)
    clicked = log.clicks > 0
    ranked = table.of_session("by_relevance")[log.sessions]
    divided = pooling == "query" and position_bias == "ipw"
    weights = _click_weights(log, examination, "none" if divided else position_bias, CLICK_WEIGHT_CLIP)
    if pooling == "query":
        counted = which_count(table)[0][log.sessions]
        attraction = posterior_attraction(log.where(counted & (ranked | clicked)), examination.cautious)
        confidences = np.where(clicked, attraction.of_pair[log.pairs], attraction.lowered[log.pairs])
    elif examination.is_even:
        confidences = np.ones(len(clicked))
    else:
        confidences = session_confidences(clicked, log.positions, log.sessions, examination=examination)
    confidences = np.where(clicked | ranked, confidences, 0.0)
    effective = effective_sample_size((weights * confidences)[clicked])
    return Evidence(SessionWeights.of(table, weights), SessionWeights.of(table, confidences), effective)


def weigh_clicks(
    sessions: Iterable[FineTuningInput],
    examination: Examination,
    position_bias: PositionBias = "ipw",
    *,
    clip: float = CLICK_WEIGHT_CLIP,
) -> SessionWeights:
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
    table = table_of(sessions)
    return SessionWeights.of(table, _click_weights(Impressions.of(table), examination, position_bias, clip))


def weigh_dev_clicks(
    sessions: Iterable[FineTuningInput], examination: Examination, position_bias: PositionBias = "ipw"
) -> SessionWeights:
    """Return `weigh_clicks` with a wider clip, for sessions that models are compared on.

    Where a gradient wants little variance, a comparison wants little bias: clipped weights count clicks far down for
    too little, and so side with the order that was shown against every better one. Without any bound, though, one click
    at position 20 decides alone (8,000 times one at the top under the steepest exponent).
    """
    return weigh_clicks(sessions, examination, position_bias, clip=DEV_WEIGHT_CLIP)


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
