"""Rows into the clickstream's tables: a batch a statement, known rows ignored, pages of a search merged."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from estudio_core.clickstream.pages import Page, Search, pages_from_json
from estudio_core.clickstream.ubi import Row, UbiEvent, UbiQuery, checked
from estudio_core.errors import DataError, shown
from estudio_core.streams import batched

if TYPE_CHECKING:
    import psycopg

INSERT_BATCH = 2_000
"""Rows per statement: a few MB of JSON, far below PostgreSQL's 1 GB limit."""
_MOST_NAMED = 1_000

Key = tuple[str, str]
"""Application and query id."""


@dataclass(frozen=True)
class Logged:
    """What became of rows.

    Attributes:
        inserted: Rows that were new.
        duplicates: Rows that brought nothing new, those that contradict a known one among them.
        merged: Searches' rows that brought further results of a known one.
        contradictions: (application, query id) of rows whose id is that of a search for something else: left out. The
            first thousand.
    """

    inserted: int
    duplicates: int
    merged: int = 0
    contradictions: tuple[Key, ...] = field(default=(), compare=False)


def append_queries(connection: psycopg.Connection, rows: Iterable[UbiQuery]) -> Logged:
    """Append searches in one transaction; see `ClickstreamStore.log_queries`."""
    with whole(connection):
        return put_queries(connection, rows)


def put_queries(connection: psycopg.Connection, rows: Iterable[UbiQuery]) -> Logged:
    """Append searches in a transaction that has begun, with `whole`."""
    given = inserted = merged = 0
    contradictions: list[Key] = []
    wrong: list[UbiQuery] = []
    for batch in batched(_rows(rows, UbiQuery), INSERT_BATCH):
        given += len(batch)
        found: dict[Key, Search] = {}
        joined: Counter[Key] = Counter()
        for row in batch:
            search = Search.of(row)
            known = found.get(_key(row))
            one = search if known is None else known.merged_with(search)
            if one is None:
                wrong.append(row)
                continue
            joined[_key(row)] += known is not None and one != known
            found[_key(row)] = one
        new, changed = _put(connection, found, wrong)
        if wrong:
            ordered = sorted(wrong, key=_key)
            places = [[row.application for row in ordered], [row.query_id for row in ordered]]
            connection.execute(_CONTRADICT, [*places, [row.timestamp for row in ordered]])
            contradictions += [_key(row) for row in wrong][: _MOST_NAMED - len(contradictions)]
            wrong.clear()
        inserted += len(new)
        merged += len(changed) + sum(joined[key] for key in (*new, *changed))
    return Logged(inserted, given - inserted - merged, merged, tuple(contradictions))


def _put(
    connection: psycopg.Connection, searches: dict[Key, Search], wrong: list[UbiQuery]
) -> tuple[list[Key], list[Key]]:
    """Insert searches, or merge them into those that are stored; return the keys of the new and of the changed ones.

    Keys go in one order, so that two writers wait for each other but never in a circle.
    """
    pending, new, changed = dict(searches), [], []
    while pending:
        ordered = [_stored(pending[key]) for key in sorted(pending)]
        for application, query_id in connection.execute(_INSERT_QUERIES, [_json(ordered)]).fetchall():
            new.append((application, query_id))
            del pending[application, query_id]
        if not pending:
            break
        updates = []
        for known in _read(connection, sorted(pending)):  # one that was deleted meanwhile is not there: once more
            search = pending.pop(_key(known.row))
            one = known.merged_with(search)
            if one is None:
                wrong.append(search.row)
            elif one != known:
                updates.append(_stored(one))
                changed.append(_key(search.row))
        if updates:
            connection.execute(_UPDATE_QUERIES, [_json(updates)])
    return new, changed


def _read(connection: psycopg.Connection, keys: Sequence[Key]) -> list[Search]:
    rows = connection.execute(_SELECT_QUERIES, [[key[0] for key in keys], [key[1] for key in keys]]).fetchall()
    found = []
    for application, query_id, text, hits, scores, moment, client, session, user, attributes, pages, inferred in rows:
        row = UbiQuery(
            query_id=query_id,
            user_query=text,
            timestamp=moment,
            application=application,
            query_response_hit_ids=tuple(hits),
            query_response_scores=tuple(scores) if scores is not None and len(scores) == len(hits) else None,
            client_id=client,
            session_id=session,
            user_id=user,
            query_attributes=attributes if isinstance(attributes, dict) else {},
        )
        own: tuple[Page, ...] = pages_from_json(pages) if pages else Search.of(row).pages
        found.append(Search(row, own, inferred))
    return found


