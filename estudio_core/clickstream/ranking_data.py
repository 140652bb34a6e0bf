"""What a model is trained and evaluated on: split sessions, and the texts of the items in them.

On disk a dataset is a folder of Parquet files: `sessions.parquet`, `items.parquet` and, where words are ranked beside
vectors, `words.parquet`; its id is a hash of its content, so that the same data always has the same id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal, get_args

import numpy as np

from estudio_core.clickstream.content_hash import content_hash
from estudio_core.clickstream.dataset_words import DatasetWords
from estudio_core.clickstream.fine_tuning_input import FineTuningInput as FineTuningInput
from estudio_core.clickstream.session_table import SessionTable
from estudio_core.clickstream.table_builder import table_of
from estudio_core.errors import DataError

Split = Literal["train", "dev", "holdout"]
"""train: gradients. dev: early stopping, choice of trial and weights. holdout: the gate, nothing else."""

SPLITS: tuple[Split, ...] = get_args(Split)


def with_one_spelling(sessions: Iterable[FineTuningInput]) -> SessionTable:
    """Return the sessions, all of a query under its most frequent spelling; of equally frequent ones, the first.

    For what counts or compares queries: "USB cable" and "usb cable" are one, see `query_key`.

    >>> spelt = ["Lamp", "lamp", "lamp ", "lamp"]
    >>> asked = [FineTuningInput(str(number), text, (), (), (), ()) for number, text in enumerate(spelt)]
    >>> {session.query for session in with_one_spelling(asked)}
    {'lamp'}
    """
    table = table_of(sessions)
    spelt, queries = table.of_session("query"), table.columns.queries
    keys = queries.key_codes
    times = np.bincount(spelt, minlength=len(queries))
    first = np.full(len(queries), len(spelt), dtype=np.int64)
    np.minimum.at(first, spelt, np.arange(len(spelt)))
    usual = np.empty(len(queries.keys), dtype=np.int32)
    order = np.lexsort((-first, times))
    usual[keys[order]] = order  # of a query, the last one stays
    return table.asking(usual[keys[table.columns.query]])


class ItemsSet(Mapping[str, tuple[str, ...]]):
    """Part texts by object id, with optional augmented variants of each object.

    `items[object_id]` is the tuple of the object's own part texts. `variants(object_id)` is a list of
    such tuples whose first element is the object's own.
    """

    def __init__(
        self,
        parts: Mapping[str, Sequence[str]],
        variants: Mapping[str, Sequence[Sequence[str]]] | None = None,
    ) -> None:
        self._parts = {str(k): tuple(v) for k, v in parts.items()}
        empty = [k for k, v in self._parts.items() if not v]
        if empty:
            raise DataError(f"Items without any part: {empty[:10]}. Every item needs a text.")
        self._variants = {str(k): [tuple(v) for v in vs] for k, vs in (variants or {}).items() if vs}
        unknown = self._variants.keys() - self._parts.keys()
        if unknown:
            raise DataError(f"Variants of items that are not in the set: {sorted(unknown)[:10]}.")

    def __getitem__(self, object_id: str) -> tuple[str, ...]:
        """Return the part texts of `object_id`; KeyError where it is unknown."""
        return self._parts[object_id]

    def __iter__(self) -> Iterator[str]:
        """Iterate over object ids, in insertion order."""
        return iter(self._parts)

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self._parts)

    def variants(self, object_id: str) -> list[tuple[str, ...]]:
        """Return the object's own part texts, then those of its augmented variants."""
        return [self._parts[object_id], *self._variants.get(object_id, [])]


@dataclass(frozen=True)
class RankingData:
    """Sessions by split, and the items that occur in them.

    `missing_items` are ids that sessions name and the source does not have, `invalid_items` those whose row
    cannot be used, with the reason; their results were removed from the sessions. `words` are those of the items and
    of all spellings of the queries; None where vectors alone are ranked. `left_out` counts sessions that were given and
    not used, by reason.
    """

    splits: Mapping[Split, Sequence[FineTuningInput]]
    items: ItemsSet
    missing_items: tuple[str, ...] = ()
    invalid_items: Mapping[str, str] = field(default_factory=dict)
    words: DatasetWords | None = None
    left_out: Mapping[str, int] = field(default_factory=dict, compare=False)
    dataset_id: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Give every split a table, and the data its content hash."""
        object.__setattr__(self, "splits", as_tables(self.splits))
        if not self.dataset_id:
            items = ((object_id, self.items.variants(object_id)) for object_id in sorted(self.items))
            object.__setattr__(self, "dataset_id", content_hash(self.splits, items, self.words))

    def table(self, split: Split) -> SessionTable:
        """Return the sessions of a split in columns."""
        return table_of(self.splits[split])

    def queries(self, split: Split) -> list[str]:
        """Return the distinct queries of a split in order of first appearance, each in its first spelling."""
        return self.table(split).first_spellings()


def as_tables(splits: Mapping[Split, Sequence[FineTuningInput]]) -> dict[Split, SessionTable]:
    """Return the splits as tables of the same columns."""
    given = {split: splits.get(split, ()) for split in SPLITS}
    tables = [sessions for sessions in given.values() if isinstance(sessions, SessionTable)]
    if len(tables) == len(given) and len({id(table.columns) for table in tables}) == 1:
        return dict(zip(given, tables, strict=True))
    whole = table_of(chain.from_iterable(given.values()))
    ends = np.cumsum([len(sessions) for sessions in given.values()])
    return {split: whole.take(np.arange(end - len(given[split]), end)) for split, end in zip(SPLITS, ends, strict=True)}
