"""What words add to the similarity of a query and an object: the encoder is trained for its part in the sum.

Gao et al., "Complementing Lexical Retrieval with Semantic Residual Embedding" (ECIR 2021): an encoder whose loss knows
the lexical score learns what words cannot say, and leaves alone what they say already.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy import sparse  # type: ignore[import-untyped]
from torch import Tensor

from estudio_core.clickstream.dataset_words import DatasetWords
from estudio_core.errors import DataError
from estudio_core.lexical.bm25 import Bm25


class LexicalScores:
    """BM25 over the items of a dataset, times its weight beside similarities.

    >>> words = DatasetWords({"a": {"usb": 1, "cable": 1}, "b": {"usb": 2, "lamp": 1}}, {"lamp": {"lamp": 1}})
    >>> [[round(score, 3) for score in row] for row in LexicalScores(words, weight=0.5)(["lamp"], ["b", "a"]).tolist()]
    [[0.462, 0.0]]

    Args:
        words: Of all items and queries that will be asked for.
        weight: Of a score, in the unit of `Bm25`, beside a similarity.

    Raises:
        DataError: there is no item.
    """

    def __init__(self, words: DatasetWords, weight: float) -> None:
        index = Bm25(list(words.items.values()), words.settings)
        self._impacts = index.impacts
        self._queries = index.query_rows(list(words.queries.values())) * weight
        self._item_rows = {object_id: row for row, object_id in enumerate(words.items)}
        self._query_rows = {text: row for row, text in enumerate(words.queries)}

    def __call__(self, queries: Sequence[str], objects: Sequence[str]) -> Tensor:
        """Return what words add, float32 [queries, objects].

        Raises:
            DataError: the words of a query or an object are not known.
        """
        return self.over(objects)(queries)

    def over(self, objects: Sequence[str]) -> LexicalPool:
        """Return the scores of `objects`, ready to be asked for many queries. Raises: as a call."""
        return LexicalPool(self, self._impacts[_rows(self._item_rows, objects, "item")])

    def query_rows(self, queries: Sequence[str]) -> sparse.csr_array:
        """Return the weights of the queries' words, [queries, words]. Raises: as a call."""
        return self._queries[_rows(self._query_rows, queries, "query")]


class LexicalPool:
    """Scores of some objects, see `LexicalScores.over`."""

    def __init__(self, scores: LexicalScores, impacts: sparse.csr_array) -> None:
        self._scores = scores
        self._by_word = impacts.T.tocsr()

    def __call__(self, queries: Sequence[str]) -> Tensor:
        """Return what words add, float32 [queries, objects of the pool]."""
        return torch.from_numpy((self._scores.query_rows(queries) @ self._by_word).toarray()).float()


def _rows(known: dict[str, int], keys: Sequence[str], what: str) -> list[int]:
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise DataError(
            f"The dataset has no words of {len(unknown)} texts, the first of {what} {unknown[0]!r}. Build it again, or "
            "leave out its words altogether."
        )
    return [known[key] for key in keys]
