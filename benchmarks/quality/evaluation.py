"""The final figure: nDCG@10 of a model over the whole corpus against human judgments, by exact search."""

from __future__ import annotations

import numpy as np

from benchmarks.quality.corpora import Corpus
from benchmarks.quality.logs import SHOWN
from estudio_core.clickstream.replay import Ranking
from estudio_core.evaluation.evaluate import EncodedCatalog, evaluate_judgments, rank
from estudio_core.evaluation.judgments import Judgments
from estudio_core.models.embedding_model import EmbeddingModel
from estudio_core.vectordb.index_info import SearchIndexInfo
from lightning_modules.precision import autocast, choose_precision

BATCH = 64


def encode_catalog(model: EmbeddingModel, corpus: Corpus) -> EncodedCatalog:
    """Return the vectors of all items of the corpus."""
    with autocast(choose_precision("auto"), model.device):
        vectors = model.encode_items(list(corpus.items.values()), BATCH).float().cpu().numpy()
    return EncodedCatalog.from_parts({key: vectors[row : row + 1] for row, key in enumerate(corpus.items)})


def scores(model: EmbeddingModel, corpus: Corpus) -> dict[str, list[float]]:
    """Return nDCG@10 of every query, by group of `Corpus.judged`."""
    catalog = encode_catalog(model, corpus)
    return {name: _ndcg(model, catalog, queries, grades) for name, (queries, grades) in corpus.judged.items()}


def shown_rankings(model: EmbeddingModel, corpus: Corpus) -> dict[str, Ranking]:
    """Return what the base model shows for each training query: its best items, judged ones only where asked for."""
    queries = list(corpus.judgments)
    catalog = encode_catalog(model, corpus)
    vectors = model.encode_queries(queries, BATCH).cpu().numpy()
    depth = len(catalog.object_ids) if corpus.shown_judged_only else SHOWN
    best = rank(vectors, catalog, SearchIndexInfo(dimensions=model.dimensions), depth)
    shown: dict[str, Ranking] = {}
    for query, rows, values in zip(queries, best.rows.tolist(), best.scores.tolist(), strict=True):
        grades = corpus.judgments[query]
        listed = [(catalog.object_ids[row], value) for row, value in zip(rows, values, strict=True)]
        shown[query] = [hit for hit in listed if not corpus.shown_judged_only or hit[0] in grades][:SHOWN]
    return shown


def _ndcg(
    model: EmbeddingModel, catalog: EncodedCatalog, queries: tuple[str, ...], judgments: Judgments
) -> list[float]:
    vectors = model.encode_queries(list(queries), BATCH).cpu().numpy()
    index = SearchIndexInfo(dimensions=model.dimensions)
    found = evaluate_judgments(queries, vectors, catalog, index, judgments)
    return [round(float(value), 6) for value in np.asarray(found.values["ndcg@10"])]