def append_events(connection: psycopg.Connection, rows: Iterable[UbiEvent]) -> Logged:
    """Append events in one transaction; see `ClickstreamStore.log_events`."""
    with whole(connection):
        return put_events(connection, rows)


def put_events(connection: psycopg.Connection, rows: Iterable[UbiEvent]) -> Logged:
    """Append events in a transaction that has begun, with `whole`."""
    given = inserted = 0
    for batch in batched(_rows(rows, UbiEvent), INSERT_BATCH):
        given += len(batch)
        ordered = sorted(batch, key=lambda event: (event.application, str(event.event_id)))
        inserted += connection.execute(_INSERT_EVENTS, [_json([_event(event) for event in ordered])]).rowcount
        keys = sorted({(e.application, e.query_id) for e in batch if e.user_query and e.object_id is not None})
        if keys:
            connection.execute(_INFER_QUERIES, [[key[0] for key in keys], [key[1] for key in keys]])
    return Logged(inserted, given - inserted)


@contextmanager
def whole(connection: psycopg.Connection) -> Iterator[None]:
    """One transaction for all rows; what PostgreSQL says of one becomes a `DataError`.

    Raises:
        DataError: PostgreSQL refuses a row; none of them was logged.
    """
    import psycopg

    try:
        with connection.transaction():
            yield
    except (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded) as error:
        raise DataError(f"PostgreSQL refuses a row: {str(error).strip()}. None of the rows was logged.") from error


def _rows(given: Any, kind: type[Row]) -> Iterator[Row]:
    try:
        rows = iter(given)
    except TypeError as error:
        raise DataError(f"A list of {kind.__name__} is wanted; given {shown(given)}.") from error
    return (checked(row, kind) for row in rows)


def _key(row: UbiQuery) -> Key:
    return row.application, row.query_id


def _stored(search: Search) -> dict[str, Any]:
    row = search.row
    return {
        "query_id": row.query_id,
        "client_id": row.client_id,
        "session_id": row.session_id,
        "user_id": row.user_id,
        "user_query": row.user_query,
        "query_response_hit_ids": row.query_response_hit_ids,
        "query_response_scores": row.query_response_scores,
        "timestamp": _aware(row),
        "application": row.application,
        "query_attributes": row.query_attributes,
        "pages": search.pages_json(),
    }


def _event(event: UbiEvent) -> dict[str, Any]:
    return {
        "event_id": event.event_id,
        "action_name": event.action_name,
        "query_id": event.query_id,
        "client_id": event.client_id,
        "session_id": event.session_id,
        "user_id": event.user_id,
        "user_query": event.user_query,
        "object_id": event.object_id,
        "position_ordinal": event.position_ordinal,
        "timestamp": _aware(event),
        "event_attributes": event.event_attributes,
        "application": event.application,
    }


def _aware(row: UbiQuery | UbiEvent) -> str:
    if row.timestamp.tzinfo is None:
        raise DataError(
            f"Timestamp of {shown(row)} has no time zone. Use an aware datetime, such as datetime.now(UTC)."
        )
    return row.timestamp.isoformat()


def _json(rows: list[dict[str, Any]]) -> str:
    """Return rows as one JSON array: a single round trip, ragged lists of hits included.

    Raises:
        DataError: a value has no JSON form, or a number is not finite.
    """
    try:
        return json.dumps(rows, default=_plain, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"A row has no JSON form: {error}. Use texts, finite numbers, lists and dicts.") from error


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "items"):
        return dict(value.items())
    raise TypeError(f"{type(value).__name__} {shown(value)}")


