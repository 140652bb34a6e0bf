"""The words of a dataset's items and queries, for the part that BM25 has in the score that is served."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from estudio_core.lexical.settings import Bm25Settings, Counts

if TYPE_CHECKING:
    import pyarrow as pa

ReadWords = Callable[[Sequence[str], Sequence[Mapping[str, Any] | None]], Sequence[Counts]]
"""Returns the words of texts, beside each of which stands the payload of its item, which may hold a title; None: a
query."""


@dataclass(frozen=True)
class DatasetWords:
    """Words by object id and by query text, every spelling of a query for itself, and how BM25 weighs them."""

    items: Mapping[str, Counts]
    queries: Mapping[str, Counts]
    settings: Bm25Settings = field(default_factory=Bm25Settings)

    def table(self) -> pa.Table:
        """Return the words as a table; `of_table` reads them back."""
        import pyarrow as pa

        rows = [
            {"kind": kind, "key": key, "words": list(counts), "counts": [float(count) for count in counts.values()]}
            for kind, texts in (("item", self.items), ("query", self.queries))
            for key, counts in texts.items()
        ]
        schema = pa.schema(
            [
                ("kind", pa.string()),
                ("key", pa.string()),
                ("words", pa.list_(pa.string())),
                ("counts", pa.list_(pa.float64())),
            ],
            metadata={b"settings": self.settings.model_dump_json().encode()},
        )
        return pa.Table.from_pylist(rows, schema=schema)

    @classmethod
    def of_table(cls, table: pa.Table) -> DatasetWords:
        """Return what `table` made a table of."""
        texts: dict[str, dict[str, Counts]] = {"item": {}, "query": {}}
        for row in table.to_pylist():
            texts[row["kind"]][row["key"]] = dict(zip(row["words"], row["counts"], strict=True))
        settings = Bm25Settings.model_validate_json((table.schema.metadata or {}).get(b"settings", b"{}"))
        return cls(texts["item"], texts["query"], settings)

    def described(self) -> Iterator[str]:
        """Yield the content in an order that does not depend on how it was put together."""
        yield self.settings.model_dump_json()
        for kind, texts in (("item", self.items), ("query", self.queries)):
            for key in sorted(texts):
                yield json.dumps([kind, key, sorted((word, float(count)) for word, count in texts[key].items())])
