"""In-batch softmax on the judgments themselves: what the same budget reaches without any doubt of clicks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.quality.contenders.sentence_transformers_trainer import train
from benchmarks.quality.evaluation import FUSED, figures
from benchmarks.quality.task import Outcome, Task
from estudio_core.lexical.settings import Fusion

DRAWS = 10
"""Judged items that the oracle draws for a query; some queries have over a thousand."""
RATES = (5e-5, 1e-4, 2e-4, 4e-4)
"""What the search tries."""


def oracle(task: Task) -> Outcome:
    """Train at the rate that the other contenders of the same trainer have."""
    return train(task, _rows(task), "MultipleNegativesRankingLoss")


def oracle_searched(task: Task) -> Outcome:
    """Train at each of `RATES` and keep what ranks the log's development queries best, words beside vectors.

    Tokens and sessions are those of the kept training, seconds those of the search.
    """
    development = replace(
        task.corpus, name=f"{task.corpus.name}-search", seen=tuple(dict.fromkeys(task.data.queries("dev"))), unseen=()
    )
    reached: dict[str, float] = {}
    best: Outcome | None = None
    seconds = 0.0
    for rate in RATES:
        outcome = train(task, _rows(task), "MultipleNegativesRankingLoss", rate)
        values = figures(outcome.model, development, Fusion())[FUSED + "ndcg"]["seen"]
        seconds += outcome.seconds
        if best is None or np.mean(values) > max(reached.values()):
            best = outcome
        reached[f"{rate:g}"] = round(float(np.mean(values)), 6)
    assert best is not None  # there are rates
    return replace(best, seconds=seconds, stated={"development": reached})


def _rows(task: Task) -> list[tuple[str, str]]:
    """Return (query, item) for relevant items of the training queries, drawn by grade, in random order."""
    rng = np.random.default_rng(task.seed)
    trained = set(task.data.queries("train"))
    texts = task.corpus.items
    pairs = []
    for query, grades in task.corpus.judgments.items():
        good = [object_id for object_id, grade in grades.items() if grade > 0 and object_id in texts]
        if query in trained and good:
            gains = np.array([2.0 ** grades[object_id] - 1 for object_id in good])
            drawn = rng.choice(len(good), min(DRAWS, len(good)), replace=False, p=gains / gains.sum())
            pairs += [(query, texts[good[i]]) for i in drawn]
    return [pairs[i] for i in rng.permutation(len(pairs))]
