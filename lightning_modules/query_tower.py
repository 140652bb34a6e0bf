"""Training of queries alone: a model encodes them, and items keep the vectors that they had when training began."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from estudio_core.models.embedding_model import EmbeddingModel
from lightning_modules.base_vectors import BaseVectors
from lightning_modules.encoding import TextEncoder
from lightning_modules.text_bank import TextBank


class QueryTower(TextEncoder):
    """Encodes the queries of a bank, with gradient where it is enabled; items are looked up.

    Args:
        model: Encodes queries.
        bank: The texts.
        items: Vectors of the items, by row of the bank.
        batch_tokens: As for `TextEncoder`, and so are the others.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        bank: TextBank,
        items: BaseVectors,
        batch_tokens: int,
        cache_bytes: int = 0,
        disk_bytes: int = 0,
        *,
        half: bool = False,
        compile_with: str | None = None,
    ) -> None:
        super().__init__(model, bank, batch_tokens, cache_bytes, disk_bytes, half=half, compile_with=compile_with)
        self._items = items

    def token_count(self, rows: Sequence[int]) -> int:
        """Return the number of real tokens of the queries among `rows`: nothing else is encoded."""
        return super().token_count([row for row in rows if row < self._bank.query_count])

    def chunks(self, rows: Sequence[int], most_tokens: int | None = None) -> list[list[int]]:
        """Return positions in `rows`: chunks of queries as `TextEncoder` makes them, then one of all items."""
        is_query = np.asarray(rows) < self._bank.query_count
        queries, items = np.flatnonzero(is_query).tolist(), np.flatnonzero(~is_query).tolist()
        of_queries = super().chunks([rows[i] for i in queries], most_tokens) if queries else []
        return [*([queries[i] for i in chunk] for chunk in of_queries), *([items] if items else [])]

    def padded_tokens(self, rows: Sequence[int]) -> int:
        """Return the size of a forward pass of a chunk; 0 of items."""
        return super().padded_tokens(rows) if rows[0] < self._bank.query_count else 0

    def encode_chunk(self, rows: Sequence[int]) -> Tensor:
        """Return the vectors of a chunk."""
        if rows[0] < self._bank.query_count:
            return super().encode_chunk(rows)
        return self._items[rows].to(self._model.device)
