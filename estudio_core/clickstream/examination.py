"""How fast attention falls with the position: given, or estimated from the log.

Of `(position + 1) ** -exponent`, the exponent is estimated as follows.

Expected clicks are looks x examination(position) x attraction, a product. Given how many clicks a group of impressions
drew in all, its clicks are spread over its cells in proportion to looks x examination x whatever else differs inside
the group, so that the group's own attraction cancels out (conditional Poisson regression).

- Groups of one (query, object): only the position differs inside. Needs results that stood at several positions.
- Groups of one query: objects differ too, and attraction is taken as a curve of the score they were ranked by, so that
  results of nearly the same score, one above the other, decide (`click_attention.estimate_attention`). Taking them as
  equally attractive puts all of the fall in clicks down to the position: an upper bound where rankings are any good,
  and the estimate where no score is known.

How much attention is left below a click is estimated before (`click_log.Cells`): users who leave at a click look at
nothing below it, which says nothing of what stands there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from estudio_core.clickstream.click_attention import (
    ConditionalFit,
    client_error,
    estimate_attention,
    fit_conditional,
    standardised,
)
from estudio_core.clickstream.click_log import Cells, ClickLog
from estudio_core.clickstream.clients import counted_sessions
from estudio_core.clickstream.examination_curve import ByPosition, Examination, PowerLaw
from estudio_core.clickstream.fine_tuning_input import FineTuningInput
from estudio_core.clickstream.position_bias import (
    SMALLEST_CHANCE,
    Floats,
    Impressions,
    click_rates,
    em_propensities,
    harvested_propensities,
)
from estudio_core.clickstream.ranking_data import with_one_spelling
from estudio_core.clickstream.session_table import SessionTable
from estudio_core.clickstream.table_builder import table_of

ASSUMED_EXPONENT = 1.0
"""Where the log does not tell: the curve of Joachims, Swaminathan, Schnabel (WSDM 2017)."""
GREATEST_EXPONENT = 3.0
WANTED_ERROR = 0.15
"""Standard error below which results at several positions decide alone: that needs no assumption on attraction."""
LARGEST_ERROR = 0.5
"""Standard error above which a log does not tell, and the assumed exponent is taken."""

CERTAIN_BY = 2.5
"""Standard errors by which users have to look less at what is below a click for that to be believed. An estimate that
is off by chance moves the exponent: 0.93 instead of 1 made 0.89 of 1.00 in 5,000 sessions of Chorus."""
_RIDGE = 1e-9
ENOUGH_SESSIONS = 1_000_000
"""Sessions that an exponent is estimated from, whole queries by lot where there are more: with a tenth of them its
standard error is 0.01, and one of 0.05 moves no ranking."""


Kind = Literal["power_law", "em", "harvesting"]


def examination_of(
    sessions: Iterable[FineTuningInput], exponent: float | None = None, kind: Kind | tuple[float, ...] = "power_law"
) -> Examination:
    """Return how attention falls with the position: what is given, or what the log tells.

    Args:
        sessions: The log to estimate from.
        exponent: Of the power law; None: estimated.
        kind: `power_law`; a chance per position by EM (`em_propensities`) or by harvesting
            (`harvested_propensities`), which need results that stood at several positions; or the chances themselves.

    Raises:
        ConfigurationError: a given chance outside of (0, 1].
        DataError: `em` or `harvesting`, and fewer than 20 clicks fell on results away from their usual position.
    """
    if isinstance(kind, tuple):
        return ByPosition(kind, "given by the plugin")
    if kind == "power_law":
        return estimate_examination(sessions) if exponent is None else PowerLaw.given(exponent)
    log = Impressions.of(_by_relevance(sessions))
    if kind == "em":
        chances = em_propensities(log.positions, log.clicks, log.pairs)
        # Of a position that was never clicked, no more is known than that: not that it is looked at once in a million.
        chances[click_rates(log.positions, log.clicks) == 0] = np.nan
        return ByPosition(_filled(chances), "estimated by expectation maximisation")
    chances = harvested_propensities(log.positions, log.clicks, log.pairs)
    return ByPosition(_filled(chances), "estimated by intervention harvesting")


def _by_relevance(sessions: Iterable[FineTuningInput]) -> SessionTable:
    """Return the sessions that count and whose lists are by relevance."""
    table = table_of(sessions)
    return counted_sessions(table.where(table.of_session("by_relevance")))[0]


def _filled(chances: Floats) -> tuple[float, ...]:
    """Return estimates as chances: above 1 by noise is 1, an unknown one is the known one above it, or the first."""
    known = np.flatnonzero(~np.isnan(chances))
    last = known[np.maximum(np.searchsorted(known, np.arange(len(chances)), side="right") - 1, 0)]
    return tuple(np.clip(chances[last], SMALLEST_CHANCE, 1.0).tolist())


def estimate_examination(sessions: Iterable[FineTuningInput]) -> PowerLaw:
    """Return the exponent that a log tells, or the assumed one.

    Args:
        sessions: Shown results with positions, clicks and (where known) the scores they were ranked by. Those of
            implausible clients, those beyond what counts of one client, and lists that are not by relevance are left
            out.

    Source: conditional Poisson regression as in Cameron and Trivedi, "Regression Analysis of Count Data" (2013),
    section 9.4; groups of one (query, object) are the interventional sets of Agarwal et al. (WSDM 2019), the use of
    ranking features is that of Wang et al., "Position Bias Estimation for Unbiased Learning to Rank in Personal
    Search" (WSDM 2018).
    """
    log = ClickLog.of(with_one_spelling(_by_relevance(sessions).some_queries(ENOUGH_SESSIONS)))
    if not log.clicked.any():
        return _assumed()
    counted = Cells.of(log, CERTAIN_BY)
    left = counted.attention_after_clicks if min(counted.attention_after_clicks) < 1 else ()
    depth = -np.log1p(counted.positions.astype(np.float64))[:, None]
    moved = fit_conditional(counted.pairs, counted.looks, counted.clicks, depth)
    error = _error(moved, log, counted)
    if error <= WANTED_ERROR:
        exponent = float(moved.coefficients[0])
        return _estimate(exponent, error, "several positions", (exponent, exponent), left)
    attention = estimate_attention(log, counted, standardised(log.scores, log.queries))
    if attention.standard_error > LARGEST_ERROR:
        return _assumed()
    low, high = attention.exponent - 2 * attention.standard_error, attention.highest
    bounds = (low, high) if np.isfinite(log.scores).any() else (attention.exponent, attention.exponent)
    return _estimate(attention.exponent, attention.standard_error, "fixed rankings", bounds, left)


def _assumed() -> PowerLaw:
    return PowerLaw(ASSUMED_EXPONENT, float("inf"), "assumed", (ASSUMED_EXPONENT, ASSUMED_EXPONENT))


def _estimate(
    exponent: float, error: float, basis: str, bounds: tuple[float, float], left: tuple[float, ...]
) -> PowerLaw:
    return PowerLaw(float(np.clip(exponent, 0.0, GREATEST_EXPONENT)), error, basis, bounds, left)


def _error(fit: ConditionalFit, log: ClickLog, counted: Cells) -> float:
    """Return the standard error of an exponent: from the likelihood, or clustered by client where that is larger."""
    information = float(fit.information[0, 0])
    if information <= _RIDGE:
        return float("inf")
    return max(float(information**-0.5), client_error(fit, log, counted, np.ones(len(counted.pairs), dtype=bool)))
