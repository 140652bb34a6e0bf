"""The clickstream in PostgreSQL: append searches and events, read them back as sessions."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estudio_core.clickstream.sessions import SearchResult, SessionEvent, SessionWithEvents
from estudio_core.clickstream.ubi import UbiEvent, UbiQuery, read_ubi
from estudio_core.errors import DataError
from estudio_core.streams import batched

if TYPE_CHECKING:
    import psycopg

CLICK_IMPORTANCE: Mapping[str, float] = {
    "click": 1.0,
    "item_click": 1.0,
    "product_click": 1.0,
    "add_to_cart": 2.0,
    "purchase": 3.0,
}
"""Actions that count as interest in a result, and how much a plain click they are worth.

A convention, not a measurement: an order is rarer and more deliberate than a click. An event's own
`importance` in its attributes goes before it. Every other action (impressions, hovers, filters) is no click.
"""

IMPRESSION_ACTIONS: frozenset[str] = frozenset({"impression"})
"""Actions that say a result was shown; they stand in where a query logged no hit ids."""

IRRELEVANT_ACTION = "mark_irrelevant"
"""Action that says none of a session's results was of use."""

_INSERT_BATCH = 2_000  # rows per statement: a few MB of JSON, far below PostgreSQL's 1 GB limit
_FETCH_BATCH = 500  # sessions per round trip of the server-side cursor


@dataclass(frozen=True)
class Logged:
    """How many rows were new, and how many were there already."""

    inserted: int
    duplicates: int


@dataclass(frozen=True)
class Imported:
    """What a UBI file brought, and the lines that could not be used."""

    queries: Logged
    events: Logged
    skipped: tuple[str, ...]


