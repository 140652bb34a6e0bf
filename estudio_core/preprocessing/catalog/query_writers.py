"""Queries for texts: word samples, which need no model, and what a teacher of the user's own has to offer."""

from __future__ import annotations

import math
import random
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from estudio_core.preprocessing.augmentations import Misspellings
from estudio_core.preprocessing.catalog.pairs import words_of

_LENGTHS = (2, 2, 3, 3, 4)
"""Words of a query, each as likely: queries of product search are of two or three words mostly."""
_SHUFFLED, _MISSPELT = 0.3, 0.1
"""Shares of the queries: words in another order than the text's, and one word misspelt."""
_FEWEST_TEXTS = 2
"""A word of one text alone names it, and tells nothing of any other."""


@runtime_checkable
class QueryWriter(Protocol):
    """Writes queries that a text answers: word samples, or a sequence-to-sequence model."""

    def write(self, texts: Sequence[str], count: int) -> list[list[str]]:
        """Return up to `count` queries for each text, in the order of the texts."""
        ...


class WordSamples:
    """Queries of a few words of the text, the rarer ones rather: dropped words, another order, misspellings.

    Args:
        catalog: Texts by which the idf of words is known.
        seed: Of the draws, which are the same for the same text.
    """

    def __init__(self, catalog: Iterable[str], seed: int = 0) -> None:
        known = [set(words_of(text)) for text in catalog]
        found = Counter(word for words in known for word in words)
        self._idf = {word: math.log(1 + len(known) / n) for word, n in found.items() if n >= _FEWEST_TEXTS}
        self._seed = seed

    def write(self, texts: Sequence[str], count: int) -> list[list[str]]:
        """Return up to `count` distinct queries for each text; none for one without words that others have too."""
        return [self._of(text, count) for text in texts]

    def _of(self, text: str, count: int) -> list[str]:
        rng = random.Random(zlib.crc32(text.encode()) + self._seed)
        words = [word for word in dict.fromkeys(words_of(text)) if word in self._idf]
        queries: dict[str, None] = {}
        for _ in range(count if words else 0):
            # Efraimidis and Spirakis (2006): the largest u ** (1 / weight) are a weighted draw without replacement.
            keys = {word: rng.random() ** (1 / self._idf[word]) for word in words}
            drawn = sorted(words, key=lambda word: keys[word], reverse=True)[: rng.choice(_LENGTHS)]
            if rng.random() >= _SHUFFLED:
                drawn = [word for word in words if word in drawn]
            query = " ".join(drawn)
            if rng.random() < _MISSPELT:
                typed = Misspellings(error_rates=(0.01,), seed=rng.randrange(2**31)).transform(query)
                query = typed[0] if typed else query  # words with digits are never misspelt
            queries[query] = None
        return list(queries)
