"""Whose sessions count, and for how much: machines are left out, and nobody outvotes the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.fine_tuning_input import FineTuningInput
from estudio_core.clickstream.session_table import SessionTable
from estudio_core.clickstream.table_builder import table_of

MOST_SESSIONS_OF_CLIENT = 3, 100
"""Sessions of one client that count, of one query and in all: what one visitor does a hundred times is one opinion."""

MOST_SEARCHES = {3_600: 300, 86_400: 1_000}
"""Searches of one client within so many seconds, of which more are a machine's: one each twelve seconds for an hour,
or one each minute and a half for a day and a night."""
LONGEST_WAKE_S = 48 * 3_600
"""Time after which a person has slept."""
SHORTEST_REST_S = 3 * 3_600
_SEARCHES_OF_A_WAKE = 100  # fewer may lie so close together by chance
_STEADY = 0.1  # standard deviation of the time between searches over its mean, below which a clock asks
_SEARCHES_OF_A_CLOCK = 50
CLICKED_SHARE = 0.25
"""Share of what it was shown that a client clicks, from which it chooses nothing, if that is also
`TIMES_THE_OTHERS` that of the others."""
TIMES_THE_OTHERS = 3.0
_SESSIONS_OF_CLICKER, _RESULTS_OF_CLICKER = 10, 100

RATE, NO_REST, STEADY, EVERYTHING = (
    "more searches than a person makes",
    "searches without a night's rest",
    "searches by the clock",
    "clicks on everything",
)


@dataclass(frozen=True)
class LeftOut:
    """What `counted_sessions` left out.

    Attributes:
        clients: Number of implausible clients by reason.
        sessions: Their sessions.
        beyond_cap: Sessions of plausible clients beyond `MOST_SESSIONS_OF_CLIENT`.
        capped_clients: Clients that have such sessions.
    """

    clients: Mapping[str, int] = field(default_factory=dict)
    sessions: int = 0
    beyond_cap: int = 0
    capped_clients: int = 0

    def __bool__(self) -> bool:
        """True where anything was left out."""
        return bool(self.sessions or self.beyond_cap)

    @property
    def by_reason(self) -> dict[str, int]:
        """Sessions by reason."""
        found = {"of implausible clients": self.sessions, "beyond what counts of one client": self.beyond_cap}
        return {reason: count for reason, count in found.items() if count}

    def __str__(self) -> str:
        """Say it in a line; empty where nothing was left out."""
        said = []
        if self.clients:
            reasons = ", ".join(f"{count} for {reason}" for reason, count in sorted(self.clients.items()))
            said.append(f"{self.sessions:,} sessions of {sum(self.clients.values()):,} implausible clients ({reasons})")
        if self.beyond_cap:
            of_query, in_all = MOST_SESSIONS_OF_CLIENT
            said.append(
                f"{self.beyond_cap:,} sessions of {self.capped_clients:,} clients beyond the {of_query} of a query and "
                f"{in_all} in all that count"
            )
        return "; ".join(said)


def counted_sessions(sessions: Iterable[FineTuningInput], machines: bool = False) -> tuple[SessionTable, LeftOut]:
    """Return the sessions that count, in their order, and what was left out.

    With `machines`, sessions of implausible clients count like those of others.

    Sessions that name no client all count. The first ones of a client do; a log that calls all of its users by one name
    (that of an app, or a proxy) had better leave it out.

    >>> asked = [FineTuningInput(str(i), "lamp", ("a",), (0,), (None,), (1.0,), client_id="x") for i in range(5)]
    >>> other = FineTuningInput("other", "lamp", ("a",), (0,), (None,), (1.0,), client_id="y")
    >>> kept, left_out = counted_sessions([*asked, other])
    >>> [session.session_id for session in kept], str(left_out)
    (['0', '1', '2', 'other'], '2 sessions of 1 clients beyond the 3 of a query and 100 in all that count')
    """
    table = table_of(sessions)
    counted, left_out = which_count(table, machines)
    return table.where(counted), left_out


def which_count(table: SessionTable, machines: bool = False) -> tuple[NDArray[np.bool_], LeftOut]:
    """Return which sessions count, bool [sessions], and what does not, see `counted_sessions`."""
    client = table.clients
    reasons = {} if machines else _implausible(table, client)
    machine = np.zeros(len(table.columns.people) + 1, dtype=bool)  # the last one is nobody
    machine[list(reasons)] = True
    of_machine = machine[client]
    named = np.flatnonzero((client >= 0) & ~of_machine)
    # Until a client has all that counts of it, what counts are the first sessions of each of its queries; none later.
    pair = client[named].astype(np.int64) * (len(table.columns.queries.keys) + 1) + table.keys[named]
    first = named[_places_in_group(pair) < MOST_SESSIONS_OF_CLIENT[0]]
    kept = first[_places_in_group(client[first]) < MOST_SESSIONS_OF_CLIENT[1]]
    counted = client < 0
    counted[kept] = True
    beyond = ~counted & ~of_machine
    left_out = LeftOut(
        dict(Counter(reasons.values())), int(of_machine.sum()), int(beyond.sum()), len(np.unique(client[beyond]))
    )
    return counted, left_out


def _places_in_group(groups: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return how many of the same group stand before each, in the order given."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(groups) else order
    places = np.empty(len(groups), dtype=np.int64)
    places[order] = np.arange(len(groups)) - np.repeat(begins, np.diff(begins, append=len(groups)))
    return places


def implausible_clients(sessions: Iterable[FineTuningInput]) -> dict[str, str]:
    """Return the clients that are hardly people, with the reason.

    One that searches more often than anybody can (`MOST_SEARCHES`), for two days and nights without three hours' rest,
    in the rhythm of a clock, or that clicks at least a quarter of what it is shown, three times the share of all
    others, where there are others. Times of 0 are not known. Who merely searches much is none of them.
    """
    table = table_of(sessions)
    return {table.columns.people[client]: why for client, why in _implausible(table, table.clients).items()}


def _implausible(table: SessionTable, client: NDArray[np.integer]) -> dict[int, str]:
    """Return the reason by number of the client, in the order in which they came."""
    count = len(table.columns.people)
    named = client >= 0
    searches = np.bincount(client[named], minlength=count)
    results = np.bincount(client[named], weights=table.lengths[named], minlength=count)
    clicks = np.bincount(client[named], weights=table.clicks[named], minlength=count)
    others = float(table.lengths.sum()) - results
    usual = TIMES_THE_OTHERS * (float(table.clicks.sum()) - clicks) / np.maximum(others, 1)
    clicker = (searches >= _SESSIONS_OF_CLICKER) & (np.minimum(results, others) >= _RESULTS_OF_CLICKER)
    clicker &= clicks / np.maximum(results, 1) >= np.maximum(CLICKED_SHARE, usual)
    found = dict.fromkeys(np.flatnonzero(clicker).tolist(), EVERYTHING)
    order = np.argsort(client, kind="stable")
    begins = np.searchsorted(client[order], np.arange(count + 1))
    timestamps = table.of_session("timestamp")
    for one in np.flatnonzero(searches >= _SEARCHES_OF_A_CLOCK).tolist():
        times = timestamps[order[begins[one] : begins[one + 1]]]
        reason = _unlike_a_person(np.sort(times[times > 0]))
        if reason is not None:
            found[one] = reason
    return {one: found[one] for one in sorted(found)}


def _unlike_a_person(times: NDArray[np.int64]) -> str | None:
    """Return what speaks against searches at these times, sorted, seconds, being a person's."""
    for span, most in MOST_SEARCHES.items():
        if len(times) > most and (times[most:] - times[:-most] < span).any():
            return RATE
    gaps = np.diff(times)
    if len(times) >= _SEARCHES_OF_A_CLOCK and gaps.mean() >= 1 and gaps.std() < _STEADY * gaps.mean():
        return STEADY
    if len(times) >= _SEARCHES_OF_A_WAKE:
        rests = np.flatnonzero(gaps >= SHORTEST_REST_S)
        first, last = np.concatenate([[0], rests + 1]), np.concatenate([rests, [len(times) - 1]])
        wakes = (times[last] - times[first] > LONGEST_WAKE_S) & (last - first + 1 >= _SEARCHES_OF_A_WAKE)
        if wakes.any():
            return NO_REST
    return None
