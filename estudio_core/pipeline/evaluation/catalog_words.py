"""BM25 of the items that an evaluation ranks, over the words that the index reads in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from estudio_core import database
from estudio_core.pipeline.items.parts import SplitItem
from estudio_core.vectordb.objects import TEXT_LIMIT

if TYPE_CHECKING:
    from estudio_core.evaluation.scores import Scores
    from estudio_core.vectordb.index_info import SearchIndexInfo


def catalog_words(index: SearchIndexInfo, items: Sequence[SplitItem], queries: Sequence[str]) -> Scores | None:
    """Return what gives BM25 of `queries` with `items`, in their order; None where the index ranks no words.

    The idf is that of these items: of a large catalog, of the sample that is ranked.
    """
    from estudio_core.evaluation.scores import word_scores
    from estudio_core.lexical.bm25 import Bm25
    from estudio_core.lexical.reading import read_words

    settings = index.lexical
    if settings is None:
        return None
    titles = [str((split.item.payload or {}).get(settings.title or "", "")) for split in items]
    with database.connect() as connection:
        texts = read_words(
            connection,
            index.text_config,
            [split.text[:TEXT_LIMIT] for split in items],
            titles if settings.title else None,
            settings.title_weight,
        )
        asked = read_words(connection, index.text_config, queries)
    return word_scores(Bm25(texts, settings), [list(words) for words in asked])
