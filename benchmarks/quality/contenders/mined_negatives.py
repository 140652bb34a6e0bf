"""sentence-transformers as its documentation recommends for pairs: cached losses over negatives of its own miner."""

from __future__ import annotations

import io
import tempfile
import time
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path

import numpy as np
from datasets import Dataset, disable_progress_bars
from sentence_transformers.util import mine_hard_negatives

from benchmarks.quality.contenders.sentence_transformers_trainer import clicked_rows, quiet, same_model, train
from benchmarks.quality.task import Outcome, Task, base_model, lengths

RELATIVE_MARGIN = 0.05
"""A negative is at least 5 % less similar to the query than the clicked item: the TopK-PercPos of NV-Retriever
(Moreira et al., arXiv:2407.15831), which the miner's documentation recommends. Its other arguments are as they come."""


def on_mined_negatives(task: Task) -> Outcome:
    """Mine negatives of the clicked items among all items with the base model, then train on them.

    What the miner encodes, once and without gradients, is stated as `mining_tokens` and no part of the budget, as what
    Estudio encodes to validate is not; its seconds are.
    """
    clicked = clicked_rows(task, "CachedMultipleNegativesRankingLoss")
    began = time.monotonic()
    rows, mining_tokens = mined_rows(task, clicked)
    mining_s = time.monotonic() - began
    outcome = train(task, rows, "CachedMultipleNegativesRankingLoss")
    return replace(outcome, seconds=outcome.seconds + mining_s, stated={"mining_tokens": mining_tokens})


def mined_rows(task: Task, clicked: list[tuple[str, str, str]]) -> tuple[list[tuple[str, str, str]], int]:
    """Return (query, clicked, mined negative) for the clicks of `clicked`, and the tokens that mining encoded.

    A pair that was clicked several times gets one of its negatives after the other; one for which the miner finds
    none keeps the skipped result that it has.
    """
    pairs = list(dict.fromkeys((query, item) for query, item, _ in clicked))
    texts = list(dict.fromkeys(task.corpus.items.values()))
    ours = base_model(task)
    disable_progress_bars()
    with tempfile.TemporaryDirectory(prefix="estudio-bench-") as folder, quiet(), redirect_stderr(io.StringIO()):
        triplets = mine_hard_negatives(
            Dataset.from_dict({"anchor": [query for query, _ in pairs], "positive": [item for _, item in pairs]}),
            same_model(ours, Path(folder) / "model"),
            corpus=texts,
            relative_margin=RELATIVE_MARGIN,
            verbose=False,
        )
    found: dict[tuple[str, str], list[str]] = {}
    for query, item, negative in zip(triplets["anchor"], triplets["positive"], triplets["negative"], strict=True):
        found.setdefault((query, item), []).append(negative)
    turn = np.random.default_rng(task.seed).integers(0, 2**31, len(pairs))
    drawn = dict(zip(pairs, turn.tolist(), strict=True))
    rows = []
    for query, item, skipped in clicked:
        of_pair = found.get((query, item), [skipped])
        rows.append((query, item, of_pair[drawn[query, item] % len(of_pair)]))
        drawn[query, item] += 1
    known = lengths(ours, [*texts, *(query for query, _ in pairs)])
    return rows, sum(known.values())
