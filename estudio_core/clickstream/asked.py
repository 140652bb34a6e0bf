"""What people ask for: which queries are frequent, which find nothing, and which bring nobody a click."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from psycopg.rows import class_row

from estudio_core.clickstream.actions import CLICK_IMPORTANCE
from estudio_core.clickstream.applications import application_facts
from estudio_core.errors import ConfigurationError

if TYPE_CHECKING:
    import psycopg

Order = Literal["popular", "found-nothing", "brought-nothing"]
DAYS = 28.0
MOST_SEARCHES = 200_000
"""Searches that are looked at, the newest: who looks wants to know what is asked now."""


@dataclass(frozen=True)
class AskedQuery:
    """One query and what became of its searches; spellings that differ in case and blanks alone are one.

    Attributes:
        query: As it was asked last.
        searches: How often it was asked.
        people: Distinct clients, else users, else visits; 0: none of them is logged.
        clicked: Searches with a click.
        found_nothing: Searches whose list was empty; None where the log holds no lists at all.
        brought_nothing: Searches that showed something, of which nothing was clicked.
    """

    query: str
    searches: int
    people: int
    clicked: int
    found_nothing: int | None
    brought_nothing: int


def asked_queries(
    conn: psycopg.Connection,
    application: str,
    order: Order = "popular",
    *,
    days: float = DAYS,
    most: int = 20,
    until: datetime | None = None,
) -> list[AskedQuery]:
    """Return the queries of an application's log, those first of which there is most of what `order` names.

    A search that was logged without a list, by its clicks alone, found something.

    Args:
        conn: Connection to Estudio's database.
        application: Application of the log, which is the name of its plugin.
        order: By searches; by searches that found nothing; or by searches that showed something and brought no click.
            The last two leave out queries of which there is none.
        days: Age of the oldest search that counts; at most the newest 200,000 searches do.
        most: Queries at most.
        until: Latest time, excluded; None: now.

    Raises:
        ConfigurationError: days, most or order are not legal.
    """
    if not 0 < days <= 36_500:
        raise ConfigurationError(f"days is {days}; legal is a number above 0, at most 36,500.")
    if not 1 <= most <= 1_000:
        raise ConfigurationError(f"most is {most}; legal are 1 to 1,000 queries.")
    if order not in _ORDER:
        raise ConfigurationError(f"order is {order!r}; legal are {', '.join(map(repr, _ORDER))}.")
    until = until or datetime.now(UTC)
    wanted = {
        "application": application,
        "since": until - timedelta(days=days),
        "until": until,
        "clicks": [*CLICK_IMPORTANCE, *application_facts(conn, application).clicks],
        "searches": MOST_SEARCHES,
        "most": most,
    }
    with conn.cursor(row_factory=class_row(AskedQuery)) as cursor:
        return cursor.execute(_ASKED.format(spelling=ONE_SPELLING) + _ORDER[order], wanted).fetchall()


ONE_SPELLING = r"lower(regexp_replace(btrim(user_query), '\s+', ' ', 'g'))"
"""SQL of what spellings of a query that differ in case and blanks alone have in common."""

_ASKED = """
WITH looked AS (
    SELECT user_query, "timestamp", coalesce(client_id, user_id, session_id) AS who,
           cardinality(query_response_hit_ids) > 0 AS listed, inferred,
           EXISTS (
               SELECT FROM estudio.ubi_events e
               WHERE e.query_id = q.query_id AND e.application = q.application AND e.object_id IS NOT NULL
                 AND e.action_name = ANY(%(clicks)s)
                 AND (q.contradicted_at IS NULL OR e."timestamp" < q.contradicted_at)
           ) AS has_click
    FROM (
        SELECT * FROM estudio.ubi_queries
        WHERE application = %(application)s AND btrim(user_query) <> ''
          AND "timestamp" >= %(since)s AND "timestamp" < %(until)s
        ORDER BY "timestamp" DESC, query_id DESC
        LIMIT %(searches)s
    ) q
), grouped AS (
    SELECT (array_agg(btrim(user_query) ORDER BY "timestamp" DESC))[1] AS query,
           count(*) AS searches,
           count(DISTINCT who) AS people,
           count(*) FILTER (WHERE has_click) AS clicked,
           CASE WHEN (SELECT bool_or(listed) FROM looked)
                THEN count(*) FILTER (WHERE NOT listed AND NOT inferred AND NOT has_click) END AS found_nothing
    FROM looked
    GROUP BY {spelling}
)
SELECT * FROM (SELECT *, searches - clicked - coalesce(found_nothing, 0) AS brought_nothing FROM grouped) AS asked
"""

_ORDER = {
    "popular": "ORDER BY searches DESC, query LIMIT %(most)s",
    "found-nothing": "WHERE found_nothing > 0 ORDER BY found_nothing DESC, query LIMIT %(most)s",
    "brought-nothing": "WHERE brought_nothing > 0 ORDER BY brought_nothing DESC, query LIMIT %(most)s",
}
