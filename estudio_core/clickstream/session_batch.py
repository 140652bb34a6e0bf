"""Sessions as the database gives them: some rows, as columns of plain lists, and as `SessionWithEvents`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from estudio_core.clickstream.actions import SATISFIED_DWELL_S, SATISFIED_IMPORTANCE
from estudio_core.clickstream.sessions import SearchResult, SessionEvent, SessionWithEvents


@dataclass(frozen=True)
class BatchEvent:
    """A click: which of the results of its session it was on, what it counts for, and the rest of its row."""

    result: int
    importance: float
    event_id: str
    event_type: str
    created_at: int
    meta: dict[str, Any] | None


@dataclass(frozen=True)
class SessionBatch:
    """Some sessions, in parallel lists; the fields are those of `SessionWithEvents`.

    Attributes:
        results: Distinct object ids of each session; `ranks` and `positions` are parallel.
        ranks: None: no score of the session is known.
        positions: None: 0, 1, 2, ...
        events: None: there was none.
    """

    session_id: Sequence[str]
    query: Sequence[str]
    created_at: Sequence[int]
    results: Sequence[Sequence[str]]
    ranks: Sequence[Sequence[float | None] | None]
    positions: Sequence[Sequence[int] | None]
    search_meta: Sequence[dict[str, Any] | None]
    """`release` is said there, where it is known."""
    is_irrelevant: Sequence[bool]
    is_refined: Sequence[bool]
    client_id: Sequence[str | None]
    visit_id: Sequence[str | None]
    user_id: Sequence[str | None]
    events: Sequence[Sequence[BatchEvent] | None]

    def __len__(self) -> int:
        """Return the number of sessions."""
        return len(self.session_id)

    @property
    def release(self) -> list[str | None]:
        """The release that served each session, where its search names one."""
        return [None if meta is None else _name(meta.get("release")) for meta in self.search_meta]

    def sessions(self) -> Iterator[SessionWithEvents]:
        """Yield the sessions one by one."""
        for row, release in enumerate(self.release):
            results = self.results[row]
            ranks = self.ranks[row] or [None] * len(results)
            positions = self.positions[row] or range(len(results))
            yield SessionWithEvents(
                session_id=self.session_id[row],
                query=self.query[row],
                created_at=self.created_at[row],
                search_results=[
                    SearchResult(object_id=object_id, rank=rank, position=position)
                    for object_id, rank, position in zip(results, ranks, positions, strict=True)
                ],
                search_meta=self.search_meta[row],
                client_id=self.client_id[row],
                visit_id=self.visit_id[row],
                user_id=self.user_id[row],
                release=release,
                is_irrelevant=self.is_irrelevant[row],
                is_refined=self.is_refined[row],
                events=[
                    SessionEvent(
                        event_id=event.event_id,
                        object_id=results[event.result],
                        event_type=event.event_type,
                        created_at=event.created_at,
                        importance=event.importance,
                        meta=event.meta,
                    )
                    for event in self.events[row] or ()
                ],
            )


def batch_of(rows: Sequence[tuple[Any, ...]], importance: Mapping[str, float], first_position: int) -> SessionBatch:
    """Return rows of `ClickstreamStore` as a batch.

    Args:
        rows: Search, hits, scores, time, attributes, clicks, impressions, marks, and who asked.
        importance: What actions count for.
        first_position: The ordinal of the topmost result.
    """
    ids, queries, hits, scores, times, attributes, clicks, impressions, irrelevant, refined, *who = zip(
        *rows, strict=True
    )
    shown = list(map(_shown, hits, scores, clicks, impressions, [first_position] * len(rows)))
    results, ranks, positions = zip(*shown, strict=True)
    return SessionBatch(
        session_id=ids,
        query=queries,
        created_at=times,
        results=results,
        ranks=ranks,
        positions=positions,
        search_meta=[_fields(each) or None for each in attributes],
        is_irrelevant=irrelevant,
        is_refined=refined,
        client_id=who[0],
        visit_id=who[1],
        user_id=who[2],
        events=[each and _events(each, of, importance) for each, of in zip(clicks, results, strict=True)],
    )


def _events(clicks: list[list[Any]], results: Sequence[str], importance: Mapping[str, float]) -> list[BatchEvent]:
    return [
        BatchEvent(results.index(object_id), worth, event_id, action, moment, _fields(attributes) or None)
        for event_id, object_id, action, moment, attributes, _ in clicks
        if (worth := _worth(action, _fields(attributes), importance)) is not None
    ]


def _fields(attributes: Any) -> dict[str, Any]:
    """Return the attributes of a row. Applications write them: one of another shape is no reason to read no session."""
    return attributes if isinstance(attributes, dict) else {}


def _name(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int) else None


def _worth(action: str, attributes: Mapping[str, Any], importance: Mapping[str, float]) -> float | None:
    """Return what an event counts for against a plain click: what it says itself, else what is usual; None: nothing."""
    given = attributes.get("importance")
    if isinstance(given, int | float) and not isinstance(given, bool) and 0 < given < math.inf:
        return float(given)
    usual = importance.get(action)
    dwell = attributes.get("dwell_s")
    if isinstance(dwell, int | float) and not isinstance(dwell, bool) and dwell >= SATISFIED_DWELL_S:
        return max(usual or 0.0, SATISFIED_IMPORTANCE)
    return usual


Shown = tuple[Sequence[str], Sequence[float | None] | None, Sequence[int] | None]


def _shown(
    hits: list[str],
    scores: list[float] | None,
    clicks: list[list[Any]] | None,
    impressions: list[list[Any]] | None,
    first_position: int,
) -> Shown:
    """Return what was shown: the logged hits, then what users saw or clicked that is not among them.

    A result that stands twice keeps its first position. One without an ordinal goes to the end.

    Args:
        hits: Ids in the order shown.
        scores: Parallel to them.
        clicks: Rows of events, with object id and ordinal.
        impressions: Object ids and ordinals.
        first_position: The ordinal of the topmost result.

    Returns:
        Object ids, their scores, and their positions, see `SessionBatch`.
    """
    known = set(hits)
    if len(known) == len(hits) and not impressions and all(click[1] in known for click in clicks or ()):
        return hits, scores or None, None
    found: dict[str, tuple[float | None, int]] = {}
    for position, object_id in enumerate(hits):
        found.setdefault(object_id, (scores[position] if scores else None, position))
    end = len(hits)
    seen = sorted(((click[1], click[5]) for click in clicks or ()), key=_by_ordinal)
    for object_id, ordinal in (*(impressions or ()), *seen):
        if object_id not in found:
            position = max(ordinal - first_position, 0) if ordinal is not None else end
            found[object_id] = (None, position)
            end = max(end, position + 1)
    return list(found), [rank for rank, _ in found.values()], [position for _, position in found.values()]


def _by_ordinal(shown: tuple[str, int | None]) -> tuple[bool, int]:
    return shown[1] is None, shown[1] or 0
