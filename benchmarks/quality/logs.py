"""Simulated clicks for a corpus under a condition. No real user is in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from benchmarks.quality.corpora import Corpus
from estudio_core.clickstream.ranking_data import FineTuningInput
from estudio_core.clickstream.replay import ClickModel, Ranking, replay_clicks

SHOWN = 20
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
        shuffled_share: Share of sessions that show their results in random order.
    """

    name: str
    sessions: int
    eta: float = 1.0
    noise: float = 0.1
    random_share: float = 0.0
    shuffled_share: float = 0.0


def conditions(sessions: int) -> dict[str, Condition]:
    """Return the conditions by name, for a clean log of `sessions` searches."""
    all_conditions = (
        Condition("clean", sessions),
        Condition("strong-bias", sessions, eta=2.0),
        Condition("no-bias", sessions, eta=0.0),
        Condition("random-clicks", sessions, random_share=0.2),
        Condition("tenth", sessions // 10),
        Condition("no-noise", sessions, noise=0.0),  # not harder but easier: what noise costs
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
    log = replay_clicks(
        corpus.judgments.only(answered),
        answered,
        sessions=condition.sessions,
        application=corpus.name,
        end=_END,
        click_model=ClickModel(eta=condition.eta, noise=condition.noise),
        shown=SHOWN,
        shuffled_share=condition.shuffled_share,
        seed=seed,
    )
    rng = np.random.default_rng(seed)
    return [_misplaced(session, condition.random_share, rng) for session in log.training_inputs()]


def _misplaced(session: FineTuningInput, share: float, rng: np.random.Generator) -> FineTuningInput:
    """Return the session with that share of its clicks moved, each to a result drawn among those without a click."""
    weights = list(session.click_weights)
    for place in [i for i, weight in enumerate(weights) if weight > 0]:
        if rng.random() < share:
            weight, weights[place] = weights[place], 0.0
            weights[int(rng.choice([i for i, other in enumerate(weights) if other <= 0]))] = weight
    return replace(session, click_weights=tuple(weights))
