"""The words of a corpus, as PostgreSQL reads them for the product's index, and BM25 over them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.corpora import Corpus
from estudio_core import database
from estudio_core.clickstream.dataset_words import DatasetWords
from estudio_core.evaluation.evaluate import FULL, evaluate_scores
from estudio_core.evaluation.scores import Scores, word_scores
from estudio_core.lexical.bm25 import Bm25
from estudio_core.lexical.reading import read_words
from estudio_core.lexical.settings import Bm25Settings
from estudio_core.settings import get_settings

TEXT_CONFIG = "english"
FOLDER = Path(".estudio") / "bench-quality"
"""Of the benchmark's own installation: its database reads words, and keeps nothing."""
GRID = {"k1": (0.3, 0.6, 0.9, 1.2, 1.6, 2.0), "b": (0.3, 0.6, 0.75, 0.9)}
"""What is tried on development queries."""

Counts = list[dict[str, float]]


def use_scratch_database() -> None:
    """Let words be read by the benchmark's own embedded database, or by one that the environment names."""
    os.environ["ESTUDIO_HOME"] = str(FOLDER.resolve())
    get_settings.cache_clear()
    database.migrate()


def word_scores_of(corpus: Corpus, settings: Bm25Settings | None = None) -> Callable[[tuple[str, ...]], Scores]:
    """Return what gives BM25 of queries with the corpus's items, in their order."""
    index = _index(tuple(corpus.items.values()), settings or Bm25Settings())
    return lambda queries: word_scores(index, _read(queries))


def tuned(corpora: Sequence[Corpus]) -> tuple[Bm25Settings, dict[str, float]]:
    """Return the k1 and b of `GRID` that rank held-out queries of development corpora best, and what each reached.

    Args:
        corpora: Development corpora; a query that several hold out counts once for each.

    The figure is the mean of full nDCG@10 over queries, the first settings winning a tie.
    """
    grid = [Bm25Settings(k1=k1, b=b) for k1, b in product(*GRID.values())]
    means = [float(np.mean(np.concatenate([_held_out(corpus, each) for corpus in corpora]))) for each in grid]
    reached = {f"k1 {each.k1:g}, b {each.b:g}": round(mean, 6) for each, mean in zip(grid, means, strict=True)}
    return grid[int(np.argmax(means))], reached


def dataset_words(corpus: Corpus, items: Iterable[str], queries: Iterable[str]) -> DatasetWords:
    """Return the words of some items, by id, and queries: what a training that judges the fused ranking is given."""
    wanted, asked = set(items), tuple(dict.fromkeys(queries))
    return DatasetWords(
        {key: counts for key, counts in zip(corpus.items, item_words(corpus), strict=True) if key in wanted},
        dict(zip(asked, _read(asked), strict=True)),
    )


def item_words(corpus: Corpus) -> Counts:
    """Return how often each word occurs in each item, in the corpus's order; read once per process."""
    return _read(tuple(corpus.items.values()))


def _held_out(corpus: Corpus, settings: Bm25Settings) -> NDArray[np.float64]:
    scores = word_scores_of(corpus, settings)(corpus.unseen)
    rows = {key: row for row, key in enumerate(corpus.items)}
    return evaluate_scores(corpus.unseen, scores, rows, corpus.held_out).values[FULL]


@lru_cache(maxsize=1)  # several divisions of the queries share the items
def _index(texts: tuple[str, ...], settings: Bm25Settings) -> Bm25:
    return Bm25(_read(texts), settings)


@cache
def _read(texts: tuple[str, ...]) -> Counts:
    with database.connect() as connection:
        return read_words(connection, TEXT_CONFIG, texts)
