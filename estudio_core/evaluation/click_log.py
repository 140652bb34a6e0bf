"""Held-out clicks, counted for counterfactual estimates: how often each result was looked at, and what that brought."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.ranking_data import FineTuningInput
from estudio_core.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_SESSIONS_OF_CLIENT = 3, 100
"""Sessions of one client that count, of one query and in all: what one visitor does a hundred times is one opinion."""
MOST_ABOVE = 3
"""Clicks above a result that are told apart: three or more are one kind."""
_FEW_CLICKS = 5.0
"""Clicks' worth of belief that one click more leaves as much attention as the clicks before it did."""
_DENSE = 20_000_000  # numbers of a table that is counted into without sorting: 160 MB


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
    names: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Refuse a log whose sessions do not stand in their order: what was clicked above would be misread."""
        step = np.diff(self.sessions)
        if (step < 0).any() or (np.diff(self.positions)[step == 0] <= 0).any():
            raise DataError("A click log lists sessions in rising order, and in each the positions from the top down.")

    @classmethod
    def of(cls, sessions: Iterable[FineTuningInput]) -> ClickLog:
        """Flatten sessions, of those of a client the first ones (`MOST_SESSIONS_OF_CLIENT`).

        Sessions of one query have to spell it alike (`with_one_spelling`).
        """
        pairs: dict[tuple[str, str], int] = {}
        queries: dict[str, int] = {}
        clients: dict[str, int] = {}
        of_client: dict[tuple[str, str] | str, int] = {}
        flat: list[tuple[int, int, int, float, float]] = []
        client_of: list[int] = []
        for session in sessions:
            client = session.user_id
            if client is not None and not _within_cap(of_client, client, session.query):
                continue
            number = len(client_of)
            client_of.append(-1 if client is None else clients.setdefault(client, len(clients)))
            queries.setdefault(session.query, len(queries))
            shown = zip(session.positions, session.results, session.click_weights, session.ranks, strict=True)
            for position, result, weight, score in sorted(shown, key=lambda impression: impression[0]):
                pair = pairs.setdefault((session.query, result), len(pairs))
                flat.append((number, position, pair, max(weight, 0.0), np.nan if score is None else score))
        table = np.array(flat, dtype=np.float64).reshape(-1, 5)
        number, position, pair = table[:, :3].astype(np.int64).T
        shows = np.bincount(pair, minlength=len(pairs))
        scores = np.bincount(pair, weights=table[:, 4], minlength=len(pairs)) / np.maximum(shows, 1)
        query_of = np.array([queries[query] for query, _ in pairs], dtype=np.int64)
        return cls(
            number, position, pair, table[:, 3], query_of, scores, np.array(client_of, dtype=np.int64), tuple(pairs)
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
    def of(cls, log: ClickLog) -> Cells:
        """Count a log.

        Who has clicked may leave (cascade and DBN) or read on (position-based). How much attention is left shows where
        the same result stood at the same place both below a click and without one: the ratio of its click rates
        there, pooled over results (Mantel-Haenszel), which the attraction of the result cannot disturb.

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
            ratios.append(min(ratio, 1.0))
            looks = looks + ratios[-1] * below
            believed = _FEW_CLICKS
        kind = kept // max(width, 1), kept % max(width, 1)
        return cls(*kind, looks, count(log.clicked), count(log.rewards), tuple(ratios), cell)

    @property
    def attention_after_click(self) -> float:
        """Attention below one click over that where nothing above was clicked."""
        return self.attention_after_clicks[0]


def _within_cap(of_client: dict[tuple[str, str] | str, int], client: str, query: str) -> bool:
    """Count a session of a client, and say whether it still counts."""
    of_query, in_all = of_client.get((client, query), 0), of_client.get(client, 0)
    if of_query >= MOST_SESSIONS_OF_CLIENT[0] or in_all >= MOST_SESSIONS_OF_CLIENT[1]:
        return False
    of_client[client, query], of_client[client] = of_query + 1, in_all + 1
    return True
