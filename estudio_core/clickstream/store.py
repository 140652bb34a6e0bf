"""The clickstream in PostgreSQL: append searches and events, read them back as sessions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from estudio_core.clickstream.actions import (
    CLICK_IMPORTANCE,
    DWELL_ACTION,
    IMPRESSION_ACTIONS,
    IRRELEVANT_ACTION,
)
from estudio_core.clickstream.appending import Logged, append_events, append_queries
from estudio_core.clickstream.applications import application_facts
from estudio_core.clickstream.asked import ONE_SPELLING
from estudio_core.clickstream.session_batch import SessionBatch, batch_of
from estudio_core.clickstream.sessions import SessionWithEvents
from estudio_core.clickstream.ubi import UbiEvent, UbiQuery
from estudio_core.database import errors_named
from estudio_core.errors import DataError, shown
from estudio_core.ids import as_id

if TYPE_CHECKING:
    import psycopg

    from estudio_core.clickstream.importing import Imported

SHARE_OF_QUERY, LEAST_OF_QUERY = 100, 20
"""Of the sessions that are kept of a log that has more, a query gets one in a hundred, or twenty, while others have
some left: no query is so frequent that it takes the place of all others."""

_REFINES = r"(^|[^a-z])(filter|filters|filtered|facet|facets|refine|refinement|sort|sorted|sorting)([^a-z]|$)"
"""Names of events that say that the user sorted or filtered the list: `brand_filter`, `product_sort`."""
_FETCH_BATCH = 1_000  # sessions per round trip of the server-side cursor


class ClickstreamStore:
    """UBI tables on one connection; the caller commits.

    Args:
        connection: An open psycopg connection to a database with Estudio's schema.
        click_importance: Which actions are clicks, and their weight against a plain click, beside those that an
            application has declared for itself.
        impression_actions: Which actions say that a result was shown; likewise.
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
        """Append searches. Rows of one id are pages of one search and merge; one that brings nothing new is counted.

        Raises:
            DataError: PostgreSQL refuses a row; then none is logged.
        """
        return append_queries(self._connection, queries)

    def log_events(self, events: Iterable[UbiEvent]) -> Logged:
        """Append events, before or after their query; one whose `event_id` is known is ignored and counted.

        What was done with a result makes a search known, where the event says what was asked, until its row comes.

        Raises:
            DataError: PostgreSQL refuses a row; then none is logged.
        """
        return append_events(self._connection, events)

    def import_ubi(self, path: Path) -> Imported:
        """Append the rows of a log file, of any form that `import_log` reads; importing it again changes nothing.

        Raises:
            DataError: the file cannot be read, or is none of a log.
        """
        from estudio_core.clickstream.importing import import_log

        return import_log(self._connection, str(path))

    def mark_irrelevant(self, query_id: str, at: datetime | None = None) -> None:
        """Note that no result of a search was of use. Marking again changes nothing.

        Raises:
            DataError: the search is not known.
        """
        query_id = as_id(query_id, "query_id")
        with errors_named():
            row = self._connection.execute(
                "SELECT application FROM estudio.ubi_queries WHERE query_id = %s", [query_id]
            ).fetchone()
        if row is None:
            raise DataError(f"No search {shown(query_id)} in the clickstream. Log the search first.")
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
        *,
        by_query: bool = False,
    ) -> Iterator[SessionWithEvents]:
        """Iterate over sessions in order of (time, query id), read with one query and a server-side cursor.

        Args:
            application: The application whose searches are wanted.
            since: Earliest time, included.
            until: Latest time, excluded.
            limit: Most sessions; the newest are kept.
            by_query: Those kept are drawn by lot from all, the same ones each time, and no query gets more than one in
                `SHARE_OF_QUERY` of them, or `LEAST_OF_QUERY`, while others have some left.
        """
        for batch in self.session_batches(application, since, until, limit, by_query=by_query):
            yield from batch.sessions()

    def session_batches(
        self,
        application: str,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
        *,
        by_query: bool = False,
    ) -> Iterator[SessionBatch]:
        """Iterate over the same sessions by the thousand, as columns; arguments as of `sessions`."""
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit < 2**63):
            raise DataError(f"limit is a number of sessions; given {shown(limit)}.")
        with errors_named():
            facts = application_facts(self._connection, application)
        importance = {**self._importance, **facts.clicks}
        parameters = {
            "application": application,
            "since": since,
            "until": until,
            "limit": limit,
            "clicks": [*importance, DWELL_ACTION],
            "impressions": [*self._impressions, *facts.impressions],
            "irrelevant": IRRELEVANT_ACTION,
            "refines": _REFINES,
            "of_query": None if limit is None else max(LEAST_OF_QUERY, limit // SHARE_OF_QUERY),
        }
        chosen = _DRAWN if by_query and limit is not None else _NEWEST
        statement = _SELECT_SESSIONS.format(chosen=chosen.format(window=_IN_WINDOW, spelling=ONE_SPELLING))
        # WITH HOLD: the caller may commit between two sessions.
        name = f"estudio_sessions_{next(_cursor_numbers)}"
        with errors_named(), self._connection.cursor(name=name, withhold=True, binary=True) as cursor:
            cursor.execute(statement, parameters)
            while rows := cursor.fetchmany(_FETCH_BATCH):
                yield batch_of(rows, importance, facts.first_position)

    def count_sessions(
        self,
        application: str,
        since: datetime | None = None,
        until: datetime | None = None,
        logged_since: datetime | None = None,
        or_since: datetime | None = None,
        clicked_only: bool = False,
        most: int | None = None,
    ) -> int:
        """Return the number of sessions.

        Args:
            application: The application whose searches are wanted.
            since: Earliest time of the search, included.
            until: Latest time of the search, excluded.
            logged_since: Earliest moment at which the search was logged, which may be long after its own time.
            or_since: Own time from which a search counts whenever it was logged.
            clicked_only: Only sessions with at least one click.
            most: Where counting ends; all by default.
        """
        with errors_named():
            row = self._connection.execute(
                _COUNT_SESSIONS,
                {
                    "application": application,
                    "since": since,
                    "until": until,
                    "logged_since": logged_since,
                    "or_since": or_since,
                    "clicked_only": clicked_only,
                    "clicks": [*self._importance, *application_facts(self._connection, application).clicks],
                    "most": most,
                },
            ).fetchone()
        assert row is not None
        return int(row[0])


_cursor_numbers = itertools.count()

_IN_WINDOW = """application = %(application)s AND user_query <> ''
      AND (%(since)s::timestamptz IS NULL OR "timestamp" >= %(since)s)
      AND (%(until)s::timestamptz IS NULL OR "timestamp" < %(until)s)"""

_NEWEST = """
    SELECT * FROM estudio.ubi_queries
    WHERE {window}
    ORDER BY "timestamp" DESC, query_id DESC
    LIMIT %(limit)s
"""

_DRAWN = """
    SELECT q.* FROM (
        SELECT query_id, lot, row_number() OVER (PARTITION BY asked ORDER BY lot, query_id) > %(of_query)s AS beyond
        FROM (
            SELECT query_id, md5(query_id) AS lot, {spelling} AS asked
            FROM estudio.ubi_queries
            WHERE {window}
        ) AS searches
        ORDER BY beyond, lot, query_id
        LIMIT %(limit)s
    ) AS drawn
    JOIN estudio.ubi_queries q ON q.application = %(application)s AND q.query_id = drawn.query_id
"""

_SELECT_SESSIONS = """
WITH chosen AS ({chosen})
SELECT query_id, user_query, query_response_hit_ids, query_response_scores,
       floor(extract(epoch FROM "timestamp"))::bigint, nullif(query_attributes, '{{}}'), clicks, impressions,
       irrelevant, refined, coalesce(client_id, of_client), coalesce(session_id, of_visit), coalesce(user_id, of_user)
FROM chosen
CROSS JOIN LATERAL (
    SELECT
        jsonb_agg(jsonb_build_array(event_id, object_id, action_name,
                                             floor(extract(epoch FROM e."timestamp"))::bigint, event_attributes,
                                             position_ordinal)
                           ORDER BY e."timestamp", event_id)
                 FILTER (WHERE action_name = ANY(%(clicks)s) AND object_id IS NOT NULL) AS clicks,
        jsonb_agg(jsonb_build_array(object_id, position_ordinal)
                           ORDER BY position_ordinal, e."timestamp", event_id)
                 FILTER (WHERE action_name = ANY(%(impressions)s) AND object_id IS NOT NULL) AS impressions,
        coalesce(bool_or(action_name = %(irrelevant)s), false) AS irrelevant,
        coalesce(bool_or(lower(action_name) ~ %(refines)s), false) AS refined,
        min(client_id) AS of_client, min(session_id) AS of_visit, min(user_id) AS of_user
    FROM estudio.ubi_events e
    WHERE e.query_id = chosen.query_id AND e.application = %(application)s
      AND (contradicted_at IS NULL OR e."timestamp" < contradicted_at)
) AS seen
ORDER BY "timestamp", query_id
"""

_COUNT_SESSIONS = """
SELECT count(*) FROM (
SELECT FROM estudio.ubi_queries q
WHERE application = %(application)s AND user_query <> ''
  AND (%(logged_since)s::timestamptz IS NULL OR coalesce(logged_at, "timestamp") >= %(logged_since)s
       OR "timestamp" >= %(or_since)s::timestamptz)
  AND (%(since)s::timestamptz IS NULL OR "timestamp" >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR "timestamp" < %(until)s)
  AND (NOT %(clicked_only)s OR EXISTS (
      SELECT FROM estudio.ubi_events e
      WHERE e.query_id = q.query_id AND e.application = q.application AND e.action_name = ANY(%(clicks)s)
        AND e.object_id IS NOT NULL AND (q.contradicted_at IS NULL OR e."timestamp" < q.contradicted_at)))
LIMIT %(most)s) counted
"""
