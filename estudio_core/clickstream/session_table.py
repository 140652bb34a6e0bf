"""Many sessions in columns: a `FineTuningInput` of ten results takes 3 kB of Python objects, a row here 0.2.

A table is a sequence of `FineTuningInput`, made when one is asked for. What reads all of a log reads the columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.fine_tuning_input import FineTuningInput
from estudio_core.clickstream.query_retriever import fraction_of, query_key
from estudio_core.clickstream.texts import Texts

Ints = NDArray[np.int64]
Codes = NDArray[np.int32]
Floats = NDArray[np.float64]

_ROWS = 20_000  # made into objects together
NOBODY = -1
_SEED_OF_LOTS = 0


class Vocabulary(Sequence[str]):
    """Distinct texts, numbered from 0 in the order in which they came."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._codes: dict[str, int] = {text: code for code, text in enumerate(texts)}
        self._texts: list[str] | None = None

    def code(self, text: str) -> int:
        """Return the number of a text, a new one where it is new."""
        self._texts = None
        return self._codes.setdefault(text, len(self._codes))

    def codes(self, texts: Iterable[str]) -> Codes:
        """Return the numbers of texts, those of new ones too."""
        self._texts = None
        known = self._codes
        return np.array([known.setdefault(text, len(known)) for text in texts], dtype=np.int32)

    def known(self, text: str) -> int:
        """Return the number of a text; negative where there is no such text."""
        return self._codes.get(text, NOBODY)

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self._codes)

    @property
    def texts(self) -> list[str]:
        """All of them, by number."""
        if self._texts is None:
            self._texts = list(self._codes)
        return self._texts

    @overload
    def __getitem__(self, code: int) -> str: ...
    @overload
    def __getitem__(self, code: slice) -> list[str]: ...
    def __getitem__(self, code: int | slice) -> str | list[str]:
        """Return the text of a number."""
        return self.texts[code]


