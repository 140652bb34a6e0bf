"""Words of a corpus: read as the index reads them, weighed as a library weighs them, tuned on development queries."""

from __future__ import annotations

from pathlib import Path

import bm25s
import numpy as np
import pytest

from benchmarks.quality.corpora import Corpus
from benchmarks.quality.evaluation import figures
from benchmarks.quality.words import item_words, tuned, word_scores_of
from estudio_core.evaluation.judgments import Judgments
from estudio_core.lexical.bm25 import unit
from estudio_core.lexical.settings import Bm25Settings, Fusion
from estudio_core.models.embedding_model import EmbeddingModel

LONG = "lamp lamp lamp lamp lamp " + " ".join(f"part{i}" for i in range(40))


def corpus_of(items: dict[str, str], wanted: dict[str, str], name: str = "words") -> Corpus:
    held_out = Judgments({query: {item: 3.0} for query, item in wanted.items()})
    return Corpus(name, items, Judgments({}), (), tuple(wanted), held_out, max_tokens=16, shown_judged_only=False)


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.3, 0.9)])
def test_scores_are_those_of_a_library_over_the_words_that_the_index_reads(
    estudio_home: Path, k1: float, b: float
) -> None:
    rng = np.random.default_rng(0)
    nouns = ["lamps", "chair", "the", "shining", "XK-4711", "tables", "red"]
    items = {str(i): " ".join(rng.choice(nouns, rng.integers(2, 9))) for i in range(60)}
    corpus = corpus_of(items, {"lamp tables": "0"})
    words = item_words(corpus)
    assert {word for counts in words for word in counts} >= {"lamp", "chair", "shine", "xk4711"}
    assert "the" not in words[0]
    settings = Bm25Settings(k1=k1, b=b)
    scores = word_scores_of(corpus, settings)(("table lamp", "xk4711"))(np.arange(2))
    reference = bm25s.BM25(k1=k1, b=b, method="lucene")
    # A text is its words again: the library is given what PostgreSQL read.
    reference.index([[w for w, n in counts.items() for _ in range(int(n))] for counts in words], show_progress=False)
    expected = reference.get_scores(["tabl", "lamp"]) * (k1 + 1) / unit(len(items))
    assert scores[0] == pytest.approx(expected, rel=1e-5)
    assert (scores[1] > 0).tolist() == ["XK-4711" in text for text in items.values()]


def test_k1_and_b_are_those_that_rank_development_queries_best(estudio_home: Path) -> None:
    items = {"long": LONG, "short": "lamp", "other": "chair", "more": "table"}
    repeated, found = tuned([corpus_of(items, {"lamp": "long"})])
    assert found[f"k1 {repeated.k1:g}, b {repeated.b:g}"] == max(found.values()) == 1
    assert found["k1 0.3, b 0.9"] < 1
    assert len(found) == 24
    short, found = tuned([corpus_of(items, {"lamp": "short"})])
    assert found["k1 0.3, b 0.9"] == 1
    assert (short.k1, short.b) != (repeated.k1, repeated.b)


def test_both_lanes_are_judged_and_a_weight_of_nothing_leaves_the_vectors(
    estudio_home: Path, minilm_path: Path
) -> None:
    items = {"number": "garden hose XK-4711", "near": "notebook computer accessories", "far": "red lamp"}
    corpus = corpus_of(items, {"laptop gadgets xk4711": "number"})
    model = EmbeddingModel(str(minilm_path), max_length=16)
    alone, heavy = (figures(model, corpus, Fusion(weight=weight)) for weight in (0.0, 100.0))
    assert alone["fused_ndcg"] == alone["ndcg"] == heavy["ndcg"]
    assert alone["ndcg"]["unseen"][0] < 1
    assert heavy["fused_ndcg"]["unseen"] == [1.0]
    assert heavy["fused_judged_share"]["unseen"] == [pytest.approx(1 / 3, abs=1e-6)]
