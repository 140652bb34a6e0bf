"""The test that keeps a model as it was: it knows positions, believes no noise, and sees what a comparison does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest

from lightning_modules.click_evidence import ClickEvidence, click_evidence
from lightning_modules.conditional_logit import ShownList

RESULTS = 10


def shown(query: int, clicked: Any, positions: Any, before: Any, after: Any) -> ShownList:
    return ShownList(query, clicked, np.stack([np.log1p(positions), before, after - before], axis=1))


def log(
    rng: np.random.Generator, queries: int, change: float, noise: float = 0.0, learned: float = 0.0
) -> list[ShownList]:
    """Two sessions a query over a list by the score before; clicks follow position and relevance, or mean nothing.

    `change`: how far the score after follows relevance, beside noise of its own. `learned`: how far positions.
    """
    lists = []
    for query in range(queries):
        relevance = rng.normal(size=RESULTS)
        before = relevance + 2 * rng.normal(size=RESULTS)
        order = np.argsort(-before)
        relevance, before = relevance[order], before[order]
        positions = np.arange(RESULTS, dtype=np.float64)
        after = before + 0.3 * (change * relevance + rng.normal(size=RESULTS)) + learned * positions
        chances = np.exp(relevance - np.log1p(positions))
        chances = (1 - noise) * chances / chances.sum() + noise / RESULTS
        for _ in range(2):
            clicked = np.arange(RESULTS) == rng.choice(RESULTS, p=chances)
            lists.append(shown(query, clicked, positions, before, after))
    return lists


def test_a_change_that_means_nothing_gives_a_standard_normal() -> None:
    rng = np.random.default_rng(1)
    found = [click_evidence(log(rng, 60, change=0.0, noise=0.3)).z for _ in range(200)]
    assert kstest(found, "norm").pvalue > 0.01


@pytest.mark.parametrize("learned", [-0.05, 0.05])
def test_a_change_that_follows_positions_alone_is_no_gain(learned: float) -> None:
    rng = np.random.default_rng(2)
    found = np.array([click_evidence(log(rng, 60, change=0.0, learned=learned)).z for _ in range(100)])
    assert abs(found.mean()) < 0.3


@pytest.mark.parametrize("noise", [0.0, 0.33])
def test_a_change_towards_relevance_is_seen_through_noise(noise: float) -> None:
    evidence = click_evidence(log(np.random.default_rng(3), 200, change=0.6, noise=noise))
    assert evidence.queries == 200
    assert evidence.speaks_for_the_change
    harm = click_evidence(log(np.random.default_rng(3), 200, change=-0.6, noise=noise))
    assert harm.z < -2
    assert not harm.speaks_for_the_change


def test_repeated_sessions_of_a_query_are_no_further_queries() -> None:
    once = log(np.random.default_rng(4), 30, change=0.5)
    assert click_evidence(once * 5).z == pytest.approx(click_evidence(once).z)
    assert click_evidence(once * 5).queries == 30


@pytest.mark.parametrize(
    "made",
    [
        list,
        lambda: [shown(0, np.zeros(3, dtype=bool), np.arange(3.0), np.zeros(3), np.ones(3))],
        lambda: [shown(0, np.arange(3) == 1, np.arange(3.0), np.ones(3), np.ones(3))],
    ],
    ids=["no session", "no click", "no change"],
)
def test_what_tells_nothing_leaves_the_change_alone(made: Callable[[], list[ShownList]]) -> None:
    evidence = click_evidence(made())
    assert evidence.z == 0
    assert evidence.speaks_for_the_change


def test_few_queries_have_to_speak_against_a_change_and_many_for_it() -> None:
    assert ClickEvidence(-1.9, 5).speaks_for_the_change
    assert not ClickEvidence(-2.1, 5).speaks_for_the_change
    assert not ClickEvidence(1.0, 300).speaks_for_the_change
    assert ClickEvidence(1.7, 100_000).speaks_for_the_change
