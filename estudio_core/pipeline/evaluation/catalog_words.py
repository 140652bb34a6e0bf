"""BM25 of the items that an evaluation ranks, over the words that the index reads in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from estudio_core.pipeline.items.parts import SplitItem
from estudio_core.plugin.words import index_words

if TYPE_CHECKING:
    from estudio_core.evaluation.scores import Scores
    from estudio_core.vectordb.index_info import SearchIndexInfo


def catalog_words(index: SearchIndexInfo, items: Sequence[SplitItem], queries: Sequence[str]) -> Scores | None:
    """Return what gives BM25 of `queries` with `items`, in their order; None where the index ranks no words.

    The idf is that of these items.
    """
    from estudio_core.evaluation.scores import word_scores
    from estudio_core.lexical.bm25 import Bm25

    if index.lexical is None:
        return None
    texts = index_words(index, [split.text for split in items], [split.item.payload for split in items])
    return word_scores(Bm25(texts, index.lexical), [list(words) for words in index_words(index, queries)])