_INSERT_QUERIES = """
INSERT INTO estudio.ubi_queries (query_id, client_id, session_id, user_id, user_query, query_response_hit_ids,
    query_response_scores, "timestamp", application, query_attributes, pages)
SELECT query_id, client_id, session_id, user_id, user_query, query_response_hit_ids, query_response_scores,
    "timestamp", application, query_attributes, nullif(pages, 'null')
FROM json_to_recordset(%s::json) AS row(
    query_id text, client_id text, session_id text, user_id text, user_query text,
    query_response_hit_ids text[], query_response_scores double precision[], "timestamp" timestamptz, application text,
    query_attributes jsonb, pages jsonb)
ON CONFLICT (application, query_id) DO NOTHING
RETURNING application, query_id
"""

_SELECT_QUERIES = """
SELECT q.application, q.query_id, user_query, query_response_hit_ids, query_response_scores, "timestamp", client_id,
    session_id, user_id, query_attributes, pages, inferred
FROM unnest(%s::text[], %s::text[]) AS wanted(application, query_id)
JOIN estudio.ubi_queries q USING (application, query_id)
ORDER BY q.application COLLATE "C", q.query_id COLLATE "C"
FOR UPDATE OF q
"""

_UPDATE_QUERIES = """
UPDATE estudio.ubi_queries q SET client_id = row.client_id, session_id = row.session_id, user_id = row.user_id,
    user_query = row.user_query, query_response_hit_ids = row.query_response_hit_ids,
    query_response_scores = row.query_response_scores, "timestamp" = row."timestamp",
    query_attributes = row.query_attributes, pages = nullif(row.pages, 'null'), inferred = false
FROM json_to_recordset(%s::json) AS row(
    query_id text, client_id text, session_id text, user_id text, user_query text,
    query_response_hit_ids text[], query_response_scores double precision[], "timestamp" timestamptz, application text,
    query_attributes jsonb, pages jsonb)
WHERE q.application = row.application AND q.query_id = row.query_id
"""

# What was done after the other search had been asked is not told apart from what was done after this one.
_CONTRADICT = """
UPDATE estudio.ubi_queries q SET contradicted_at = least(q.contradicted_at, other.at)
FROM (
    SELECT application, query_id, min(at) AS at
    FROM unnest(%s::text[], %s::text[], %s::timestamptz[]) AS each(application, query_id, at) GROUP BY 1, 2
) AS other
WHERE q.application = other.application AND q.query_id = other.query_id AND other.at > q."timestamp"
    AND (q.contradicted_at IS NULL OR q.contradicted_at > other.at)
"""

_INSERT_EVENTS = """
INSERT INTO estudio.ubi_events (event_id, action_name, query_id, client_id, session_id, user_id, user_query, object_id,
    position_ordinal, "timestamp", event_attributes, application)
SELECT event_id, action_name, query_id, client_id, session_id, user_id, user_query, object_id, position_ordinal,
    "timestamp", event_attributes, application
FROM json_to_recordset(%s::json) AS row(
    event_id text, action_name text, query_id text, client_id text, session_id text, user_id text, user_query text,
    object_id text, position_ordinal integer, "timestamp" timestamptz, event_attributes jsonb, application text)
ON CONFLICT (application, event_id) DO NOTHING
"""

# The earliest event that says what was asked stands in for the search; every one of them is looked at, so that it makes
# no difference in which order, and in how many batches, they came.
_INFER_QUERIES = """
INSERT INTO estudio.ubi_queries AS known (application, query_id, client_id, session_id, user_id, user_query,
    "timestamp", inferred)
SELECT DISTINCT ON (e.application, e.query_id) e.application, e.query_id, e.client_id, e.session_id, e.user_id,
    e.user_query, e."timestamp", true
FROM unnest(%s::text[], %s::text[]) AS wanted(application, query_id)
LEFT JOIN estudio.ubi_queries q USING (application, query_id)
JOIN estudio.ubi_events e USING (application, query_id)
WHERE q.inferred IS DISTINCT FROM false AND e.user_query <> '' AND e.object_id IS NOT NULL
ORDER BY e.application, e.query_id, e."timestamp", e.event_id
ON CONFLICT (application, query_id) DO UPDATE SET client_id = excluded.client_id, session_id = excluded.session_id,
    user_id = excluded.user_id, user_query = excluded.user_query, "timestamp" = excluded."timestamp"
WHERE known.inferred AND (known.client_id, known.session_id, known.user_id, known.user_query, known."timestamp")
    IS DISTINCT FROM
    (excluded.client_id, excluded.session_id, excluded.user_id, excluded.user_query, excluded."timestamp")
"""
