"""BM25 of many texts at once, for evaluation and training; searches compute the same in SQL (`vectordb.words`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse  # type: ignore[import-untyped]

from estudio_core.errors import DataError
from estudio_core.lexical.settings import Bm25Settings, Counts


def idf(documents: NDArray[np.float64] | float, total: float) -> NDArray[np.float64]:
    """Return the inverse document frequency of words that `documents` of `total` texts hold; never negative.

    ln(1 + (total - documents + 0.5) / (documents + 0.5)), the form of Robertson and Sparck Jones with 1 inside the
    logarithm, as Lucene has it.

    >>> round(float(idf(1, 1000)), 3), round(float(idf(1000, 1000)), 5)
    (6.503, 0.0005)
    """
    return np.asarray(np.log1p((total - np.asarray(documents) + 0.5) / (np.asarray(documents) + 0.5)))


def unit(total: float) -> float:
    """Return the idf of a word that one text of `total` holds: what scores are divided by.

    A score of 1 is then about one rare word found once, in a catalog of whatever size, and a weight beside similarities
    carries over from one to another.

    >>> round(unit(1000), 3), round(unit(1_000_000), 3)
    (6.503, 13.41)
    """
    return float(idf(1.0, max(total, 1.0)))


class Bm25:
    """The words of a catalog's texts, ready to be searched.

    >>> index = Bm25([{"usb": 1, "cable": 1}, {"usb": 2, "lamp": 1}])
    >>> [[round(score, 3) for score in row] for row in index.scores([["lamp"]]).tolist()]
    [[0.0, 0.924]]

    Args:
        texts: The words of each text with their (weighted) number of occurrences.
        settings: k1 and b.
        average_length: By which lengths are normalised; None: the average of `texts`.

    Raises:
        DataError: there is no text.
    """

    def __init__(
        self, texts: Sequence[Counts], settings: Bm25Settings | None = None, average_length: float | None = None
    ) -> None:
        settings = settings or Bm25Settings()
        if not texts:
            raise DataError("There is no text to count the words of.")
        self.columns: dict[str, int] = {}
        """Column of each word."""
        words = [self.columns.setdefault(word, len(self.columns)) for text in texts for word in text]
        counts = np.array([count for text in texts for count in text.values()], dtype=np.float64)
        lengths = np.array([sum(text.values()) for text in texts], dtype=np.float64)
        starts = np.concatenate([[0], np.cumsum([len(text) for text in texts])])
        rows = np.repeat(np.arange(len(texts)), np.diff(starts))
        average = lengths.mean() if average_length is None else average_length
        norm = settings.k1 * (1 - settings.b + settings.b * lengths / max(average, 1e-9))
        impacts = counts * (settings.k1 + 1) / (counts + norm[rows])
        self.impacts = sparse.csr_array((impacts, np.array(words), starts), shape=(len(texts), len(self.columns)))
        """What a word weighs in a text, before its idf: float64 [texts, words]."""
        found = np.bincount(np.array(words, dtype=np.int64), minlength=len(self.columns))
        self.idf = idf(found.astype(np.float64), len(texts)) / unit(len(texts))
        """Of each word, in units of `unit`."""

    def query_rows(self, queries: Sequence[Collection[str]]) -> sparse.csr_array:
        """Return the idf of each query's words, float64 [queries, words]; words that no text holds are left out."""
        known = [sorted({self.columns[word] for word in query if word in self.columns}) for query in queries]
        columns = np.array([column for row in known for column in row], dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum([len(row) for row in known], dtype=np.int64)])
        return sparse.csr_array((self.idf[columns], columns, starts), shape=(len(queries), len(self.columns)))

    def scores(self, queries: Sequence[Collection[str]]) -> NDArray[np.float32]:
        """Return the score of every text for every query, float32 [queries, texts], in units of `unit`."""
        return np.asarray((self.query_rows(queries) @ self._by_word).todense(), dtype=np.float32)

    @cached_property
    def _by_word(self) -> sparse.csr_array:
        return self.impacts.T.tocsr()
