"""Users who read from the top: their clicks have the chances that the papers give, and their logs the same searches."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quality.click_models import cascade, dbn
from benchmarks.quality.corpora import Corpus
from benchmarks.quality.logs import conditions, replay
from estudio_core.evaluation.judgments import Judgments

ATTRACTION = np.array([0.5, 0.2, 0.9, 0.4])
SATISFACTION = np.array([0.3, 0.0, 0.8, 0.5])
DRAWS = 20_000


def test_a_cascade_user_clicks_the_first_result_that_attracts_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    clicks = np.array([cascade(ATTRACTION, rng) for _ in range(DRAWS)])
    assert clicks.sum(axis=1).max() == 1
    reached = np.concatenate([[1.0], np.cumprod(1 - ATTRACTION)[:-1]])
    assert clicks.mean(axis=0) == pytest.approx(reached * ATTRACTION, abs=0.012)


def test_a_dbn_user_goes_on_until_a_click_satisfies_or_patience_ends() -> None:
    rng = np.random.default_rng(0)
    clicks = np.array([dbn(ATTRACTION, SATISFACTION, rng, perseverance=0.7) for _ in range(DRAWS)])
    reached = np.concatenate([[1.0], np.cumprod(0.7 * (1 - ATTRACTION * SATISFACTION))[:-1]])
    assert clicks.mean(axis=0) == pytest.approx(reached * ATTRACTION, abs=0.012)
    assert clicks.sum(axis=1).max() > 1


@pytest.mark.parametrize("name", ["cascade", "dbn"])
def test_their_logs_have_the_searches_of_the_clean_one_and_clicks_that_follow_the_grades(name: str) -> None:
    items = {str(i): f"item {i}" for i in range(10)}
    judgments = Judgments({f"query {q}": {str(i): 3.0 * (i == q) for i in range(10)} for q in range(8)})
    corpus = Corpus("toy", items, judgments, tuple(judgments), (), Judgments({}), 16, shown_judged_only=False)
    rankings = {query: [(key, 1.0) for key in items] for query in judgments}
    clean, browsed = (replay(corpus, rankings, conditions(600)[log], seed=3) for log in ("clean", name))
    assert [(s.session_id, s.query, s.results) for s in browsed] == [(s.session_id, s.query, s.results) for s in clean]
    assert [s.click_weights for s in browsed] != [s.click_weights for s in clean]
    clicks = np.array([s.click_weights for s in browsed])
    wanted = np.array([[judgments[s.query][result] > 0 for result in s.results] for s in browsed])
    assert clicks[wanted].mean() > 4 * clicks[~wanted].mean()
    assert (clicks.sum(axis=1).max() == 1) == (name == "cascade")
    assert browsed == replay(corpus, rankings, conditions(600)[name], seed=3)