class ClickstreamStore:
    """UBI tables on one connection; the caller commits.

    Args:
        connection: An open psycopg connection to a database with Estudio's schema.
        click_importance: Which actions are clicks, and their weight against a plain click.
        impression_actions: Which actions say that a result was shown.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        click_importance: Mapping[str, float] = CLICK_IMPORTANCE,
        impression_actions: Iterable[str] = IMPRESSION_ACTIONS,
    ) -> None:
        self._connection = connection
        self._importance = dict(click_importance)
        self._impressions = sorted(impression_actions)
        wrong = {action: weight for action, weight in self._importance.items() if not weight > 0}
        if wrong:
            raise DataError(f"Importance of actions must be above 0; got {wrong}. Leave out what is no click.")

    def log_queries(self, queries: Iterable[UbiQuery]) -> Logged:
        """Append searches; one whose `query_id` is known is ignored and counted."""
        return self._log(_INSERT_QUERIES, queries)

    def log_events(self, events: Iterable[UbiEvent]) -> Logged:
        """Append events, before or after their query; one whose `event_id` is known is ignored and counted."""
        return self._log(_INSERT_EVENTS, events)

    def import_ubi(self, path: Path) -> Imported:
        """Append a UBI bulk file (ndjson); importing it again changes nothing.

        Raises:
            DataError: the file cannot be read or is not ndjson.
        """
        log = read_ubi(path)
        return Imported(self.log_queries(log.queries), self.log_events(log.events), tuple(log.skipped))

    def mark_irrelevant(self, query_id: str, at: datetime | None = None) -> None:
        """Note that no result of a search was of use. Marking again changes nothing.

        Raises:
            DataError: the search is not known.
        """
        row = self._connection.execute(
            "SELECT application FROM estudio.ubi_queries WHERE query_id = %s", [query_id]
        ).fetchone()
        if row is None:
            raise DataError(f"No search {query_id!r} in the clickstream. Log the search first.")
        self.log_events(
            [
                UbiEvent(
                    event_id=f"{query_id}/{IRRELEVANT_ACTION}",
                    action_name=IRRELEVANT_ACTION,
                    query_id=query_id,
                    timestamp=at or datetime.now(UTC),
                    application=row[0],
                )
            ]
        )

    def sessions(
        self,
        application: str,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[SessionWithEvents]:
        """Iterate over sessions in order of (time, query id), read with one query and a server-side cursor.

        Args:
            application: The application whose searches are wanted.
            since: Earliest time, included.
            until: Latest time, excluded.
            limit: Most sessions; the newest are kept.
        """
        parameters = {
            "application": application,
            "since": since,
            "until": until,
            "limit": limit,
            "clicks": list(self._importance),
            "impressions": self._impressions,
            "irrelevant": IRRELEVANT_ACTION,
        }
        # WITH HOLD: the caller may commit between two sessions.
        name = f"estudio_sessions_{next(_cursor_numbers)}"
        with self._connection.cursor(name=name, withhold=True) as cursor:
            cursor.itersize = _FETCH_BATCH
            for row in cursor.execute(_SELECT_SESSIONS, parameters):
                yield self._session(row)

    def count_sessions(
        self,
        application: str,
        since: datetime | None = None,
        until: datetime | None = None,
        logged_since: datetime | None = None,
        clicked_only: bool = False,
        most: int | None = None,
    ) -> int:
        """Return the number of sessions.

        Args:
            application: The application whose searches are wanted.
            since: Earliest time of the search, included.
            until: Latest time of the search, excluded.
            logged_since: Earliest moment at which the search was logged, which may be long after its own time.
            clicked_only: Only sessions with at least one click.
            most: Where counting ends; all by default.
        """
        row = self._connection.execute(
            _COUNT_SESSIONS,
            {
                "application": application,
                "since": since,
                "until": until,
                "logged_since": logged_since,
                "clicked_only": clicked_only,
                "clicks": list(self._importance),
                "most": most,
            },
        ).fetchone()
        assert row is not None
        return int(row[0])

    def _log(self, statement: str, rows: Iterable[UbiQuery | UbiEvent]) -> Logged:
        import psycopg

        given = inserted = 0
        try:
            with self._connection.transaction():
                for batch in batched(rows, _INSERT_BATCH):
                    given += len(batch)
                    inserted += self._connection.execute(statement, [_json(batch)]).rowcount
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise DataError(f"PostgreSQL refuses a row: {str(error).strip()}. None of the rows was logged.") from error
        return Logged(inserted, given - inserted)

    def _session(self, row: tuple[Any, ...]) -> SessionWithEvents:
        query_id, client_id, user_query, hits, scores, created_at, attributes, clicks, impressions, irrelevant = row
        return SessionWithEvents(
            session_id=query_id,
            query=user_query,
            created_at=created_at,
            search_results=_shown(hits, scores, impressions),
            search_meta=_fields(attributes) or None,
            user_id=client_id,
            release=_name(_fields(attributes).get("release")),
            is_irrelevant=irrelevant,
            events=[
                SessionEvent(
                    event_id=event_id,
                    object_id=object_id,
                    event_type=action,
                    created_at=moment,
                    importance=_importance(_fields(attributes).get("importance"), self._importance[action]),
                    meta=_fields(attributes) or None,
                )
                for event_id, object_id, action, moment, attributes in clicks
            ],
        )


def _fields(attributes: Any) -> dict[str, Any]:
    """Return the attributes of a row. Applications write them: one of another shape is no reason to read no session."""
    return attributes if isinstance(attributes, dict) else {}


def _name(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int) else None


def _importance(value: Any, usual: float) -> float:
    """Return the importance that an event gives itself where that is a number above 0, else what is usual."""
    given = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
    return float(value) if given else usual


def _shown(hits: list[str], scores: list[float] | None, impressions: list[list[Any]]) -> list[SearchResult]:
    """Return what was shown: the logged hits, then impressions that are not among them.

    A result that stands twice keeps its first position. An impression without an ordinal goes to the end.
    """
    results: dict[str, SearchResult] = {}
    for position, object_id in enumerate(hits):
        rank = scores[position] if scores else None
        results.setdefault(object_id, SearchResult(object_id=object_id, rank=rank, position=position))
    for object_id, ordinal in impressions:
        position = max(ordinal - 1, 0) if ordinal is not None else len(results)
        results.setdefault(object_id, SearchResult(object_id=object_id, position=position))
    return list(results.values())


def _json(rows: list[UbiQuery | UbiEvent]) -> str:
    """Return rows as one JSON array.

    Raises:
        DataError: a value has no JSON form, a number is not finite, or a time has no zone.
    """
    for row in rows:
        if row.timestamp.tzinfo is None:
            raise DataError(f"Timestamp of {row} has no time zone. Use an aware datetime, such as datetime.now(UTC).")
    try:
        return json.dumps([asdict(row) for row in rows], default=_plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"A row has no JSON form: {error}. Use texts, finite numbers, lists and dicts.") from error


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} {value!r}")


_cursor_numbers = itertools.count()

# One JSON array per statement: a single round trip, ragged lists of hits included.
_INSERT_QUERIES = """
INSERT INTO estudio.ubi_queries (query_id, client_id, user_query, query_response_hit_ids, query_response_scores,
                                 "timestamp", application, query_attributes)
