"""What a candidate would gain on what was shown: a counterfactual, doubly robust estimate from held-out clicks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.stats import t as student  # type: ignore[import-untyped]

from estudio_core.clickstream.click_attention import (
    PRIOR_CLICKS,
    Attention,
    ConditionalFit,
    ScoreCurve,
    beside_levels,
    estimate_attention,
    fit_levels,
    standardised,
)
from estudio_core.clickstream.click_log import Cells, ClickLog, Floats, Ints
from estudio_core.evaluation.bootstrap import Estimate

K = 10
LEAST_LOOKED_AT = 0.1
"""Clip: where a result was looked at in a smaller share of its sessions, the click model makes up for the rest. An
inverse of more than 10 would let single clicks far down decide (exponent 2: position 10 is looked at once in 100)."""
_FEW_SESSIONS = 10.0
"""Sessions at which a query weighs half as much as one with very many: those of few say little but noise."""
_STEP = 0.05  # of the exponent, for a slope
_STEPS_OF_SHARE = 8
_CLOSE_ENOUGH = 0.04
_SAME = 0.75
"""Squared correlation of logged scores with a candidate's difference from them above which its own say nothing more:
that of one whose order correlates with the logged one by less than -0.5, as a reversed one does."""
_ROUNDING = 0.02  # standard deviations by which scores may differ from the logged ones and be theirs
_SHARES = (-0.5, 2.0)  # below 0, scores know worse than nothing


@dataclass(frozen=True)
class RankedPairs:
    """Where a model puts what a log showed.

    Attributes:
        discounts: [pairs], 1 / log2(rank + 1); 0 below the top ten.
        unshown: [queries], discounts of that part of the top ten that no session showed, summed.
        scores: [pairs].
    """

    discounts: Floats
    unshown: Floats
    scores: Floats


@dataclass(frozen=True)
class Gain:
    """A gain in nDCG@10 at one exponent, as the log can bound it.

    `low` counts what was never shown as the worst of what was, where the candidate puts it, and as the best, where the
    champion does; `high` the other way round. Both are of `standard_error`.
    """

    low: float
    high: float
    standard_error: float
    modelled: float
    """Share of the estimate that the click model makes up for, as too few looked: the clip's possible bias."""


