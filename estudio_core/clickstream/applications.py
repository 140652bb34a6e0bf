"""What an application's log means: where it counts positions from, which of its actions are clicks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from estudio_core.clickstream.actions import CLICK_IMPORTANCE, IMPRESSION_ACTIONS
from estudio_core.errors import ConfigurationError

if TYPE_CHECKING:
    import psycopg

USUAL_FIRST_POSITION = 1
"""Of applications that neither say nor show where they count from: UBI's `position.ordinal` of the topmost result."""
MOST_COMPARED = 100_000
"""Positions that are compared with logged hits: enough to tell 0 from 1."""
LEAST_AGREEING = 0.9
"""Share of positions beside logged hits that has to agree before where they count from is taken as found."""


@dataclass(frozen=True)
class ApplicationFacts:
    """What is known of an application.

    Attributes:
        first_position: Ordinal of the topmost result, 0 or 1.
        basis: `declared`, `found` in the log, or `assumed`.
        clicks: Further actions that are clicks, and their importance.
        impressions: Further actions that say a result was shown.
    """

    first_position: int = USUAL_FIRST_POSITION
    basis: str = "assumed"
    clicks: Mapping[str, float] = field(default_factory=dict)
    impressions: tuple[str, ...] = ()


@dataclass(frozen=True)
class PositionsSeen:
    """Ordinals of clicks and impressions, beside the logged lists where there are some.

    Attributes:
        ordinals: Events with one.
        zeros: Of these, with 0.
        from_zero: Whose object stands there in the logged hits if positions count from 0.
        from_one: Likewise from 1.
    """

    ordinals: int
    zeros: int
    from_zero: int
    from_one: int

    @property
    def first_position(self) -> int | None:
        """What they speak for; None where they do not say."""
        compared = self.from_zero + self.from_one
        if not compared:
            return 0 if self.zeros else None
        if max(self.from_zero, self.from_one) < LEAST_AGREEING * compared:
            return None
        return 0 if self.from_zero > self.from_one else 1

    def against(self, first_position: int) -> str | None:
        """Return what speaks against a declaration; None where nothing does.

        >>> PositionsSeen(10, 2, 0, 0).against(1)
        '2 of 10 positions are 0, which is above the topmost where they count from 1'
        """
        if first_position == 1 and self.zeros:
            return (
                f"{self.zeros} of {self.ordinals} positions are 0, which is above the topmost where they count from 1"
            )
        agreeing, other = (self.from_one, self.from_zero) if first_position else (self.from_zero, self.from_one)
        if other > agreeing:
            return (
                f"{other} positions agree with the logged lists if they count from {1 - first_position}, and "
                f"{agreeing} if from {first_position}"
            )
        return None


def application_facts(connection: psycopg.Connection, application: str) -> ApplicationFacts:
    """Return what is known of an application; what is usual where nothing is."""
    row = connection.execute(
        "SELECT first_position, declared, clicks, impressions FROM estudio.clickstream_applications"
        " WHERE application = %s",
        (application,),
    ).fetchone()
    if row is None:
        return ApplicationFacts()
    first, declared, clicks, impressions = row
    if first is None:
        return ApplicationFacts(clicks=clicks, impressions=tuple(impressions))
    return ApplicationFacts(first, "declared" if declared else "found", clicks, tuple(impressions))


def declare(
    connection: psycopg.Connection,
    application: str,
    *,
    first_position: int | None = None,
    clicks: Mapping[str, float] | None = None,
    impressions: tuple[str, ...] = (),
) -> None:
    """Note once what an application's log means; what is not given stays as it was. It holds for all rows, old and new.

    Args:
        connection: The caller commits.
        application: Its name in the log.
        first_position: Ordinal of the topmost result.
        clicks: Actions that are clicks, and their importance against a plain one.
        impressions: Actions that say a result was shown.

    Raises:
        ConfigurationError: positions that count from neither 0 nor 1, or an importance that is not above 0.
    """
    from psycopg.types.json import Jsonb

    check_declaration(first_position, clicks or {})
    connection.execute(
        """
        INSERT INTO estudio.clickstream_applications AS known
            (application, first_position, declared, clicks, impressions)
        VALUES (%(application)s, %(first)s, %(first)s::smallint IS NOT NULL, %(clicks)s, %(impressions)s)
        ON CONFLICT (application) DO UPDATE SET
            first_position = coalesce(excluded.first_position, known.first_position),
            declared = known.declared OR excluded.declared,
            clicks = known.clicks || excluded.clicks,
            impressions = ARRAY(SELECT DISTINCT unnest(known.impressions || excluded.impressions) ORDER BY 1)
        """,
        {
            "application": application,
            "first": first_position,
            "clicks": Jsonb(dict(clicks or {})),
            "impressions": sorted(set(impressions)),
        },
    )


def check_declaration(first_position: int | None, clicks: Mapping[str, float]) -> None:
    """Refuse what no application can mean.

    Raises:
        ConfigurationError: positions that count from neither 0 nor 1, or an importance that is not above 0.
    """
    if first_position not in (None, 0, 1):
        raise ConfigurationError(f"Positions count from 0 or from 1; given {first_position}.")
    wrong = {action: worth for action, worth in clicks.items() if not 0 < worth < float("inf")}
    if wrong:
        raise ConfigurationError(f"Importance of actions must be above 0 and finite; got {wrong}.")


def positions_seen(connection: psycopg.Connection, application: str) -> PositionsSeen:
    """Count the positions of an application's clicks and impressions; a hundred thousand of them are compared."""
    facts = application_facts(connection, application)
    row = connection.execute(
        """
        WITH placed AS (
            SELECT query_id, object_id, position_ordinal FROM estudio.ubi_events
            WHERE application = %(application)s AND position_ordinal IS NOT NULL AND object_id IS NOT NULL
                AND action_name = ANY(%(actions)s)
        ), compared AS (
            SELECT q.query_response_hit_ids AS hits, p.object_id, p.position_ordinal
            FROM (SELECT * FROM placed LIMIT %(most)s) p
            JOIN estudio.ubi_queries q ON q.application = %(application)s AND q.query_id = p.query_id
        )
        SELECT (SELECT count(*) FROM placed), (SELECT count(*) FROM placed WHERE position_ordinal = 0),
            count(*) FILTER (WHERE hits[position_ordinal + 1] = object_id),
            count(*) FILTER (WHERE hits[position_ordinal] = object_id)
        FROM compared
        """,
        {
            "application": application,
            "actions": [*CLICK_IMPORTANCE, *IMPRESSION_ACTIONS, *facts.clicks, *facts.impressions],
            "most": MOST_COMPARED,
        },
    ).fetchone()
    assert row is not None
    return PositionsSeen(*row)


def find_first_position(connection: psycopg.Connection, application: str) -> PositionsSeen:
    """Note where an application counts positions from, unless somebody declared it; return what the log shows."""
    seen = positions_seen(connection, application)
    if seen.first_position is not None:
        connection.execute(
            """
            INSERT INTO estudio.clickstream_applications AS known (application, first_position) VALUES (%s, %s)
            ON CONFLICT (application) DO UPDATE SET first_position = excluded.first_position WHERE NOT known.declared
            """,
            (application, seen.first_position),
        )
    return seen