SELECT query_id, client_id, user_query, query_response_hit_ids, query_response_scores,
       "timestamp", application, query_attributes
FROM jsonb_to_recordset(%s::jsonb) AS row(
    query_id text, client_id text, user_query text, query_response_hit_ids text[],
    query_response_scores double precision[], "timestamp" timestamptz, application text, query_attributes jsonb)
ON CONFLICT (query_id) DO NOTHING
"""

_INSERT_EVENTS = """
INSERT INTO estudio.ubi_events (event_id, action_name, query_id, client_id, user_query, object_id, position_ordinal,
                                "timestamp", event_attributes, application)
SELECT event_id, action_name, query_id, client_id, user_query, object_id, position_ordinal,
       "timestamp", event_attributes, application
FROM jsonb_to_recordset(%s::jsonb) AS row(
    event_id text, action_name text, query_id text, client_id text, user_query text, object_id text,
    position_ordinal integer, "timestamp" timestamptz, event_attributes jsonb, application text)
ON CONFLICT (event_id) DO NOTHING
"""

_SELECT_SESSIONS = """
WITH newest AS (
    SELECT query_id, client_id, user_query, query_response_hit_ids, query_response_scores, "timestamp",
           query_attributes
    FROM estudio.ubi_queries
    WHERE application = %(application)s
      AND (%(since)s::timestamptz IS NULL OR "timestamp" >= %(since)s)
      AND (%(until)s::timestamptz IS NULL OR "timestamp" < %(until)s)
    ORDER BY "timestamp" DESC, query_id DESC
    LIMIT %(limit)s
)
SELECT query_id, client_id, user_query, query_response_hit_ids, query_response_scores,
       floor(extract(epoch FROM "timestamp"))::bigint, query_attributes, clicks, impressions, irrelevant
FROM newest
CROSS JOIN LATERAL (
    SELECT
        coalesce(jsonb_agg(jsonb_build_array(event_id, object_id, action_name,
                                             floor(extract(epoch FROM e."timestamp"))::bigint, event_attributes)
                           ORDER BY e."timestamp", event_id)
                 FILTER (WHERE action_name = ANY(%(clicks)s) AND object_id IS NOT NULL), '[]') AS clicks,
        coalesce(jsonb_agg(jsonb_build_array(object_id, position_ordinal)
                           ORDER BY position_ordinal, e."timestamp", event_id)
                 FILTER (WHERE action_name = ANY(%(impressions)s) AND object_id IS NOT NULL), '[]') AS impressions,
        coalesce(bool_or(action_name = %(irrelevant)s), false) AS irrelevant
    FROM estudio.ubi_events e
    WHERE e.query_id = newest.query_id AND e.application = %(application)s
) AS seen
ORDER BY "timestamp", query_id
"""

_COUNT_SESSIONS = """
SELECT count(*) FROM (
SELECT FROM estudio.ubi_queries q
WHERE application = %(application)s
  AND (%(logged_since)s::timestamptz IS NULL OR coalesce(logged_at, "timestamp") >= %(logged_since)s)
  AND (%(since)s::timestamptz IS NULL OR "timestamp" >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR "timestamp" < %(until)s)
  AND (NOT %(clicked_only)s OR EXISTS (
      SELECT FROM estudio.ubi_events e
      WHERE e.query_id = q.query_id AND e.application = q.application AND e.action_name = ANY(%(clicks)s)
        AND e.object_id IS NOT NULL))
LIMIT %(most)s) counted
"""
