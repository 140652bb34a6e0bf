"""Texts of a fit, each distinct one tokenised once, and which of them belong to which object."""

from __future__ import annotations

from collections.abc import Iterable

from estudio_core.errors import NotEnoughDataError
from estudio_core.models.embeddings_model import EmbeddingsModelInterface
from estudio_core.preprocessing.ranking_data import FineTuningInput, ItemsSet


class TextBank:
    """Token ids of all distinct query and part texts of some sessions; a text is known by its row.

    Args:
        model: Gives prefixes and tokenizer.
        sessions: All sessions that will be trained or validated on.
        items: Part texts by object id.

    Attributes:
        tokens: Token ids by row.
        objects: For each object id, its variants; each is the list of the rows of its parts.
    """

    def __init__(self, model: EmbeddingsModelInterface, sessions: Iterable[FineTuningInput], items: ItemsSet) -> None:
        queries: dict[str, int] = {}
        object_ids: dict[str, None] = {}
        for session in sessions:
            for text in (session.query, *session.query_variants):
                queries.setdefault(text, len(queries))
            object_ids.update(dict.fromkeys(session.results))
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
        self.tokens = [*model.tokenize_queries(list(queries)), *model.tokenize_items(list(parts))]

    def __len__(self) -> int:
        """Return the number of distinct texts."""
        return len(self.tokens)

    def query(self, text: str) -> int:
        """Return the row of a query text."""
        return self._queries[text]

    def token_count(self, rows: Iterable[int]) -> int:
        """Return the number of real tokens of the texts `rows`."""
        return sum(len(self.tokens[row]) for row in rows)
