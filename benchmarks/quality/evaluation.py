"""The final figures: nDCG@10 full and judged over the whole corpus, by exact search, with words and without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from benchmarks.quality.corpora import Corpus
from benchmarks.quality.logs import SHOWN
from benchmarks.quality.words import word_scores_of
from estudio_core.clickstream.replay import Ranking
from estudio_core.evaluation.evaluate import FULL, JUDGED, RATED, evaluate_scores, rank
from estudio_core.evaluation.scores import EncodedCatalog, Scores, fused_scores, similarity_scores
from estudio_core.lexical.settings import Fusion
from estudio_core.models.embedding_model import EmbeddingModel
from estudio_core.vectordb.index_info import SearchIndexInfo
from lightning_modules.precision import autocast, choose_precision

BATCH = 64
FIGURES = {"ndcg": FULL, "judged_ndcg": JUDGED, "judged_share": RATED}
"""Metrics by their names in the files of results: both figures, and how much of each top ten is rated."""

FUSED = "fused_"
"""Before the names of figures with the lexical lane beside the vectors."""

Figures = dict[str, dict[str, list[float]]]
"""By figure, then by group, of every query."""


def encode_catalog(model: EmbeddingModel, corpus: Corpus) -> EncodedCatalog:
    """Return the vectors of all items of the corpus."""
    with autocast(choose_precision("auto"), model.device):
        vectors = model.encode_items(list(corpus.items.values()), BATCH).float().cpu().numpy()
    return EncodedCatalog.from_parts({key: vectors[row : row + 1] for row, key in enumerate(corpus.items)})


def figures(model: EmbeddingModel, corpus: Corpus, fusion: Fusion, catalog: EncodedCatalog | None = None) -> Figures:
    """Return `FIGURES` of a model that ranks by similarity alone, and, under `FUSED` names, by words as well.

    `catalog` is what `encode_catalog` returned, where that is known.
    """
    catalog = catalog or encode_catalog(model, corpus)
    index = SearchIndexInfo(dimensions=model.dimensions)
    words_of = word_scores_of(corpus)

    @cache
    def similarity(queries: tuple[str, ...]) -> Scores:
        return similarity_scores(model.encode_queries(list(queries), BATCH).cpu().numpy(), catalog, index)

    def fused(queries: tuple[str, ...]) -> Scores:
        return fused_scores(similarity(queries), words_of(queries), fusion)

    alone, both = (judged(corpus, catalog.rows, scores_of) for scores_of in (similarity, fused))
    return alone | {FUSED + name: found for name, found in both.items()}


def judged(corpus: Corpus, rows: Mapping[str, int], scores_of: Callable[[tuple[str, ...]], Scores]) -> Figures:
    """Return `FIGURES` of whatever gives scores, by group of `Corpus.judged`.

    Args:
        corpus: Its queries and judgments.
        rows: Column of each item in the scores, by id.
        scores_of: From queries to what gives the scores of their rows.
    """
    found: Figures = {name: {} for name in FIGURES}
    for group, (asked, grades) in corpus.judged.items():
        metrics = evaluate_scores(asked, scores_of(asked), rows, grades)
        for name, metric in FIGURES.items():
            found[name][group] = [round(value, 6) for value in metrics.values[metric].tolist()]
    return found


def shown_rankings(model: EmbeddingModel, corpus: Corpus, catalog: EncodedCatalog | None = None) -> dict[str, Ranking]:
    """Return what the base model shows for each training query: its best items, judged ones only where asked for.

    `catalog` is as of `figures`.
    """
    queries = list(corpus.judgments)
    catalog = catalog or encode_catalog(model, corpus)
    vectors = model.encode_queries(queries, BATCH).cpu().numpy()
    depth = len(catalog.object_ids) if corpus.shown_judged_only else SHOWN
    best = rank(vectors, catalog, SearchIndexInfo(dimensions=model.dimensions), depth)
    shown: dict[str, Ranking] = {}
    for query, rows, values in zip(queries, best.rows.tolist(), best.scores.tolist(), strict=True):
        grades = corpus.judgments[query]
        listed = [(catalog.object_ids[row], value) for row, value in zip(rows, values, strict=True)]
        shown[query] = [hit for hit in listed if not corpus.shown_judged_only or hit[0] in grades][:SHOWN]
    return shown