class Queries(Vocabulary):
    """Spellings of queries, and which of them are one query."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        super().__init__(texts)
        self._key_codes = np.empty(0, dtype=np.int32)
        self._keys = Vocabulary()

    @property
    def keys(self) -> Vocabulary:
        """Distinct `query_key`s, numbered in the order of their first spellings."""
        self.key_codes  # noqa: B018 (brings them up to date)
        return self._keys

    @property
    def key_codes(self) -> Codes:
        """The number of the query of each spelling, int32 [spellings]."""
        known = len(self._key_codes)
        if known < len(self):
            new = self._keys.codes(map(query_key, self.texts[known:]))
            self._key_codes = np.concatenate([self._key_codes, new])
        return self._key_codes


@dataclass(frozen=True, eq=False)
class SessionColumns:
    """The columns of a table; first those by session, then those by shown result.

    Attributes:
        ids: Session ids.
        query: int32, spelling of the query, in `queries`.
        client: int32, in `people`; negative where the log names none. Likewise `user`, and `release` in `releases`.
        timestamp: int64, seconds since 1970.
        by_relevance: bool.
        variants: int32, in `variant_sets`.
        starts: int64 [sessions + 1], first result of each, and the end of the last one.
        item: int32 [results], in `items`.
        position: int16 or int32 [results].
        rank: float64 [results]; NaN where it is not known.
        level: uint8 to int64 [results], which of `levels` is the weight of its click.
        levels: float64, distinct weights, the first of them 0.
    """

    ids: Texts
    query: Codes
    client: Codes
    user: Codes
    release: Codes
    timestamp: Ints
    by_relevance: NDArray[np.bool_]
    variants: Codes
    starts: Ints
    item: Codes
    position: NDArray[np.integer]
    rank: Floats
    level: NDArray[Any]
    levels: Floats
    queries: Queries = field(default_factory=Queries)
    people: Vocabulary = field(default_factory=Vocabulary)
    releases: Vocabulary = field(default_factory=Vocabulary)
    items: Vocabulary = field(default_factory=Vocabulary)
    variant_sets: tuple[tuple[str, ...], ...] = ((),)


class SessionTable(Sequence[FineTuningInput]):
    """Some sessions of columns, in an order; it is cheap to take some of them.

    >>> asked = FineTuningInput("1", "lamp", ("a", "b"), (0, 1), (0.5, None), (0.0, 1.0))
    >>> from estudio_core.clickstream.table_builder import table_of
    >>> table = table_of([asked])
    >>> table[0] == asked, table == [asked], len(table.where(table.clicked)), table.query_keys()
    (True, True, 1, ['lamp'])

    Args:
        columns: Shared by all tables that were taken of one.
        rows: int64, the sessions in order; None: all.
    """

    def __init__(self, columns: SessionColumns, rows: Ints | None = None) -> None:
        self.columns = columns
        self._rows = rows

    @property
    def rows(self) -> Ints:
        """Which sessions of the columns these are, int64."""
        return np.arange(len(self.columns.query)) if self._rows is None else self._rows

    def take(self, places: NDArray[np.integer]) -> SessionTable:
        """Return the sessions at `places`, in that order."""
        return SessionTable(self.columns, self.rows[places])

    def where(self, kept: NDArray[np.bool_]) -> SessionTable:
        """Return those for which `kept` [sessions] holds; the table itself where it does for all."""
        return self if kept.all() else self.take(np.flatnonzero(kept))

    def some_queries(self, most: int) -> SessionTable:
        """Return all sessions of so many queries, drawn by lot, that they are at most `most`; of one query at least."""
        if len(self) <= most:
            return self
        lots = self.lots
        fitting = int(np.searchsorted(np.cumsum(np.bincount(lots)), most, side="right"))
        return self.where(lots < max(fitting, 1))

    @property
    def lots(self) -> Ints:
        """When the query of each session is drawn, int64 from 0: by lots that depend on the texts of queries alone."""
        keys, names = self.keys, self.columns.queries.keys
        asked = np.unique(keys)
        fractions = [fraction_of(names[code], _SEED_OF_LOTS) for code in asked.tolist()]
        place = np.empty(len(names), dtype=np.int64)
        place[asked[np.argsort(fractions, kind="stable")]] = np.arange(len(asked))
        found: Ints = place[keys]
        return found

    def without_items(self, gone: NDArray[np.bool_]) -> SessionTable:
        """Return the same sessions without the results `gone` [items]; positions of the others are kept."""
        columns = self.columns
        kept = ~gone[columns.item]
        before = np.concatenate([[0], np.cumsum(kept)])
        results = {name: getattr(columns, name)[kept] for name in ("item", "position", "rank", "level")}
        return SessionTable(replace(columns, starts=before[columns.starts], **results), self._rows)

    def asking(self, query: NDArray[np.integer]) -> SessionTable:
        """Return the same sessions with other spellings of their queries, [sessions of the columns]."""
        return SessionTable(replace(self.columns, query=query.astype(np.int32)), self._rows)

    def of_session(self, name: str) -> NDArray[Any]:
        """Return a column by session, in the order of the table."""
        values: NDArray[Any] = getattr(self.columns, name)
        return values if self._rows is None else values[self._rows]

    def of_result(self, name: str) -> NDArray[Any]:
        """Return a column by shown result, in the order of the table."""
        values: NDArray[Any] = getattr(self.columns, name)
        return values if self._rows is None else values[self.places]

    @cached_property
    def lengths(self) -> Ints:
        """Results of each session, int64."""
        starts = self.columns.starts
        return np.diff(starts) if self._rows is None else starts[self._rows + 1] - starts[self._rows]

    @property
    def owners(self) -> Codes:
        """Place in this table of the session of each shown result, int32."""
        return np.repeat(np.arange(len(self), dtype=np.int32), self.lengths)

    @property
    def places(self) -> Ints:
        """Where the results of the sessions stand in the columns, int64."""
        if self._rows is None:
            return np.arange(len(self.columns.item))
        lengths = self.lengths
        before = np.cumsum(lengths) - lengths
        return np.repeat(self.columns.starts[self._rows] - before, lengths) + np.arange(int(lengths.sum()))

    @property
    def weights(self) -> Floats:
        """Weight of the click on each shown result, float64; 0 where there was none."""
        found: Floats = self.columns.levels[self.of_result("level")]
        return found

    @cached_property
    def clicks(self) -> Ints:
        """Clicked results of each session, int64."""
        clicked = (self.columns.levels > 0)[self.of_result("level")]
        before = np.concatenate([[0], np.cumsum(clicked, dtype=np.int32)])
        ends = np.cumsum(self.lengths)
        found: Ints = (before[ends] - before[ends - self.lengths]).astype(np.int64)
        return found

    @property
    def clicked(self) -> NDArray[np.bool_]:
        """Which sessions have a click."""
        return self.clicks > 0

    @property
    def keys(self) -> Codes:
        """Number of each session's query, whatever its spelling, in `columns.queries.keys`."""
        found: Codes = self.columns.queries.key_codes[self.of_session("query")]
        return found

    @property
    def clients(self) -> Codes:
        """Who asked, in `columns.people`: the client, else the user; negative where the log names neither."""
        client = self.of_session("client")
        return np.where(client < 0, self.of_session("user"), client)

    def query_keys(self) -> list[str]:
        """Return the distinct queries in order of first appearance."""
        names = self.columns.queries.keys
        return [names[code] for code in in_order(self.keys).tolist()]

    def first_spellings(self) -> list[str]:
        """Return the distinct queries in order of first appearance, each in its first spelling."""
        keys, spelt = self.keys, self.of_session("query")
        first = np.unique(keys, return_index=True)[1]
        return [self.columns.queries[code] for code in spelt[np.sort(first)].tolist()]

    def texts(self) -> list[str]:
        """Return every distinct text of a query in order of first appearance, augmented ones among them."""
        queries, variants = self.columns.queries, self.columns.variant_sets
        pair = self.of_session("query").astype(np.int64) * len(variants) + self.of_session("variants")
        distinct, first = np.unique(pair, return_index=True)
        found: dict[str, None] = {}
        for both in distinct[np.argsort(first)].tolist():
            query, variant = divmod(both, len(variants))
            found.update(dict.fromkeys((queries[query], *variants[variant])))
        return list(found)

    def shown_items(self) -> Codes:
        """Return the numbers of the items that were shown, in order of first appearance."""
        return in_order(self.of_result("item"))

    def shown_ids(self) -> list[str]:
        """Return the ids of the items that were shown, in order of first appearance."""
        names = self.columns.items.texts
        return [names[code] for code in self.shown_items().tolist()]

    def joined(self, others: SessionTable) -> SessionTable:
        """Return these sessions, and behind them those of another table of the same columns."""
        assert others.columns is self.columns
        return SessionTable(self.columns, np.concatenate([self.rows, others.rows]))

    def chunks(self, size: int = _ROWS) -> Iterator[SessionTable]:
        """Yield the table in pieces."""
        for start in range(0, len(self), size):
            yield SessionTable(self.columns, self.rows[start : start + size])

    def __len__(self) -> int:
        """Return the number of sessions."""
        return len(self.columns.query) if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, place: int) -> FineTuningInput: ...
    @overload
    def __getitem__(self, place: slice) -> SessionTable: ...
    def __getitem__(self, place: int | slice) -> FineTuningInput | SessionTable:
        """Return a session, or the table of some."""
        if isinstance(place, slice):
            return SessionTable(self.columns, self.rows[place])
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        place %= len(self)
        return next(iter(SessionTable(self.columns, self.rows[place : place + 1])))

    def __iter__(self) -> Iterator[FineTuningInput]:
        """Yield the sessions in order."""
        for chunk in self.chunks():
            yield from map(FineTuningInput, *chunk.as_lists())

    def as_lists(self) -> list[list[Any]]:
        """Return the fields of `FineTuningInput` in their order, a list over the sessions for each."""
        columns = self.columns
        ends = np.cumsum(self.lengths)
        bounds = list(zip((ends - self.lengths).tolist(), ends.tolist(), strict=True))

        def by_session(values: list[Any]) -> list[Any]:
            return [tuple(values[start:end]) for start, end in bounds]

        def named(name: str, names: Sequence[str]) -> list[str | None]:
            return [None if code < 0 else names[code] for code in self.of_session(name).tolist()]

        rank = self.of_result("rank")
        ranks = rank.tolist()
        for place in np.flatnonzero(np.isnan(rank)).tolist():
            ranks[place] = None
        items, queries, variants = columns.items.texts, columns.queries.texts, columns.variant_sets
        return [
            columns.ids.at(self.rows),
            [queries[code] for code in self.of_session("query").tolist()],
            by_session([items[code] for code in self.of_result("item").tolist()]),
            by_session(self.of_result("position").tolist()),
            by_session(ranks),
            by_session(self.weights.tolist()),
            self.of_session("timestamp").tolist(),
            named("user", columns.people.texts),
            named("release", columns.releases.texts),
            [variants[code] for code in self.of_session("variants").tolist()],
            named("client", columns.people.texts),
            self.of_session("by_relevance").tolist(),
        ]

    def __add__(self, others: Iterable[FineTuningInput]) -> list[FineTuningInput]:
        """Return these sessions and others behind them."""
        return [*self, *others]

    def __eq__(self, other: object) -> bool:
        """Two sequences of the same sessions in the same order are equal."""
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Name the sessions of a short table, and count those of a long one."""
        return repr(list(self)) if len(self) <= 20 else f"<SessionTable of {len(self):,} sessions>"


def in_order(codes: NDArray[np.integer]) -> NDArray[Any]:
    """Return the distinct codes, the one that came first first.

    >>> in_order(np.array([3, 1, 3, 2])).tolist()
    [3, 1, 2]
    """
    if len(codes) == 0:
        return codes
    first = np.full(int(codes.max()) + 1, len(codes), dtype=np.int64)
    np.minimum.at(first, codes, np.arange(len(codes)))
    found = np.flatnonzero(first < len(codes))
    return found[np.argsort(first[found], kind="stable")]


def dense(codes: NDArray[np.integer]) -> tuple[Ints, int]:
    """Return numbers from 0 without gaps, in the order of the codes, and how many there are."""
    if len(codes) == 0:
        return np.empty(0, dtype=np.int64), 0
    used = np.zeros(int(codes.max()) + 1, dtype=bool)
    used[codes] = True
    number = np.cumsum(used) - 1
    return number[codes], int(number[-1]) + 1


_TOGETHER = 5_000_000  # shown results whose pairs are numbered at a time


@dataclass(frozen=True)
class Pairs:
    """Distinct (query, item) of a table, those of a query side by side.

    Attributes:
        of_result: int32 [shown results], number of the pair.
        query: int64 [pairs], what the sessions were grouped by.
        item: int64 [pairs], in `columns.items`.
    """

    of_result: Codes
    query: Ints
    item: Ints

    @classmethod
    def of(cls, table: SessionTable, query: NDArray[np.integer]) -> Pairs:
        """Number the pairs of a table whose sessions ask the given queries, [sessions]."""
        lengths = table.lengths
        number = np.empty(int(lengths.sum()), dtype=np.int32)
        order = np.argsort(query, kind="stable")
        ends = np.cumsum(lengths)
        sums, asked = np.cumsum(lengths[order]), query[order]
        pairs: list[Ints] = []
        found, start, width = 0, 0, max(len(table.columns.items), 1)
        while start < len(order):
            # All sessions of a query fall into one piece.
            before = sums[start - 1] if start else 0
            last = max(int(np.searchsorted(sums, before + _TOGETHER)), start)
            stop = int(np.searchsorted(asked, asked[min(last, len(order) - 1)], side="right"))
            some = order[start:stop]
            sizes = lengths[some]
            piece = np.cumsum(sizes) - sizes
            places = np.repeat(ends[some] - sizes - piece, sizes) + np.arange(int(sizes.sum()))
            keys = np.repeat(query[some].astype(np.int64) * width, sizes)
            keys += table.take(some).of_result("item")
            distinct, inverse = np.unique(keys, return_inverse=True)
            number[places] = found + inverse
            pairs.append(distinct)
            found += len(distinct)
            start = stop
        whole = np.concatenate(pairs) if pairs else np.empty(0, dtype=np.int64)
        return cls(number, whole // width, whole % width)
