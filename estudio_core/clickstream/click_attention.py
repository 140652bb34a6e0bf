"""How attention falls with the position in held-out clicks, told apart from how good the results there are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.click_log import Cells, ClickLog, Floats, Ints

GREATEST_EXPONENT = 3.0
KNOTS = (0.05, 0.5, 0.95)
"""Shares of the scores at which the curve that explains clicks by them may bend. A straight line in the score, which
clicks do not follow where few results are good, puts 0.3 too much down to the position (PBM, exponent 0)."""
SLACK = 0.05
"""Least by which an exponent is taken for less than was estimated, where a gain has to be certain: scores explain
clicks by a curve only roughly, and attention is a power of the position only roughly."""
PRIOR_CLICKS = 2.0
"""Clicks' worth of belief that a query's results are as attractive as those of others with the same scores."""
FOLD = 4
"""Positions that a screen shows at once, about: above and below it attention may fall otherwise."""
CONTRADICTED = 2.5
"""Standard errors by which the slope of a part has to differ from that of the whole list to be another one."""
_STEPS = 60
_RIDGE = 1e-6
_MOST_LEVERAGE = 0.99  # a query that alone tells a coefficient moves it a hundredfold, not infinitely
_SINGULAR = 1e12
_NONE = -50.0  # logarithm of no looks


@dataclass(frozen=True)
class ConditionalFit:
    """A conditional Poisson regression.

    Attributes:
        coefficients: [k], of the features.
        information: [k, k], of the centred features.
        centred: Features less the mean of what the coefficients are told beside, [cells, k].
        expected: Counts that the fit expects, [cells].
    """

    coefficients: Floats
    information: Floats
    centred: Floats
    expected: Floats

    def influence(self, query: Ints, counts: Floats, queries: int) -> Floats:
        """Return by how much each query moves the coefficients, [queries, k]: by leaving it out (jackknife).

        Source: Bell, McCaffrey, "Bias Reduction in Standard Errors for Linear Regression with Multi-Stage Samples"
        (Survey Methodology 2002): where few clicks far down carry an estimate, errors without it are too small.
        """
        width = len(self.coefficients)
        residual = counts - self.expected
        slopes = np.stack([np.bincount(query, weights=residual * c, minlength=queries) for c in self.centred.T], axis=1)
        of_query = np.empty((queries, width, width))
        for row in range(width):
            for column in range(row + 1):
                weight = self.centred[:, row] * self.centred[:, column] * self.expected
                of_query[:, row, column] = np.bincount(query, weights=weight, minlength=queries)
                of_query[:, column, row] = of_query[:, row, column]
        left = self.information - _MOST_LEVERAGE * of_query + 1e-9 * np.eye(width) * (1e-9 + np.trace(self.information))
        moved: Floats = np.linalg.solve(left, slopes[:, :, None])[:, :, 0]
        return moved


@dataclass(frozen=True)
class Attention:
    """Attention `(position + 1) ** -exponent` where nothing above was clicked.

    Attributes:
        exponent: 0 to 3.
        standard_error: Clustered by query; 0 where the plugin gave the exponent, inf where the log does not tell.
        highest: The exponent if all of the fall in clicks came from the position, and none from better results above.
        influence: [queries], what each query moves `exponent` by.
        evenest: The exponent, or that of a part of the list where the log contradicts it there.
    """

    exponent: float
    standard_error: float
    highest: float
    influence: Floats
    evenest: float

    @classmethod
    def given(cls, exponent: float, queries: int) -> Attention:
        """Return attention that is known."""
        return cls(exponent, 0.0, exponent, np.zeros(queries), exponent)

    @property
    def is_known(self) -> bool:
        """False where the log does not tell."""
        return bool(np.isfinite(self.standard_error))

    @property
    def lowest(self) -> float:
        """The exponent with which a gain has to be certain: taken for too even, attention favours what was shown."""
        margin = max(SLACK, self.standard_error / 2) if self.standard_error else 0.0
        return max(self.evenest - margin, 0.0)

    def __str__(self) -> str:
        """Say it in a line."""
        if not self.is_known:
            return "not to be estimated from this log"
        if self.standard_error == 0:
            return f"(position + 1)^-{self.exponent:.2f}, given by the plugin"
        return f"(position + 1)^-e, e = {self.exponent:.2f} ± {self.standard_error:.2f}, {self.highest:.2f} at most"


def estimate_attention(log: ClickLog, cells: Cells, scores: Floats) -> Attention:
    """Estimate the exponent from clicks, positions, and the scores that results were ranked by.

    Of a query's clicks, given their number, each place gets its share in proportion to looks x attention(position) x
    f(score): f is a natural cubic spline, so that two results of nearly the same score, one above the other, are as
    good in expectation whatever f is, and only their places differ. Where results stood at several positions, that
    speaks too. Clicks after a first one count as `Cells.of` says.

    Args:
        log: Held-out clicks.
        cells: The same, counted.
        scores: [pairs], see `standardised`; NaN where that is not known. Pairs without speak for `highest` alone; where
            no pair has one, nothing tells attention from merit, and `highest` is all there is.

    Source: conditional Poisson regression, Cameron and Trivedi, "Regression Analysis of Count Data" (2013), section
    9.4; ranking scores as a control for relevance as in Wang et al. (WSDM 2018); near ties as in Narayanan and
    Kalyanam, "Position Effects in Search Advertising: A Regression Discontinuity Approach" (Marketing Science 2015).
    """
    query = log.queries[cells.pairs]
    depth = -np.log1p(cells.positions.astype(np.float64))
    scored = np.isfinite(scores)[cells.pairs]
    known = np.where(np.isfinite(scores), scores, 0.0)
    features = np.column_stack([depth, ScoreCurve.of(scores[np.isfinite(scores)]).features(known)[cells.pairs]])
    if not (scored & (np.abs(known[cells.pairs]) > 0)).any():
        scored, features = np.ones(len(query), dtype=bool), depth[:, None]

    def slope(here: NDArray[np.bool_], columns: Floats) -> tuple[float, float, Floats]:
        """Return exponent, standard error and influence of a regression over some cells; inf where it tells nothing."""
        clicks = cells.clicks[here]
        found = fit_conditional(query[here], cells.looks[here], clicks, columns[here])
        if not clicks.any() or not np.linalg.cond(found.information) < _SINGULAR:
            return 1.0, float("inf"), np.zeros(log.query_count)
        influence = found.influence(query[here], clicks, log.query_count)[:, 0]
        error = max(float(np.sqrt((influence**2).sum())), client_error(found, log, cells, here))
        return float(found.coefficients[0]), error if error > 0 else float("inf"), influence

    everywhere = np.ones(len(query), dtype=bool)
    exponent, error, influence = slope(scored, features)
    if not np.isfinite(error):
        return Attention(1.0, float("inf"), 1.0, influence, 1.0)
    evenest, highest = exponent, slope(everywhere, depth[:, None])[0]
    for here in (cells.positions < FOLD, cells.positions >= FOLD):
        of_part, of_error, _ = slope(here & scored, features)
        if of_part < exponent - CONTRADICTED * of_error:
            evenest = min(evenest, of_part)
        steepest, of_error, _ = slope(here, depth[:, None])
        if steepest > highest + CONTRADICTED * of_error:
            highest = steepest
    exponent, evenest, highest = (float(e) for e in np.clip([exponent, evenest, highest], 0.0, GREATEST_EXPONENT))
    return Attention(exponent, error, max(highest, exponent), influence, evenest)


def client_error(fit: ConditionalFit, log: ClickLog, cells: Cells, here: NDArray[np.bool_]) -> float:
    """Return the standard error of the first coefficient, clustered by client; a session without one is on its own.

    What one client does in many sessions is not as many observations. 0 where there are fewer than two clusters.

    Args:
        fit: Of the cells `here`.
        log: Its impressions.
        cells: The log, counted.
        here: Which cells were fitted, bool [cells].

    Source: Liang and Zeger, "Longitudinal Data Analysis Using Generalized Linear Models" (Biometrika 1986).
    """
    client = np.where(log.clients < 0, len(log.clients) + np.arange(len(log.clients)), log.clients)
    cluster = np.unique(client, return_inverse=True)[1]
    count = int(cluster.max(initial=-1)) + 1
    if count < 2:
        return 0.0
    place = np.full(len(here), -1)
    place[here] = np.arange(int(here.sum()))
    of_fit = place[cells.of_impression]
    used = of_fit >= 0
    ratios = np.array([1.0, *cells.attention_after_clicks])
    cell = cells.of_impression[used]
    looks = ratios[log.clicks_above[used]] / np.maximum(cells.looks[cell], 1e-12)
    residual = log.clicked[used] - fit.expected[of_fit[used]] * looks
    owner = cluster[log.sessions[used]]
    direction = np.linalg.pinv(fit.information)[0]
    moved = np.bincount(owner, weights=residual * (fit.centred[of_fit[used]] @ direction), minlength=count)
    return float(np.sqrt((moved**2).sum() * count / (count - 1)))


def standardised(values: Floats, queries: Ints) -> Floats:
    """Return scores less the mean of their query, over its standard deviation; 0 where a query has but one score.

    NaN stays, and counts for nothing.

    >>> standardised(np.array([1.0, 3.0, 7.0]), np.array([0, 0, 1])).tolist()
    [-1.0, 1.0, 0.0]
    """
    known = np.isfinite(values)
    count = np.maximum(np.bincount(queries, weights=known), 1)
    away = values - (np.bincount(queries, weights=np.where(known, values, 0.0)) / count)[queries]
    spread = np.sqrt(np.bincount(queries, weights=np.where(known, away, 0.0) ** 2) / count)[queries]
    unknown = np.where(known, 0.0, np.nan)
    return np.divide(away, spread, out=unknown, where=known & (spread > 1e-9 * (1 + np.abs(values))))


@dataclass(frozen=True)
class ScoreCurve:
    """A natural cubic spline: bent between the knots, linear beyond."""

    knots: tuple[float, float, float]

    @classmethod
    def of(cls, scores: Floats) -> ScoreCurve:
        """Return the curve with knots at `KNOTS` of the scores; straight where they are hardly different."""
        low, middle, high = (float(knot) for knot in np.quantile(scores, KNOTS)) if len(scores) else (0.0, 0.0, 0.0)
        return cls((low, middle, high))

    @property
    def is_straight(self) -> bool:
        """True where the knots leave no room to bend."""
        low, middle, high = self.knots
        return not low < middle < high

    def features(self, scores: Floats) -> Floats:
        """Return what a curve is a sum of, [n, 2]; [n, 1] for a straight one."""
        return scores[:, None] if self.is_straight else np.column_stack([scores, self._bent(scores, 3)])

    def slopes(self, scores: Floats) -> Floats:
        """Return the derivatives of the features."""
        ones = np.ones(len(scores))
        return ones[:, None] if self.is_straight else np.column_stack([ones, 3 * self._bent(scores, 2)])

    def _bent(self, scores: Floats, power: int) -> Floats:
        low, middle, high = self.knots
        first, second, third = (_above(scores - knot, power) for knot in self.knots)
        bent: Floats = (first - third) / (high - low) - (second - third) / (high - middle)
        return bent


def _above(values: Floats, power: int) -> Floats:
    """Return positive parts to the power of 2 or 3: `**` takes ten times as long."""
    positive: Floats = np.maximum(values, 0)
    return positive * positive if power == 2 else positive * positive * positive


def fit_levels(
    query: Ints,
    looks: Floats,
    counts: Floats,
    features: Floats,
    queries: int,
    outlasts: float,
    start: ConditionalFit | None = None,
    level: Floats | None = None,
    rounds: int = 3,
    steps: int = _STEPS,
) -> tuple[ConditionalFit, Floats]:
    """Fit a regression in which each query has a level of its own, shrunk towards 1 (a gamma frailty).

    Where users leave at a click, how much of a list is looked at depends on what was clicked, and levels that know it
    make what stands low look better than it is: they count by as much as attention `outlasts` a click.

    Returns the fit, and the levels that follow from it.
    """
    level = np.ones(queries) if level is None else level
    found = np.bincount(query, weights=counts, minlength=queries)
    together = np.zeros(len(query), dtype=np.int64)
    begin = None if start is None else start.coefficients
    for _ in range(rounds):
        fit = fit_conditional(together, looks * level[query], counts, features, begin, steps)
        begin = fit.coefficients
        expected = np.bincount(query, weights=fit.expected, minlength=queries) / level
        level = ((found + PRIOR_CLICKS) / (expected + PRIOR_CLICKS)) ** outlasts
    return fit, level


def beside_levels(fit: ConditionalFit, query: Ints, queries: int, outlasts: float) -> ConditionalFit:
    """Return a fit with the information that is left where levels of queries are fitted beside it (`fit_levels`).

    A level takes up what is common to a query's cells, as far as it is not shrunk.
    """
    expected = np.bincount(query, weights=fit.expected, minlength=queries)
    taken = outlasts / (expected + PRIOR_CLICKS)  # x expected: the share of a query's mean that its level takes up
    common = [np.bincount(query, weights=fit.expected * column, minlength=queries) for column in fit.centred.T]
    centred = fit.centred - np.stack([(taken * of)[query] for of in common], axis=1)
    return replace(fit, information=(centred * fit.expected[:, None]).T @ fit.centred, centred=centred)


def fit_conditional(
    group: Ints,
    looks: Floats,
    counts: Floats,
    features: Floats,
    start: Floats | None = None,
    steps: int = _STEPS,
) -> ConditionalFit:
    """Spread each group's total of `counts` over its cells in proportion to looks x exp(features x coefficients).

    By Newton's method, halving steps that do not improve: the likelihood is concave.

    Args:
        group: [cells], number of the group: that of the query, or 0 for all cells together.
        looks: [cells], exposure.
        counts: [cells].
        features: [cells, k].
        start: Coefficients to begin with.
        steps: Most of Newton's.
    """
    groups = int(group.max(initial=-1)) + 1
    offset = np.where(looks > 0, np.log(np.maximum(looks, 1e-300)), _NONE)
    everything = max(float(counts.sum()), 1e-12)

    def summed(values: Floats) -> Floats | float:
        """Return the sum over the group of each cell."""
        if groups < 2:
            return float(values.sum())
        return np.bincount(group, weights=values, minlength=groups)[group].astype(np.float64)

    of_cell = summed(counts)
    width = features.shape[1]
    ridge = _RIDGE * everything * np.eye(width)

    def shares(coefficients: Floats) -> tuple[float, Floats]:
        rate = offset + np.clip(features @ coefficients, -40.0, 40.0)
        weight = np.exp(rate)
        total = summed(weight)
        likelihood = counts @ (rate - np.log(np.maximum(total, 1e-300))) - 0.5 * coefficients @ ridge @ coefficients
        return float(likelihood), weight / np.maximum(total, 1e-300)

    def centre(share: Floats) -> Floats:
        return np.stack([column - summed(share * column) for column in features.T], axis=1)

    coefficients = np.zeros(width) if start is None else start
    likelihood, share = shares(coefficients)
    for _ in range(steps):
        centred, expected = centre(share), of_cell * share
        information = (centred * expected[:, None]).T @ centred
        step = np.linalg.solve(
            information + ridge + 1e-12 * np.eye(width), features.T @ (counts - expected) - ridge @ coefficients
        )
        size = 1.0
        while True:
            better, share_then = shares(coefficients + size * step)
            if better >= likelihood - 1e-9 or size < 1e-3:
                break
            size /= 2
        gained, likelihood, share = better - likelihood, better, share_then
        coefficients = coefficients + size * step
        if gained < 1e-4:
            break
    centred, expected = centre(share), of_cell * share
    information = (centred * expected[:, None]).T @ centred
    return ConditionalFit(coefficients, information, centred, expected)
