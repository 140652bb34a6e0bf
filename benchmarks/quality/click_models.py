"""Users who read from the top and stop, whom no estimator of attention by position shares its model with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.ranking_data import FineTuningInput
from estudio_core.clickstream.replay import ClickModel

Browsing = Literal["positions", "cascade", "dbn"]
"""positions: each result is looked at by its position, independently (`ClickModel`). cascade: from the top to the first
click, and no further. dbn: from the top, past clicks that did not satisfy."""
PERSEVERANCE = 0.9
"""Chance that a user of the DBN who is not satisfied looks at the next result."""


def cascade(attraction: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return the clicks on results from the top: one at most, on the first that attracts.

    Source: Craswell, Zoeter, Taylor, Ramsey, "An Experimental Comparison of Click Position-Bias Models" (WSDM 2008).

    >>> cascade(np.array([0.0, 1.0, 1.0]), np.random.default_rng(0)).tolist()
    [False, True, False]
    """
    attracts = rng.random(len(attraction)) < attraction
    clicks: NDArray[np.bool_] = attracts & (np.cumsum(attracts) == 1)
    return clicks


def dbn(
    attraction: NDArray[np.float64],
    satisfaction: NDArray[np.float64],
    rng: np.random.Generator,
    perseverance: float = PERSEVERANCE,
) -> NDArray[np.bool_]:
    """Return the clicks on results from the top: until one satisfies, or patience ends.

    Args:
        attraction: Chance of a click on each result once it is looked at, [results].
        satisfaction: Chance that it satisfies once clicked, [results].
        rng: Draws.
        perseverance: Chance to go on after a result that did not satisfy.

    Source: Chapelle and Zhang, "A Dynamic Bayesian Network Click Model for Web Search Ranking" (WWW 2009).

    >>> dbn(np.ones(3), np.array([0.0, 1.0, 0.0]), np.random.default_rng(0), perseverance=1.0).tolist()
    [True, True, False]
    """
    clicks: NDArray[np.bool_] = rng.random(len(attraction)) < attraction
    leaves = (clicks & (rng.random(len(attraction)) < satisfaction)) | (rng.random(len(attraction)) >= perseverance)
    clicks[1:] &= np.cumsum(leaves)[:-1] == 0
    return clicks


def browsed(
    session: FineTuningInput,
    grades: Mapping[str, float],
    browsing: Literal["cascade", "dbn"],
    model: ClickModel,
    rng: np.random.Generator,
) -> FineTuningInput:
    """Return the session with the clicks of such a user in place of its own.

    Args:
        session: What was shown.
        grades: Of the query's results, by id; 0 where absent.
        browsing: The user.
        model: Gives attraction, and, without noise, satisfaction.
        rng: Draws.
    """
    of_results = [grades.get(result, 0.0) for result in session.results]
    attraction = model.attraction(of_results)
    if browsing == "cascade":
        clicks = cascade(attraction, rng)
    else:
        clicks = dbn(attraction, replace(model, noise=0.0).attraction(of_results), rng)
    return replace(session, click_weights=tuple(clicks.astype(float).tolist()))
