"""Grades that people give on the search page, in the database: the judgments of a plugin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from estudio_core.errors import ConfigurationError, shown
from estudio_core.evaluation.judgments import Judgments
from estudio_core.vectordb.objects import encodable

if TYPE_CHECKING:
    import psycopg

MOST_GRADE = 100.0
MOST_KEY_BYTES = 2_600
"""With the plugin's name they are a key: PostgreSQL's indexes hold 2,700 bytes."""


@dataclass(frozen=True)
class Grade:
    """What a person says of a result for a query: 0 does not fit. None takes back what was said."""

    query: str
    object_id: str
    judge: str
    grade: float | None

    def __post_init__(self) -> None:
        """Refuse what no table can keep.

        Raises:
            ConfigurationError: a text is blank or not storable, they are too long together, or the grade is no number
                from 0 to 100.
        """
        for name in ("query", "object_id", "judge"):
            text = getattr(self, name)
            if not text.strip() or "\x00" in text or not encodable(text):
                raise ConfigurationError(f"{name} of a grade is a text that can be stored; given {shown(text)}.")
        key_bytes = sum(len(text.encode()) for text in (self.query, self.object_id, self.judge))
        if key_bytes > MOST_KEY_BYTES:
            raise ConfigurationError(
                f"query, object_id and judge of a grade have {MOST_KEY_BYTES:,} bytes together at most; given "
                f"{key_bytes:,}."
            )
        if self.grade is not None and not (math.isfinite(self.grade) and 0 <= self.grade <= MOST_GRADE):
            raise ConfigurationError(f"A grade is a number from 0 to {MOST_GRADE:g}; given {shown(self.grade)}.")


def keep(connection: psycopg.Connection, plugin: str, given: Grade) -> None:
    """Keep a grade in place of the one that the same person gave before. The caller commits."""
    key = (plugin, given.query, given.object_id, given.judge)
    if given.grade is None:
        connection.execute(
            "DELETE FROM estudio.human_judgments WHERE (plugin, query, object_id, judge) = (%s, %s, %s, %s)", key
        )
        return
    connection.execute(
        "INSERT INTO estudio.human_judgments (plugin, query, object_id, judge, grade) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (plugin, query, object_id, judge) DO UPDATE SET grade = excluded.grade, judged_at = now()",
        (*key, given.grade),
    )


def grades(
    connection: psycopg.Connection,
    plugin: str,
    *,
    query: str | None = None,
    judge: str | None = None,
    after: Grade | None = None,
    most: int | None = None,
) -> list[Grade]:
    """Return the grades of a plugin by query, object and person; those of one query or person where one is named.

    Args:
        connection: Connection.
        plugin: The plugin.
        query: Only of this query.
        judge: Only of this person.
        after: The last grade of the page before.
        most: Most grades.
    """
    last = None if after is None else [after.query, after.object_id, after.judge]
    rows = connection.execute(
        "SELECT query, object_id, judge, grade::float8 FROM estudio.human_judgments WHERE plugin = %(plugin)s"
        " AND (%(query)s::text IS NULL OR query = %(query)s) AND (%(judge)s::text IS NULL OR judge = %(judge)s)"
        " AND (%(last)s::text[] IS NULL OR (query, object_id, judge) >"
        " ((%(last)s::text[])[1], (%(last)s::text[])[2], (%(last)s::text[])[3]))"
        " ORDER BY query, object_id, judge LIMIT %(most)s",
        {"plugin": plugin, "query": query, "judge": judge, "last": last, "most": most},
    ).fetchall()
    return [Grade(*row) for row in rows]


def judged_on_page(plugin: str, connection: psycopg.Connection | None = None) -> Judgments:
    """Return what people judged on the search page of a plugin; a result that several graded has the mean.

    What `create_text_plugin(judgments=...)` takes: `judgments=lambda: judged_on_page("shop")`.
    """
    if connection is None:
        from estudio_core import database

        with database.connect() as opened:
            return judged_on_page(plugin, opened)
    found: dict[str, dict[str, list[float]]] = {}
    for each in grades(connection, plugin):
        found.setdefault(each.query, {}).setdefault(each.object_id, []).append(each.grade or 0.0)
    return Judgments(
        {query: {key: sum(given) / len(given) for key, given in of.items()} for query, of in found.items()}
    )
