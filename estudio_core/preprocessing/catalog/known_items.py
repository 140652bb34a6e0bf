"""Known items: queries whose one right answer is known without anybody's click or rating, because it was drawn of it.

Such a test leaks easily; this is how it does not:

- The piece that a query is drawn from (the first field or sentence, mostly a title, or a run of words) is taken out of
  the item's text before it is ranked. Words alone find what the rest of the text happens to say again, and that only.
- All other items lose the like. Were they ranked whole, the words of a query would stand in their titles and in that of
  the right item not: words would speak against it. (400 made-up products whose descriptions share no word with titles,
  ranked so: a model of 0.43 nDCG@10 by vectors alone had 0.03 with words.)
- A query all of whose words stand in the rest is left out, and so is one with no word that a second item has: the first
  needs no learning, the second cannot be learned.
- Training sees nothing of a known item, neither the piece nor the rest; nor any item that has the same words as a
  whole, or a piece or a rest in common with it; nor any of the queries, in whatever spelling.

Training and test cut items alike, so a gain says that the model has learned which pieces of *this* catalog belong
together. It does not say that people ask for such pieces: where there are judgments, these have their say as well.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from estudio_core.clickstream.query_retriever import query_key
from estudio_core.preprocessing.catalog.pairs import CatalogPair, words_of
from estudio_core.preprocessing.catalog.query_writers import QueryWriter, WordSamples

_MOST_KNOWN = 0.2
"""Of all pairs: the others are to learn from."""
_SEED = 1
"""Of the queries of known items: other draws than those of training."""


@dataclass(frozen=True)
class KnownItem:
    """A query, and the item that it was drawn of."""

    query: str
    object_id: str


def divide(
    titles: Iterable[CatalogPair], pairs: Iterable[CatalogPair], most_known: int
) -> tuple[list[CatalogPair], list[CatalogPair]]:
    """Return the pairs to judge by, a fifth at most, and those to learn from, which have nothing in common with them.

    Args:
        titles: The catalog's items, each asked of by its title; which are judged by is decided by a hash of their ids.
        pairs: The same items, asked of by whatever piece.
        most_known: Most pairs to judge by.
    """
    order = _by_hash(titles)
    known = order[: min(most_known, int(_MOST_KNOWN * len(order)))]
    ids = {pair.object_id for pair in known}
    taken = {trace for pair in known for trace in _traces(pair)}
    return known, [p for p in _by_hash(pairs) if p.object_id not in ids and taken.isdisjoint(_traces(p))]


def _by_hash(pairs: Iterable[CatalogPair]) -> list[CatalogPair]:
    return sorted(pairs, key=lambda pair: zlib.crc32(b"known\x1f" + pair.object_id.encode()))


def known_items(pairs: Sequence[CatalogPair], catalog: Iterable[str]) -> list[KnownItem]:
    """Return a query for each pair that allows one, see the module.

    Args:
        pairs: Those to judge by.
        catalog: Texts by which words are known.
    """
    queries = WordSamples(catalog, seed=_SEED).write([pair.asked for pair in pairs], 1)
    return [
        KnownItem(query, pair.object_id)
        for pair, written in zip(pairs, queries, strict=True)
        for query in written
        if not set(words_of(query)) <= set(words_of(pair.rest))
    ]


def training_queries(
    texts: Mapping[str, str], writer: QueryWriter, count: int, known: Iterable[KnownItem]
) -> dict[str, list[str]]:
    """Return up to `count` queries for each text by its id, none of which is a known item's, in whatever spelling."""
    judged = {query_key(item.query) for item in known}
    written = writer.write(list(texts.values()), count)
    return {
        object_id: [query for query in queries if query.strip() and query_key(query) not in judged][:count]
        for object_id, queries in zip(texts, written, strict=True)
    }


def _traces(pair: CatalogPair) -> tuple[str, str, str]:
    """Return what two pairs may not have in common: either side, and the words of the whole, however it was cut."""
    whole = sorted([*words_of(pair.asked), *words_of(pair.rest)])
    return query_key(pair.asked), query_key(pair.rest), " ".join(whole)
