"""The words of texts, as PostgreSQL reads them for the index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from estudio_core.streams import batched

if TYPE_CHECKING:
    import psycopg

_AT_ONCE = 2_000


def read_words(
    conn: psycopg.Connection,
    text_config: str,
    texts: Sequence[str],
    titles: Sequence[str] | None = None,
    title_weight: float = 1.0,
) -> list[dict[str, float]]:
    """Return how often each word occurs in each text; a word of its title counts `title_weight` times more.

    Args:
        conn: Connection to Estudio's database, whose function `estudio.words` the index uses too.
        text_config: Text search configuration, as of `SearchIndexInfo`.
        texts: Texts of items or queries.
        titles: A title for each text; None: there are none.
        title_weight: As of `Bm25Settings`.
    """
    found: list[dict[str, float]] = []
    pairs = list(zip(texts, titles or [""] * len(texts), strict=True))
    for batch in batched(pairs, _AT_ONCE):
        counts: list[dict[str, float]] = [{} for _ in batch]
        rows = conn.execute(
            "SELECT t.place, w.word, w.occurrences"
            " FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS t (body, title, place),"
            " estudio.word_counts(estudio.object_words(%s::regconfig, t.title, t.body), %s) AS w",
            ([text for text, _ in batch], [title for _, title in batch], text_config, title_weight),
        )
        for place, word, occurrences in rows:
            counts[place - 1][word] = occurrences
        found += counts
    return found