class ClickGain:
    """Estimates gains of candidates from one log.

    Attraction of a result = model + (reward - looks x model) / max(looks, clip): the clicks correct what a model of
    the scores expects, as far as the result was looked at (doubly robust, with self-normalised looks). The model is a
    conditional Poisson regression on both models' scores. A gain is the sum over results of attraction x change of
    discount, over the ideal sum: nDCG@10 on what was shown, as a ratio of means.

    Source: Dudík, Langford, Li, "Doubly Robust Policy Evaluation and Learning" (ICML 2011); propensities by position:
    Joachims, Swaminathan, Schnabel (WSDM 2017), Agarwal et al. (WSDM 2019); clipping, doubly robust estimates for
    clicks: Oosterhuis, "Doubly Robust Estimation for Correcting Position Bias in Click Feedback" (TOIS 2023).
    """

    def __init__(self, log: ClickLog, fallback_scores: Floats, exponent: float | None = None) -> None:
        """Count the log and estimate its attention.

        Args:
            log: Held-out clicks.
            fallback_scores: [pairs], the champion's: stand in for a query where the log does not say of all of its
                results by what they were ranked.
            exponent: Of attention, where the plugin gives it.
        """
        self.log, self.cells = log, Cells.of(log)
        unknown = np.bincount(log.queries, weights=~np.isfinite(log.scores), minlength=log.query_count)[log.queries] > 0
        scores = np.where(unknown, fallback_scores, log.scores)
        self._scores = standardised(scores, log.queries)
        self._curve = ScoreCurve.of(self._scores)
        self._depth = -np.log1p(self.cells.positions.astype(np.float64))
        self.attention = (
            estimate_attention(log, self.cells, self._scores)
            if exponent is None
            else Attention.given(exponent, log.query_count)
        )
        self._rewards: Floats = np.bincount(
            self.cells.pairs, weights=self.cells.rewards, minlength=len(log.queries)
        ).astype(np.float64)
        self._shown = np.bincount(log.pairs, minlength=len(log.queries)).astype(np.float64)
        self._found = self._of_queries(self._rewards)
        self._query = log.queries[self.cells.pairs]
        self._models: dict[float, tuple[ConditionalFit, Floats]] = {}
        self._ideals: dict[float, float] = {}
        asked = log.sessions_of_query
        self.weights: Floats = asked / (asked + _FEW_SESSIONS)
        self.weights /= self.weights.sum()

    def _of_queries(self, values: Floats) -> Floats:
        """Return sums over the pairs of each query."""
        return np.bincount(self.log.queries, weights=values, minlength=self.log.query_count).astype(np.float64)

    @property
    def effective_queries(self) -> float:
        """How many equally weighted queries would be as certain (Kish)."""
        return float(1.0 / (self.weights**2).sum())

    def at(self, champion: RankedPairs, candidate: RankedPairs, exponent: float) -> Gain:
        """Return the gain if attention falls with `exponent`, with the error that the exponent's own brings."""
        fit, curve = self._model_of(
            exponent, [standardised(side.scores, self.log.queries) for side in (champion, candidate)]
        )
        change, last = candidate.discounts - champion.discounts, self._ranked_last(candidate)

        def bounds(exponent: float, coefficients: Floats) -> tuple[Floats, Floats]:
            """Return the lowest and the highest gain of each query."""
            attraction, _ = self._attraction(exponent, coefficients, curve)
            floor, ceiling = self._of_unshown(attraction, (champion, candidate), last)
            gains = self._of_queries(change * attraction)
            low = gains + candidate.unshown * floor - champion.unshown * ceiling
            return low, gains + candidate.unshown * ceiling - champion.unshown * floor

        low, high = bounds(exponent, fit.coefficients)
        scale = self._ideal(exponent)
        mean = float(self.weights @ low)
        influence: Floats = self.weights * (low - mean) + self._influence_of_floor(
            exponent, fit, curve, candidate, last
        )
        moves = fit.influence(self._query, self.cells.rewards, self.log.query_count)
        for column, step in enumerate(_STEP / (np.abs(curve).max(axis=0) + 1e-9)):
            moved = fit.coefficients.copy()
            moved[column] += step
            slope = (self.weights @ bounds(exponent, moved)[0] - mean) / step
            influence = influence + slope * moves[:, column]
        if self.attention.standard_error:
            influence = influence + self._influence_of_attention(exponent, fit, bounds)
        attraction, modelled = self._attraction(exponent, fit.coefficients, curve)
        variance = float((influence**2).sum()) / scale**2 + self._between_clients(change, exponent, attraction, scale)
        weight = np.abs(change * attraction) * self.weights[self.log.queries]
        share = float(weight @ modelled / weight.sum()) if weight.sum() > 0 else 0.0
        return Gain(mean / scale, float(self.weights @ high) / scale, float(np.sqrt(variance)), share)

    def _influence_of_attention(
        self, exponent: float, fit: ConditionalFit, bounds: Callable[[float, Floats], tuple[Floats, Floats]]
    ) -> Floats:
        """Return what each query moves the lowest gain by through the exponent, [queries].

        Coefficients follow the exponent: by those of a regression of depth on the features.
        """
        turned = -np.linalg.pinv(fit.information) @ (fit.centred.T @ (fit.expected * self._depth))
        ends = [
            self.weights @ bounds(exponent + sign * _STEP, fit.coefficients + sign * _STEP * turned)[0]
            for sign in (-1, 1)
        ]
        return np.asarray((ends[1] - ends[0]) / (2 * _STEP) * self.attention.influence)

    def interval(self, mean: float, standard_error: float, confidence: float) -> Estimate:
        """Return Student's interval over queries."""
        reach = student.ppf((1 + confidence) / 2, max(self.effective_queries - 1, 1)) * standard_error
        return Estimate(mean=mean, low=mean - reach, high=mean + reach, n=self.log.clicked_queries)

    def _looks(self, exponent: float) -> Floats:
        looks = self.cells.looks * self._attention_at(exponent)
        return np.bincount(self.cells.pairs, weights=looks, minlength=len(self._shown)).astype(np.float64)

    def _model(self, exponent: float) -> tuple[ConditionalFit, Floats]:
        """Fit the click model without candidates: the reward of a look is a curve of the scores (`fit_levels`)."""
        if exponent not in self._models:
            self._models[exponent] = self._fitted(exponent, self._curve.features(self._scores))
        return self._models[exponent]

    def _model_of(self, exponent: float, sides: Sequence[Floats]) -> tuple[ConditionalFit, Floats]:
        """Fit the click model with the scores of champion and candidate: a curve of a mixture of them and the logged.

        A share for each says how much it knows beside the order that was shown, so that clicks at the top, of which
        there are many, tell what to expect further down. A champion that served the sessions knows nothing beside them;
        another one has to be heard like the candidate, which would be flattered else. By Gauss and Newton: the slope of
        the curve times the difference of scores is a feature, whose coefficient is the step of the share.

        Args:
            exponent: Of attention.
            sides: Standardised scores, [pairs] each.

        Returns the fit, and its features by pair.
        """
        fit, level = self._model(exponent)
        differences = [scores - self._scores for scores in sides]
        told = np.array([of for of in differences if of.std() > _ROUNDING and not self._turned(of)]).reshape(
            -1, len(self._scores)
        )
        curve, shares, features = fit.coefficients, np.zeros(len(told)), self._curve.features(self._scores)
        steps = _STEPS_OF_SHARE if len(told) else 0
        for number in range(steps):
            mixed = self._scores + shares @ told
            features = np.column_stack([self._curve.features(mixed), *((self._curve.slopes(mixed) @ curve) * told)])
            start = replace(fit, coefficients=np.append(curve, np.zeros(len(told))))
            fit, level = self._fitted(exponent, features, start, level, rounds=1, steps=2)
            curve, step = fit.coefficients[: -len(told)], np.clip(fit.coefficients[-len(told) :], -0.4, 0.4)
            if np.abs(step).max() < _CLOSE_ENOUGH or number == steps - 1:
                break
            shares = np.clip(shares + step, *_SHARES)
        cells, queries = self.cells, self.log.query_count
        return beside_levels(fit, self._query, queries, cells.attention_after_click), features

    def _turned(self, difference: Floats) -> bool:
        """Return whether scores are little but the logged ones turned round."""
        return bool(np.corrcoef(self._scores, difference)[0, 1] ** 2 > _SAME)

    def _fitted(
        self,
        exponent: float,
        features: Floats,
        start: ConditionalFit | None = None,
        level: Floats | None = None,
        **limits: int,
    ) -> tuple[ConditionalFit, Floats]:
        cells = self.cells
        looks = cells.looks * self._attention_at(exponent)
        of_cell, outlasts = features[cells.pairs], cells.attention_after_click
        return fit_levels(
            self._query, looks, cells.rewards, of_cell, self.log.query_count, outlasts, start, level, **limits
        )

    def _attention_at(self, exponent: float) -> Floats:
        """Return attention by cell."""
        return np.asarray(np.exp(exponent * self._depth))

    def _expected(self, exponent: float, coefficients: Floats, curve: Floats) -> tuple[Floats, Floats]:
        """Return what the click model expects of a look at each pair, and how often it was looked at."""
        log, looks = self.log, self._looks(exponent)
        power = curve @ coefficients
        model = np.exp(np.clip(power - power.max(initial=0.0), -40.0, 0.0))
        total = float(looks @ model)
        model = model * (self._rewards.sum() / total if total > 0 else 0.0)
        found, expected = self._found, self._of_queries(looks * model)
        model = model * ((found + PRIOR_CLICKS) / (expected + PRIOR_CLICKS))[log.queries]
        return np.minimum(model, self._most), looks

    @cached_property
    def _most(self) -> float:
        """Highest reward per look that the model may claim: that of a result which is clicked whenever it is seen."""
        clicks = float(self.cells.clicks.sum())
        return float(self.cells.rewards.sum()) / clicks if clicks else 1.0

    def _attraction(self, exponent: float, coefficients: Floats, curve: Floats) -> tuple[Floats, Floats]:
        """Return attraction of each pair, and the share of it that the model makes up for."""
        model, looks = self._expected(exponent, coefficients, curve)
        enough = np.maximum(looks, np.maximum(LEAST_LOOKED_AT * self._shown, 1.0))
        return model + (self._rewards - looks * model) / enough, 1.0 - looks / enough

    def _ideal(self, exponent: float) -> float:
        """Return the mean DCG@10 of the best order of what was shown, as the click model sees it without candidates."""
        queries = self.log.queries
        if exponent not in self._ideals:
            features = self._curve.features(self._scores)
            model, _ = self._expected(exponent, self._model(exponent)[0].coefficients, features)
            order = np.lexsort((-model, queries))
            rank = np.arange(len(order)) - np.searchsorted(queries[order], queries[order])
            discount = np.where(rank < K, 1.0 / np.log2(rank + 2.0), 0.0)
            total = np.bincount(queries[order], weights=model[order] * discount, minlength=self.log.query_count)
            self._ideals[exponent] = float(self.weights @ total)
        return self._ideals[exponent] or 1.0

    def _ranked_last(self, candidate: RankedPairs) -> Ints:
        """Return the pairs that the candidate puts into the last quarter of what was shown for their query."""
        queries = self.log.queries
        order = np.lexsort((-candidate.scores, queries))
        place = np.arange(len(order)) - np.searchsorted(queries[order], queries[order])
        size = np.bincount(queries, minlength=self.log.query_count)[queries[order]]
        last: Ints = order[place >= np.minimum(np.ceil(0.75 * size), size - 1)]
        return last

    def _of_unshown(self, attraction: Floats, sides: tuple[RankedPairs, ...], last: Ints) -> tuple[float, float]:
        """Return the mean attraction of what the candidate ranks last of what was shown, and of the best rank."""
        weight = self.weights[self.log.queries]
        floor = max(float(np.average(attraction[last], weights=weight[last])), 0.0) if len(last) else 0.0
        best = floor
        for side in sides:
            rank = np.flatnonzero(side.discounts > 0)
            place = np.rint(np.exp2(1.0 / side.discounts[rank])).astype(np.int64)
            total = np.bincount(place, weights=weight[rank], minlength=1)
            sums = np.bincount(place, weights=weight[rank] * attraction[rank], minlength=1)
            best = max(best, float((sums[total > 0] / total[total > 0]).max(initial=0.0)))
        return floor, best

    def _influence_of_floor(
        self, exponent: float, fit: ConditionalFit, curve: Floats, candidate: RankedPairs, last: Ints
    ) -> Floats:
        """Return what each query moves the lowest gain by through the value of what was never shown, [queries]."""
        if not len(last):
            return np.zeros(self.log.query_count)
        attraction, _ = self._attraction(exponent, fit.coefficients, curve)
        weight, query = self.weights[self.log.queries[last]], self.log.queries[last]
        floor = max(float(np.average(attraction[last], weights=weight)), 0.0)
        moved = np.bincount(query, weights=weight * (attraction[last] - floor), minlength=self.log.query_count)
        return np.asarray(float(self.weights @ candidate.unshown) * moved / weight.sum())

    def _between_clients(self, change: Floats, exponent: float, attraction: Floats, scale: float) -> float:
        """Return the covariance of what one client did for different queries: added to the variance between queries.

        Source: Cameron, Gelbach, Miller, "Robust Inference With Multiway Clustering" (JBES 2011).
        """
        log, cells = self.log, self.cells
        known = log.clients >= 0
        if np.unique(log.clients[known]).size == int(known.sum()):
            return 0.0
        looks = self._looks(exponent)
        enough = np.maximum(looks, np.maximum(LEAST_LOOKED_AT * self._shown, 1.0))
        each = np.divide(cells.looks, np.bincount(cells.of_impression, minlength=len(cells.looks)))
        seen = (each * self._attention_at(exponent))[cells.of_impression]
        query = log.queries[log.pairs]
        part = self.weights[query] * (change / enough)[log.pairs] * (log.rewards - seen * attraction[log.pairs]) / scale
        client = log.clients[log.sessions]
        kept = client >= 0
        _, both = np.unique(client[kept] * log.query_count + query[kept], return_inverse=True)
        apart = (np.bincount(both, weights=part[kept]) ** 2).sum()
        together = (np.bincount(client[kept], weights=part[kept]) ** 2).sum()
        return max(float(together - apart), 0.0)
