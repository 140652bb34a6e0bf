"""Better, not better, or not to be told from this log: what held-out clicks say of a candidate."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from estudio_core.clickstream.click_attention import standardised
from estudio_core.clickstream.click_log import ClickLog
from estudio_core.evaluation.bootstrap import Estimate
from estudio_core.evaluation.click_gain import ClickGain, Gain, K, RankedPairs
from estudio_core.evaluation.click_ranking import rank_shown
from estudio_core.evaluation.gate_settings import GateSettings

Verdict = Literal["better", "not better", "cannot tell"]

LEAST_CLICKED_QUERIES = 30
"""Clicked queries below which no interval over queries is to be trusted: a few of them decide it."""
_LIKE_GAINING = 0.6
"""Correlation with the logged scores of a made-up candidate that is judged with about the error of one that gains 0.05
(`make bench-gate`): a gain is less certain than no gain, as attention's own error bears on it more."""
_POWER = 0.84
"""Normal deviate of 80 %: the chance with which a gain is to be found."""
_DISCOUNTS = sum(1 / math.log2(rank + 2) for rank in range(K))


class ClickVerdict(BaseModel):
    """What clicks say of a candidate, and the figures behind it; gains in nDCG@10 on what was shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Verdict
    reason: str
    least: Estimate
    """With attention as even as the log allows, what was never shown counted against the candidate."""
    most: Estimate
    """With attention as steep as the log allows, where that matters; what was never shown counted for the candidate."""
    attention: str
    attention_after_click: float
    """Attention below a click over that without one: 1 position-based, 0 a cascade."""
    sessions: int
    clicked_queries: int
    unshown: float
    """Share of the candidate's top ten that no session showed, weighted by discount."""
    modelled: float
    """Share of the estimate that rests on the click model, where too few looked: the most that clipping can bias."""
    sessions_needed: int | None
    """Held-out sessions with which a gain of `told_gain` is found in 80 % of cases; None where nothing says."""


def judge_clicks(
    estimator: ClickGain, champion: RankedPairs, candidate: RankedPairs, settings: GateSettings
) -> ClickVerdict:
    """Return what the clicks of a log say of a candidate.

    Better: the lower end of the gain exceeds `minimum_gain`, both with the evenest and with the steepest attention that
    the log allows. One end alone can be led astray: attention taken for too even favours the order that was
    shown, for too steep its reverse. Not better: the upper end of the most that the gain can be lies below
    `worthwhile_gain`, at both.
    """
    attention, log = estimator.attention, estimator.log

    def interval(gain: Gain) -> tuple[Estimate, Estimate]:
        return (
            estimator.interval(gain.low, gain.standard_error, settings.confidence),
            estimator.interval(gain.high, gain.standard_error, settings.confidence),
        )

    first = estimator.at(champion, candidate, attention.lowest)
    least, most = interval(first)
    if least.low > settings.minimum_gain or most.high < settings.worthwhile_gain:  # else nothing can follow from it
        other = interval(estimator.at(champion, candidate, attention.highest))
        least, most = min(least, other[0], key=lambda gain: gain.low), max(most, other[1], key=lambda gain: gain.high)
    unshown = float(estimator.weights @ candidate.unshown) / _DISCOUNTS
    needed = sessions_needed(first.standard_error, len(log.clients), settings)
    verdict, reason = _verdict(estimator, least, most, unshown, needed, settings)
    return ClickVerdict(
        verdict=verdict,
        reason=reason,
        least=least,
        most=most,
        attention=str(attention),
        attention_after_click=estimator.cells.attention_after_click,
        sessions=len(log.clients),
        clicked_queries=log.clicked_queries,
        unshown=unshown,
        modelled=first.modelled,
        sessions_needed=needed,
    )


def sessions_needed(standard_error: float, sessions: int, settings: GateSettings) -> int | None:
    """Return with how many held-out sessions a gain of `told_gain` is found in 80 % of cases, if errors fall as usual.

    None where the error of the log at hand is not known.

    >>> sessions_needed(0.035, 1000, GateSettings(confidence=0.95, told_gain=0.05))
    3842
    """
    from scipy.stats import norm  # type: ignore[import-untyped]

    if not math.isfinite(standard_error) or standard_error <= 0 or not sessions:
        return None
    wanted = settings.told_gain / (float(norm.ppf((1 + settings.confidence) / 2)) + _POWER)
    return math.ceil(sessions * (standard_error / wanted) ** 2)


def sessions_for_decision(log: ClickLog, settings: GateSettings, exponent: float | None = None) -> int | None:
    """Return how many held-out sessions a decision by clicks is likely to need, before there is a candidate.

    By the error with which a made-up one is judged. None where the log does not tell.

    Args:
        log: Held-out clicks.
        settings: `told_gain` and level.
        exponent: Of attention, where the plugin gives it.
    """
    shows = np.maximum(np.bincount(log.pairs, minlength=len(log.queries)), 1)
    places = np.bincount(log.pairs, weights=log.positions, minlength=len(log.queries)) / shows
    scores = log.scores if np.isfinite(log.scores).all() else -places
    estimator = ClickGain(log, scores, exponent)
    if not estimator.attention.is_known:
        return None
    noise = np.random.default_rng(0).standard_normal(len(scores))
    other = _LIKE_GAINING * standardised(scores, log.queries) + np.sqrt(1 - _LIKE_GAINING**2) * noise
    gain = estimator.at(rank_shown(log, scores), rank_shown(log, other), estimator.attention.lowest)
    return sessions_needed(gain.standard_error, len(log.clients), settings)


def _verdict(
    estimator: ClickGain, least: Estimate, most: Estimate, unshown: float, needed: int | None, settings: GateSettings
) -> tuple[Verdict, str]:
    log = estimator.log
    fewest = max(LEAST_CLICKED_QUERIES, settings.minimum_queries)
    if log.clicked_queries < fewest:
        return "cannot tell", (
            f"{log.clicked_queries} held-out queries were clicked, {fewest - log.clicked_queries} more are needed."
        )
    if not estimator.attention.is_known:
        return "cannot tell", (
            "How attention falls with the position could not be estimated from these clicks. Give "
            "`examination_exponent`, or log several rankings."
        )
    span = f"between {_interval(least)} and {_interval(most)}"
    if most.high < settings.worthwhile_gain:
        return "not better", f"The gain on what was shown lies {span}, below {settings.worthwhile_gain:+.3f}."
    if unshown > settings.maximum_unshown:
        return "cannot tell", (
            f"{unshown:.0%} of the candidate's top ten were never shown, at most {settings.maximum_unshown:.0%} may "
            "be: nobody could click them. Show both models' results side by side, or have people judge."
        )
    if least.low > settings.minimum_gain:
        return "better", f"The gain on what was shown is {_interval(least)} at the least, and may be {_interval(most)}."
    sessions = len(log.clients)
    more = f" About {needed:,} held-out sessions would do, there are {sessions:,}." if (needed or 0) > sessions else ""
    return "cannot tell", f"The gain on what was shown lies {span}.{more}"


def _interval(gain: Estimate) -> str:
    return f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
