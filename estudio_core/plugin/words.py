"""The words of texts, read as a plugin's index reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from estudio_core import database

if TYPE_CHECKING:
    from estudio_core.vectordb.index_info import SearchIndexInfo


def index_words(
    index: SearchIndexInfo, texts: Sequence[str], payloads: Sequence[Mapping[str, Any] | None] | None = None
) -> list[dict[str, float]]:
    """Return how often each word occurs in each text.

    Args:
        index: Says how words are read, and which field of a payload is a title.
        texts: Texts of items, or queries.
        payloads: Beside each text of an item what may hold its title; None, for one or for all: there is none.
    """
    from estudio_core.lexical.reading import read_words
    from estudio_core.vectordb.objects import TITLE_LIMIT, words_of

    titles = None
    if index.lexical is not None and index.lexical.title and payloads is not None:
        titles = [str((payload or {}).get(index.lexical.title) or "")[: TITLE_LIMIT // 4] for payload in payloads]
    with database.connect() as connection:
        return read_words(
            connection,
            index.text_config,
            [words_of(text) for text in texts],
            titles,
            1.0 if index.lexical is None else index.lexical.title_weight,
        )
