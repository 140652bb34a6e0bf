"""What was trained when, up to which session, and where its report is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from estudio_core.clickstream.sessions import SETTLE_MINUTES
from estudio_core.database import json_numbers

if TYPE_CHECKING:
    import psycopg


@dataclass(frozen=True)
class Training:
    """One evaluated candidate. `until` is the end of the window of its sessions."""

    run_id: str
    until: datetime
    version: str | None
    promoted: bool
    reason: str
    report_uri: str
    numbers: dict[str, float]
    at: datetime


def note_training(
    conn: psycopg.Connection,
    plugin: str,
    run_id: str,
    *,
    until: datetime,
    version: str | None,
    promoted: bool,
    reason: str,
    report_uri: str,
    numbers: Mapping[str, float],
) -> None:
    """Write a training down; the same run again replaces its row."""
    conn.execute(
        "INSERT INTO estudio.trainings (plugin, run_id, until, version, promoted, reason, report_uri, numbers)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (plugin, run_id) DO UPDATE SET until = EXCLUDED.until,"
        " version = EXCLUDED.version, promoted = EXCLUDED.promoted, reason = EXCLUDED.reason,"
        " report_uri = EXCLUDED.report_uri, numbers = EXCLUDED.numbers",
        (plugin, run_id, until, version, promoted, reason, report_uri, json_numbers(numbers)),
    )


def trainings(conn: psycopg.Connection, plugin: str) -> list[Training]:
    """Return the trainings of a plugin, the latest first."""
    with conn.cursor(row_factory=class_row(Training)) as cursor:
        return cursor.execute(
            "SELECT run_id, until, version, promoted, reason, report_uri, numbers, at FROM estudio.trainings"
            " WHERE plugin = %s ORDER BY at DESC, run_id",
            (plugin,),
        ).fetchall()


def new_sessions(
    conn: psycopg.Connection,
    plugin: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    for_run: str | None = None,
    settle_minutes: int = SETTLE_MINUTES,
    most: int | None = None,
) -> int:
    """Return the number of clicked sessions that were logged since sessions were last read to train on.

    When they were logged counts, not their own time: a log that is imported a day late is new. Of one that is being
    imported while sessions are read, those written before are trained on next time and not counted. Sessions that had
    not settled by then (`settle_minutes`) have waited, and are new as well.

    Args:
        conn: Connection to Estudio's database.
        plugin: Name of the plugin.
        since: Earliest own time of the sessions to count, that of the window which training reads; all by default.
        until: End of the sessions to count; all by default.
        for_run: A run that asks how many are new to it: its own earlier training does not count.
        settle_minutes: How old a session was before a training read it (`FineTuneParams.settle_minutes`).
        most: Where counting ends; all by default.
    """
    from estudio_core.clickstream.store import ClickstreamStore

    trained = trained_until(conn, plugin, for_run=for_run)
    settled = None if trained is None else trained - timedelta(minutes=settle_minutes)
    return ClickstreamStore(conn).count_sessions(
        plugin, since=since, until=until, logged_since=trained, or_since=settled, clicked_only=True, most=most
    )


def trained_until(conn: psycopg.Connection, plugin: str, *, for_run: str | None = None) -> datetime | None:
    """Return the end of the newest window of sessions that a registered version was trained on.

    None before the first. A dry run leaves no version that could have learned from its sessions, so it is none; nor is
    the training of `for_run`.
    """
    row = conn.execute(
        "SELECT max(until) FROM estudio.trainings WHERE plugin = %s AND version IS NOT NULL"
        " AND run_id IS DISTINCT FROM %s",
        (plugin, for_run),
    ).fetchone()
    assert row is not None
    until: datetime | None = row[0]
    return until
