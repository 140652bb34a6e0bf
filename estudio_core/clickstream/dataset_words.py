"""The words of a dataset's items and queries, for the part that BM25 has in the score that is served."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.session_table import Vocabulary
from estudio_core.lexical.settings import Bm25Settings, Counts
from estudio_core.streams import batched

_TOGETHER = 20_000

ReadWords = Callable[[Sequence[str], Sequence[Mapping[str, Any] | None]], Sequence[Counts]]
"""Returns the words of texts, beside each of which stands the payload of its item, which may hold a title; None: a
query."""


class WordCounts(Mapping[str, Counts]):
    """How often each word occurs in each text, by key, in columns.

    >>> counts = WordCounts()
    >>> counts.add(["a", "b"], [{"usb": 1.0, "lamp": 2.0}, {"lamp": 1.0}])
    >>> counts["a"], len(counts), counts == {"a": {"usb": 1, "lamp": 2}, "b": {"lamp": 1}}
    ({'usb': 1.0, 'lamp': 2.0}, 2, True)
    """

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self.words = Vocabulary()
        """All words, numbered."""
        self._word, self._count, self._starts = array("i"), array("d"), array("q", [0])

    def add(self, keys: Sequence[str], texts: Iterable[Counts]) -> None:
        """Append the words of further texts."""
        code = self.words.code
        for key, counts in zip(keys, texts, strict=True):
            self._rows[key] = len(self._rows)
            self._word.extend([code(word) for word in counts])
            self._count.extend(counts.values())
            self._starts.append(len(self._word))

    @property
    def columns(self) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.int64]]:
        """Word numbers and counts, one text behind the other, and where each text begins, and the last one ends."""
        return np.array(self._word, np.int32), np.array(self._count, np.float64), np.array(self._starts, np.int64)

    def __getitem__(self, key: str) -> Counts:
        """Return the words of a text; KeyError where it is unknown."""
        row = self._rows[key]
        start, end = self._starts[row], self._starts[row + 1]
        names = self.words.texts
        return {names[word]: count for word, count in zip(self._word[start:end], self._count[start:end], strict=True)}

    def __iter__(self) -> Iterator[str]:
        """Yield the keys in order."""
        return iter(self._rows)

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self._rows)


@dataclass(frozen=True)
class DatasetWords:
    """Words by object id and by query text, every spelling of a query for itself, and how BM25 weighs them."""

    items: Mapping[str, Counts]
    queries: Mapping[str, Counts]
    settings: Bm25Settings = field(default_factory=Bm25Settings)

    def write(self, path: Path) -> None:
        """Write the words into a Parquet file; `read` reads them back."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        text = pa.string()
        schema = pa.schema(
            [("kind", text), ("key", text), ("words", pa.list_(text)), ("counts", pa.list_(pa.float64()))],
            metadata={b"settings": self.settings.model_dump_json().encode()},
        )
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for kind, texts in (("item", self.items), ("query", self.queries)):
                for keys in batched(texts, _TOGETHER):
                    counts = [texts[key] for key in keys]
                    values = [[float(count) for count in each.values()] for each in counts]
                    columns = [[kind] * len(keys), keys, [list(each) for each in counts], values]
                    writer.write_table(
                        pa.Table.from_arrays(
                            [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)],
                            schema=schema,
                        )
                    )

    @classmethod
    def read(cls, path: Path) -> DatasetWords:
        """Return what `write` wrote."""
        import pyarrow.parquet as pq

        texts = {"item": WordCounts(), "query": WordCounts()}
        with pq.ParquetFile(path) as file:
            settings = (file.schema_arrow.metadata or {}).get(b"settings", b"{}")
            for batch in file.iter_batches(batch_size=_TOGETHER):
                for kind, key, words, counts in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    texts[kind].add([key], [dict(zip(words, counts, strict=True))])
        return cls(texts["item"], texts["query"], Bm25Settings.model_validate_json(settings))

    def described(self) -> Iterator[str]:
        """Yield the content in an order that does not depend on how it was put together."""
        yield self.settings.model_dump_json()
        for kind, texts in (("item", self.items), ("query", self.queries)):
            for key in sorted(texts):
                yield json.dumps([kind, key, sorted((word, float(count)) for word, count in texts[key].items())])
