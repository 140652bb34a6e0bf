"""The weight of words is learned from clicks whose truth is known here, and moves no further than is certain."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_modules.conditional_logit import ShownList
from lightning_modules.fusion_weight import LEAST, LEAST_QUERIES, learned_weight

DEFAULT = 0.12


def clicks(
    queries: int, weight: float, *, seed: int = 0, attention: float = 1.0, sense: float = 8.0
) -> list[ShownList]:
    """Sessions of people who look down a list ordered by the default sum and click by a sum of another weight."""
    rng = np.random.default_rng(seed)
    lists = []
    for query in range(queries):
        similarity, words = rng.normal(0.4, 0.15, 20), rng.gamma(1.0, 0.6, 20)
        order = np.argsort(-(similarity + DEFAULT * words))
        similarity, words = similarity[order], words[order]
        positions = np.arange(20.0)
        looked = rng.random((4, 20)) < (positions + 1) ** -attention
        chance = 1 / (1 + np.exp(-sense * (similarity + weight * words - 0.8)))
        for session in looked & (rng.random((4, 20)) < chance):
            lists.append(ShownList(query, session, np.stack([np.log1p(positions), similarity, words], axis=1)))
    return lists


@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_a_weight_that_clicks_contradict_moves_towards_what_they_say(weight: float) -> None:
    found = learned_weight(clicks(600, weight), DEFAULT)
    assert found.low is not None
    assert found.high is not None
    nearer = found.low if weight > DEFAULT else max(found.high, LEAST)
    assert found.weight == pytest.approx(nearer)
    assert abs(found.weight - weight) < abs(DEFAULT - weight)
    assert min(DEFAULT, weight) <= found.weight <= max(DEFAULT, weight)


@pytest.mark.parametrize("attention", [0.0, 1.0, 2.0])
def test_where_a_result_stood_is_not_taken_for_what_it_is_worth(attention: float) -> None:
    moved = [learned_weight(clicks(200, DEFAULT, seed=s, attention=attention), DEFAULT).weight for s in range(20)]
    assert moved == pytest.approx([DEFAULT] * 20, abs=0.03)
    assert np.mean(moved) == pytest.approx(DEFAULT, abs=0.005)


def test_of_few_queries_and_of_clicks_at_random_nothing_is_learned() -> None:
    assert learned_weight([], DEFAULT).weight == DEFAULT
    few = learned_weight(clicks(LEAST_QUERIES - 1, 0.4), DEFAULT)
    assert (few.weight, few.low) == (DEFAULT, None)
    assert learned_weight(clicks(300, 0.4, sense=0.0), DEFAULT).weight == DEFAULT
