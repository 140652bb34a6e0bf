"""Texts of a fit, each distinct one tokenised once, and which of them belong to which object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from estudio_core.clickstream.ranking_data import FineTuningInput, ItemsSet
from estudio_core.clickstream.table_builder import table_of
from estudio_core.errors import NotEnoughDataError
from estudio_core.models.embedding_model import EmbeddingModel


class TextBank:
    """Token ids of all distinct query and part texts of some sessions; a text is known by its row.

    Args:
        model: Gives prefixes and tokenizer.
        sessions: All sessions that will be trained or validated on.
        items: Part texts by object id.
        item_model: Gives prefix and tokenizer of the part texts; None: `model`.

    Attributes:
        query_count: Number of query texts; they are the first rows.
        lengths: Number of tokens by row, int64 [texts].
        starts: Place of a row's first token among all tokens, int64 [texts].
        objects: For each object id, its variants; each is the list of the rows of its parts.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        sessions: Iterable[FineTuningInput],
        items: ItemsSet,
        item_model: EmbeddingModel | None = None,
    ) -> None:
        table = table_of(sessions)
        queries = {text: row for row, text in enumerate(table.texts())}
        object_ids = table.shown_ids()
        unknown = [i for i in object_ids if i not in items]
        if unknown:
            raise NotEnoughDataError(f"Sessions name {len(unknown)} items without text, e.g. {unknown[:5]}.")
        parts: dict[str, int] = {}
        self.objects: dict[str, list[list[int]]] = {}
        for object_id in object_ids:
            self.objects[object_id] = [
                [parts.setdefault(text, len(parts)) + len(queries) for text in variant]
                for variant in items.variants(object_id)
            ]
        self._queries = queries
        self.query_count = len(queries)
        tokens = [*model.tokenize_queries(list(queries)), *(item_model or model).tokenize_items(list(parts))]
        self.lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        # One array in place of a list per text: a tenth of the memory, and rows are taken without a Python loop.
        self._tokens = np.fromiter((i for ids in tokens for i in ids), dtype=np.int32, count=int(self.lengths.sum()))

    def __len__(self) -> int:
        """Return the number of distinct texts."""
        return len(self.lengths)

    def places(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return where the tokens of `rows` stand among all tokens, and which of them are real, [rows, longest] each.

        Both are int64. Behind the end of a text, its last token is named again.
        """
        lengths = self.lengths[rows][:, None]
        column = np.arange(int(lengths.max()))[None, :]
        places = self.starts[rows][:, None] + np.minimum(column, lengths - 1)
        return torch.from_numpy(places), torch.from_numpy((column < lengths).astype(np.int64))

    def padded(self, rows: Sequence[int], padding_id: int) -> tuple[Tensor, Tensor]:
        """Return token ids and attention mask of `rows`, int64 [rows, longest] each, padded at the right."""
        places, mask = self.places(rows)
        ids = torch.from_numpy(self._tokens[places.numpy()].astype(np.int64))
        return ids.masked_fill_(mask == 0, padding_id), mask

    def query(self, text: str) -> int:
        """Return the row of a query text."""
        return self._queries[text]

    def token_count(self, rows: Sequence[int]) -> int:
        """Return the number of real tokens of the texts `rows`."""
        return int(self.lengths[rows].sum())
