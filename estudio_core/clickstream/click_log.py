"""Held-out clicks, counted for counterfactual estimates: how often each result was looked at, and what that brought."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.clients import counted_sessions
from estudio_core.clickstream.fine_tuning_input import FineTuningInput
from estudio_core.clickstream.position_bias import in_reading_order, mean_of_known
from estudio_core.clickstream.session_table import Pairs, dense, in_order
from estudio_core.clickstream.table_builder import table_of
from estudio_core.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_ABOVE = 3
"""Clicks above a result that are told apart: three or more are one kind."""
_FEW_CLICKS = 5.0
"""Clicks' worth of belief that one click more leaves as much attention as the clicks before it did."""
_DENSE = 20_000_000  # numbers of a table that is counted into without sorting: 160 MB


class PairNames(Sequence[tuple[str, str]]):
    """Query text and object id of each pair, made when they are asked for."""

    def __init__(self, queries: Sequence[str], items: Sequence[str], query: Ints, item: Ints) -> None:
        self._queries, self._items = queries, items
        self._query, self._item = query, item

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self._query)

    @overload
    def __getitem__(self, pair: int) -> tuple[str, str]: ...
    @overload
    def __getitem__(self, pair: slice) -> tuple[tuple[str, str], ...]: ...
    def __getitem__(self, pair: int | slice) -> tuple[str, str] | tuple[tuple[str, str], ...]:
        """Return query and object of a pair, or of some."""
        if isinstance(pair, slice):
            return tuple(PairNames(self._queries, self._items, self._query[pair], self._item[pair]))
        return self._queries[int(self._query[pair])], self._items[int(self._item[pair])]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield query and object of each pair."""
        queries, items = self._named(self._queries, self._query), self._named(self._items, self._item)
        return iter(zip(queries, items, strict=True))

    @staticmethod
    def _named(names: Sequence[str], codes: Ints) -> list[str]:
        return [names[code] for code in codes.tolist()]

    def __eq__(self, other: object) -> bool:
        """Two sequences of the same names in the same order are equal."""
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class ClickLog:
    """Shown results, flat: by session, and by position within each session.

    Attributes:
        sessions: int64 [impressions], number of the session from 0, rising.
        positions: int64 [impressions], 0-based place at which it was shown.
        pairs: int64 [impressions], number of the (query, object) pair from 0.
        rewards: float64 [impressions], importance of what was done with it; 0 where nothing was.
        queries: int64 [pairs], number of the pair's query from 0.
        scores: float64 [pairs], score by which it was ranked, mean over its sessions; NaN where that is not known.
        clients: int64 [sessions], number of the client; negative where it is not known.
        names: Query text and object id of each pair; empty where nobody asks.
    """

    sessions: Ints
    positions: Ints
    pairs: Ints
    rewards: Floats
    queries: Ints
    scores: Floats
    clients: Ints
    names: Sequence[tuple[str, str]] = ()

    def __post_init__(self) -> None:
        """Refuse a log whose sessions do not stand in their order: what was clicked above would be misread."""
        step = np.diff(self.sessions)
        if (step < 0).any() or (np.diff(self.positions)[step == 0] <= 0).any():
            raise DataError("A click log lists sessions in rising order, and in each the positions from the top down.")

    @classmethod
    def of(cls, sessions: Iterable[FineTuningInput]) -> ClickLog:
        """Flatten the sessions that show a ranking by relevance, of a client as many as count (`counted_sessions`).

        Machines are left out where sessions are read, by all that they did there.
        Sessions of one query have to spell it alike (`with_one_spelling`). A score is the mean over the sessions that
        tell it; a number that is none (infinite, not a number) tells nothing.
        """
        table = table_of(sessions)
        table = table.where(table.of_session("by_relevance"))
        table, _ = counted_sessions(table, machines=True)
        asked = table.of_session("query")
        pairs = Pairs.of(table, asked)
        session, position = table.owners.astype(np.int64), table.of_result("position").astype(np.int64)
        order = in_reading_order(session, position)
        # Numbered as they come, whatever the codes of the table: made-up candidates are drawn by number.
        came = in_order(pairs.of_result[order])
        pair = _numbers(came, len(pairs.query))[pairs.of_result[order]]
        queries = in_order(asked)
        query, item = pairs.query[came], pairs.item[came]
        clients = table.clients
        return cls(
            session[order],
            position[order],
            pair,
            np.maximum(table.weights, 0.0)[order],
            _numbers(queries, len(table.columns.queries))[query],
            mean_of_known(table.of_result("rank")[order], pair, len(came)),
            np.where(clients < 0, -1, dense(np.maximum(clients, 0))[0]),
            PairNames(table.columns.queries, table.columns.items, query, item),
        )

    @cached_property
    def clicked(self) -> NDArray[np.bool_]:
        """Whether anything was done with it, [impressions]."""
        return self.rewards > 0

    @cached_property
    def sessions_of_query(self) -> Ints:
        """Sessions of each query, [queries]."""
        first = np.flatnonzero(np.diff(self.sessions, prepend=-1))
        return np.bincount(self.queries[self.pairs[first]], minlength=self.query_count)

    @property
    def query_count(self) -> int:
        """Distinct queries."""
        return int(self.queries.max(initial=-1)) + 1

    @cached_property
    def clicked_queries(self) -> int:
        """Distinct queries with a click."""
        return len(np.unique(self.queries[self.pairs[self.clicked]]))

    @cached_property
    def clicks_above(self) -> Ints:
        """How much above it was clicked in its session, `MOST_ABOVE` at most, [impressions]."""
        clicks: Ints = np.cumsum(self.clicked) - self.clicked
        start = np.flatnonzero(np.diff(self.sessions, prepend=-1))
        above: Ints = clicks - np.repeat(clicks[start], np.diff(start, append=len(self.sessions)))
        return np.minimum(above, MOST_ABOVE)


def _numbers(codes: NDArray[np.integer], count: int) -> Ints:
    """Return the place of each of `count` codes among some of them."""
    numbers = np.full(count, -1, dtype=np.int64)
    numbers[codes] = np.arange(len(codes))
    return numbers


@dataclass(frozen=True)
class Cells:
    """Distinct (query, object, position) of a log, counted; all but the last are [cells].

    Attributes:
        pairs: Number of the (query, object) pair.
        positions: 0-based.
        looks: Impressions, those below clicks counted by `attention_after_clicks`: in proportion to how often it was
            looked at, but for what the position alone does.
        clicks: Impressions that were clicked.
        rewards: Their importance.
        attention_after_clicks: Attention below one, two, and more clicks over that where nothing above was clicked, 0
            to 1 each.
        of_impression: Number of the cell of each impression.
    """

    pairs: Ints
    positions: Ints
    looks: Floats
    clicks: Floats
    rewards: Floats
    attention_after_clicks: tuple[float, ...]
    of_impression: Ints

    @classmethod
    def of(cls, log: ClickLog, certain_by: float = 0.0) -> Cells:
        """Count a log.

        Who has clicked may leave (cascade and DBN) or read on (position-based). How much attention is left shows where
        the same result stood at the same place both below a click and without one: the ratio of its click rates
        there, pooled over results (Mantel-Haenszel), which the attraction of the result cannot disturb.

        Args:
            log: What to count.
            certain_by: Standard errors by which one click more has to leave another share of attention for that to be
                taken for so.

        Source: Craswell, Zoeter, Taylor, Ramsey (WSDM 2008) and Chapelle, Zhang (WWW 2009) for the models; Mantel,
        Haenszel (1959), in the form for rates of Rothman, "Modern Epidemiology".
        """
        width = int(log.positions.max(initial=-1)) + 1
        keys = log.pairs * width + log.positions
        if len(log.queries) * width <= _DENSE:
            counts = np.bincount(keys)
            kept = np.flatnonzero(counts)
            place = np.zeros(len(counts), dtype=np.int64)
            place[kept] = np.arange(len(kept))
            cell = place[keys]
        else:
            kept, cell = np.unique(keys, return_inverse=True)

        def count(weights: NDArray[np.bool_] | Floats) -> Floats:
            return np.bincount(cell, weights=weights, minlength=len(kept)).astype(np.float64)

        first = log.clicks_above == 0
        shown, clicks = count(first), count(log.clicked & first)
        looks, believed = shown, 0.0
        ratios: list[float] = []
        for above in range(1, MOST_ABOVE + 1):
            here = log.clicks_above == above
            below, clicks_below = count(here), count(log.clicked & here)
            both = np.maximum(shown + below, 1)
            left, whole = float(clicks_below @ (shown / both)), float(clicks @ (below / both))
            last = ratios[-1] if ratios else 1.0
            ratio = (left + believed * last) / (whole + believed) if whole + believed > 0 else last
            if certain_by:
                spread = clicks_below @ (shown / both) ** 2 + last**2 * (clicks @ (below / both) ** 2)
                ratio = last if abs(left - last * whole) <= certain_by * np.sqrt(spread) else ratio
            ratios.append(min(ratio, 1.0))
            looks = looks + ratios[-1] * below
            believed = _FEW_CLICKS
        kind = kept // max(width, 1), kept % max(width, 1)
        return cls(*kind, looks, count(log.clicked), count(log.rewards), tuple(ratios), cell)

    @property
    def attention_after_click(self) -> float:
        """Attention below one click over that where nothing above was clicked."""
        return self.attention_after_clicks[0]
