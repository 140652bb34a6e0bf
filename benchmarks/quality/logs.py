"""Simulated clicks for a corpus under a condition. No real user is in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from benchmarks.quality.click_models import Browsing, browsed
from benchmarks.quality.corpora import Corpus
from estudio_core.clickstream.ranking_data import FineTuningInput
from estudio_core.clickstream.replay import ClickModel, Ranking, replay_clicks
from estudio_core.errors import ConfigurationError

SHOWN = 20
SPARSE_QUERIES = 800
"""Most queries of a sparse log."""
_END = datetime(2026, 1, 1, tzinfo=UTC)  # fixed: ids and times of a log depend on its arguments only


@dataclass(frozen=True)
class Condition:
    """What a log is like.

    Attributes:
        name: Of the table's row.
        sessions: Searches.
        eta: Examination of the position p, counted from 0, is (p + 1)**-eta.
        noise: Chance that a result of grade 0 is clicked once it was looked at.
        random_share: Share of clicks that fall on a result drawn at random instead, whatever it is.
        wrong_share: Share of clicks that fall on an irrelevant result instead, drawn by the chance to be looked at.
        each_query: Searches of each query, of so many queries as make up `sessions`; None: some are asked more often.
        shuffled_share: Share of sessions that show their results in random order.
        browsing: How users look at results; `eta` is of those that look by position.
    """

    name: str
    sessions: int
    eta: float = 1.0
    noise: float = 0.1
    random_share: float = 0.0
    wrong_share: float = 0.0
    each_query: int | None = None
    shuffled_share: float = 0.0
    browsing: Browsing = "positions"

    def __post_init__(self) -> None:
        """Refuse a share of wrong clicks that noise would add to."""
        if self.wrong_share and (self.noise or self.random_share):
            raise ConfigurationError(
                f"{self.name}: with a share of wrong clicks ({self.wrong_share:g}), noise ({self.noise:g}) and random "
                f"clicks ({self.random_share:g}) must be 0, or more clicks than that are wrong."
            )


def conditions(sessions: int, queries: int = SPARSE_QUERIES) -> dict[str, Condition]:
    """Return the conditions by name.

    Args:
        sessions: Of a clean log.
        queries: Training queries of the corpus; a sparse log asks up to 800 of them, twice each.
    """
    pairs = 2 * min(queries, SPARSE_QUERIES)
    all_conditions = (
        Condition("clean", sessions),
        Condition("strong-bias", sessions, eta=2.0),
        Condition("no-bias", sessions, eta=0.0),
        Condition("random-clicks", sessions, random_share=0.2),
        Condition("tenth", sessions // 10),
        Condition("no-noise", sessions, noise=0.0),  # not harder but easier: what noise costs
        Condition("cascade", sessions, browsing="cascade"),
        Condition("dbn", sessions, browsing="dbn"),
        Condition("sparse-third-wrong", pairs, noise=0.0, wrong_share=1 / 3, each_query=2),
        Condition("sparse-two-thirds-wrong", pairs, noise=0.0, wrong_share=2 / 3, each_query=2),
    )
    return {condition.name: condition for condition in all_conditions}


def replay(corpus: Corpus, rankings: dict[str, Ranking], condition: Condition, seed: int) -> list[FineTuningInput]:
    """Return the sessions of a log over what the base model shows.

    Args:
        corpus: Gives the grades.
        rankings: What is shown for each training query, best first.
        condition: Click model and number of searches.
        seed: Of the simulation.
    """
    answered = {query: ranking for query, ranking in rankings.items() if len(ranking) > 1}
    rng = np.random.default_rng(seed)
    model = ClickModel(eta=condition.eta, noise=condition.noise)
    found: list[FineTuningInput] = []
    for number, queries in enumerate(_asked_together(sorted(answered), condition, seed)):
        log = replay_clicks(
            corpus.judgments.only(queries)
            if len(queries) > 1
            else {query: corpus.judgments[query] for query in queries},
            answered,
            sessions=condition.each_query or condition.sessions,
            application=f"{corpus.name}-{number}" if condition.each_query else corpus.name,
            end=_END,
            click_model=model,
            shown=SHOWN,
            shuffled_share=condition.shuffled_share,
            seed=seed + 1_000 * number,  # one seed for all would draw the same clicks for each query
        )
        found += log.training_inputs()
    if condition.browsing != "positions":
        judgments = corpus.judgments
        found = [browsed(each, judgments[each.query], condition.browsing, model, rng) for each in found]
    if condition.wrong_share:
        return [
            _wrong(session, condition.wrong_share, corpus.judgments[session.query], model, rng) for session in found
        ]
    return [_misplaced(session, condition.random_share, rng) for session in found]


def _asked_together(queries: list[str], condition: Condition, seed: int) -> list[list[str]]:
    """Return the queries of one replay each: all, or, where each is asked equally often, one by one."""
    if condition.each_query is None:
        return [queries]
    drawn = np.random.default_rng(seed).permutation(len(queries))[: condition.sessions // condition.each_query]
    return [[queries[place]] for place in sorted(drawn)]


def _wrong(
    session: FineTuningInput, share: float, grades: Mapping[str, float], model: ClickModel, rng: np.random.Generator
) -> FineTuningInput:
    """Return the session with that share of its clicks moved, each to an irrelevant result without a click."""
    weights = np.array(session.click_weights)
    chance = model.examination(np.arange(len(weights))) * [not grades.get(result) for result in session.results]
    for place in np.flatnonzero(weights > 0):
        free = chance * (weights <= 0)
        if rng.random() < share and free.any():
            weights[rng.choice(len(weights), p=free / free.sum())], weights[place] = weights[place], 0.0
    return replace(session, click_weights=tuple(weights.tolist()))


def _misplaced(session: FineTuningInput, share: float, rng: np.random.Generator) -> FineTuningInput:
    """Return the session with that share of its clicks moved, each to a result drawn among those without a click."""
    weights = list(session.click_weights)
    for place in [i for i, weight in enumerate(weights) if weight > 0]:
        if rng.random() < share:
            weight, weights[place] = weights[place], 0.0
            weights[int(rng.choice([i for i, other in enumerate(weights) if other <= 0]))] = weight
    return replace(session, click_weights=tuple(weights))
