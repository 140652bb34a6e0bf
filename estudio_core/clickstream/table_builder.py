"""Tables of sessions, put together piece by piece."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from estudio_core.clickstream.fine_tuning_input import FineTuningInput
from estudio_core.clickstream.session_table import (
    NOBODY,
    Codes,
    Floats,
    Ints,
    Queries,
    SessionColumns,
    SessionTable,
    Vocabulary,
)
from estudio_core.clickstream.texts import Texts

_TOGETHER = 20_000
_BY_SESSION: dict[str, DTypeLike] = {
    **dict.fromkeys(("query", "client", "user", "release", "variants"), np.int32),
    **dict.fromkeys(("timestamp", "lengths"), np.int64),
    "by_relevance": np.bool_,
}
_BY_RESULT: dict[str, DTypeLike] = {"item": np.int32, "position": np.int16, "rank": np.float64, "level": np.uint8}
_BYTES_OF_ID = 36


def table_of(sessions: Iterable[FineTuningInput]) -> SessionTable:
    """Return the table of some sessions; a table itself, unchanged."""
    if isinstance(sessions, SessionTable):
        return sessions
    builder = TableBuilder()
    builder.add(sessions)
    return builder.table()


class TableBuilder:
    """Columns that grow. Texts are numbered as they come, over all pieces.

    Args:
        sessions: How many there will be, and how many `results` of them all; more may come, at the cost of a copy.
        results: Likewise.
    """

    def __init__(self, sessions: int = 1_000, results: int = 10_000) -> None:
        self.queries, self.items = Queries(), Vocabulary()
        self.people, self.releases = Vocabulary(), Vocabulary()
        self._variant_sets: dict[tuple[str, ...], int] = {(): 0}
        self._levels = Levels()
        self._columns = {name: Column(kind, sessions) for name, kind in _BY_SESSION.items()}
        self._columns |= {name: Column(kind, results) for name, kind in _BY_RESULT.items()}
        self._ids, self._id_lengths = Column(np.uint8, sessions * _BYTES_OF_ID), Column(np.int32, sessions)

    def add(self, sessions: Iterable[FineTuningInput]) -> None:
        """Append sessions."""
        given = iter(sessions)
        while some := list(islice(given, _TOGETHER)):
            ranks = [np.nan if rank is None else rank for one in some for rank in one.ranks]
            self.add_columns(
                ids=Texts.of([one.session_id for one in some]),
                query=self.queries.codes(one.query for one in some),
                client=self.numbered(self.people, [one.client_id for one in some]),
                user=self.numbered(self.people, [one.user_id for one in some]),
                release=self.numbered(self.releases, [one.release for one in some]),
                timestamp=np.array([one.timestamp for one in some], dtype=np.int64),
                by_relevance=np.array([one.by_relevance for one in some], dtype=bool),
                variants=self.variant_codes([one.query_variants for one in some]),
                lengths=np.array([len(one.results) for one in some], dtype=np.int64),
                item=self.items.codes(chain.from_iterable(one.results for one in some)),
                position=np.array([place for one in some for place in one.positions], dtype=np.int32),
                rank=np.array(ranks, dtype=np.float64),
                weight=np.array([weight for one in some for weight in one.click_weights], dtype=np.float64),
            )

    def add_columns(self, *, ids: Texts, weight: Floats, **columns: NDArray[Any]) -> None:
        """Append sessions whose texts are numbered by this builder; names as in `SessionColumns`."""
        self._ids.add(ids.data)
        self._id_lengths.add(np.diff(ids.starts))
        for name, values in (columns | {"level": self._levels.codes(weight)}).items():
            self._columns[name].add(values)

    @staticmethod
    def numbered(names: Vocabulary, given: Iterable[str | None]) -> Codes:
        """Return the numbers of names, negative where there is none."""
        return np.array([NOBODY if name is None else names.code(name) for name in given], dtype=np.int32)

    def variant_codes(self, variants: Iterable[tuple[str, ...]]) -> Codes:
        """Return the numbers of what spellings queries were augmented by."""
        known = self._variant_sets
        return np.array([known.setdefault(each, len(known)) for each in variants], dtype=np.int32)

    def table(self) -> SessionTable:
        """Return the table of all that was added."""
        found = {name: column.taken for name, column in self._columns.items()}
        return SessionTable(
            SessionColumns(
                ids=Texts(self._ids.taken, _starts(self._id_lengths.taken)),
                starts=_starts(found.pop("lengths")),
                levels=self._levels.values,
                queries=self.queries,
                people=self.people,
                releases=self.releases,
                items=self.items,
                variant_sets=tuple(self._variant_sets),
                **found,
            )
        )


class Column:
    """An array that grows. Room that is not used yet takes no memory."""

    def __init__(self, kind: DTypeLike, room: int) -> None:
        self._values: NDArray[Any] = np.empty(max(room, 1), dtype=kind)
        self._count = 0

    def add(self, values: NDArray[Any]) -> None:
        """Append values; of a wider kind of whole numbers than so far, all become wider."""
        end = self._count + len(values)
        kind = self._values.dtype
        if values.dtype != kind and kind.kind in "iu" and len(values) and int(values.max()) > np.iinfo(kind).max:
            kind = np.promote_types(kind, values.dtype)
        if end > len(self._values) or kind != self._values.dtype:
            grown = np.empty(len(self._values) if end <= len(self._values) else max(end, 2 * len(self._values)), kind)
            grown[: self._count] = self._values[: self._count]
            self._values = grown
        self._values[self._count : end] = values
        self._count = end

    @property
    def taken(self) -> NDArray[Any]:
        """What was added."""
        return self._values[: self._count]


def _starts(lengths: NDArray[Any]) -> Ints:
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


class Levels:
    """Distinct weights of clicks, of which a log has few."""

    def __init__(self) -> None:
        self.values: Floats = np.zeros(1)

    def codes(self, weights: Floats) -> NDArray[Any]:
        """Return the number of each weight, in as few bytes as it takes; 0 for no click."""
        found = np.zeros(len(weights), dtype=np.int64)
        places = np.flatnonzero(weights != 0)
        if len(places):
            distinct, number = np.unique(weights[places], return_inverse=True)
            known = {value: code for code, value in enumerate(self.values.tolist())}
            of_distinct: Ints = np.array([known.setdefault(v, len(known)) for v in distinct.tolist()], dtype=np.int64)
            self.values = np.array(list(known))
            found[places] = of_distinct[number]
        return found.astype(np.min_scalar_type(int(found.max(initial=0))))
