"""The table `estudio.watches`: what was seen, and that the same drift is answered once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import psycopg
from psycopg.rows import class_row

from estudio_core.database import json_numbers
from estudio_core.vectordb.locks import lock_key
from estudio_core.vectordb.releases import Release

Reaction = Literal["none", "notify", "train"]


@dataclass(frozen=True)
class Watch:
    """One run of `<plugin>__watch`. Fields as in `migrations/versions`."""

    run_id: str
    release_id: int
    since: datetime
    until: datetime
    trained_until: datetime | None
    sessions: int
    numbers: dict[str, float]
    drift: list[str]
    reaction: Reaction
    summary: str
    at: datetime


def history(conn: psycopg.Connection, plugin: str, limit: int | None = None) -> list[Watch]:
    """Return the watches of a plugin, the latest first."""
    with conn.cursor(row_factory=class_row(Watch)) as cursor:
        return cursor.execute(
            "SELECT run_id, release_id, since, until, trained_until, sessions, numbers, drift, reaction, summary, at"
            " FROM estudio.watches WHERE plugin = %s ORDER BY watch_id DESC LIMIT %s",
            (plugin, limit),
        ).fetchall()


def record(
    conn: psycopg.Connection,
    release: Release,
    run_id: str,
    *,
    since: datetime,
    until: datetime,
    trained_until: datetime | None,
    sessions: int,
    numbers: Mapping[str, float],
    drift: Sequence[str],
    wanted: Reaction,
    summary: str,
) -> Watch:
    """Write a watch down and return it with the reaction that is left to do; the same run again replaces its row.

    A drift is known by the training that it is measured against. It starts one training, whatever becomes of that; the
    next training is a new mark. Each of its measures is told once.
    """
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (lock_key("watch", release.plugin),))
        before = [
            row
            for row in history(conn, release.plugin)
            if row.run_id != run_id and row.trained_until == trained_until and row.reaction != "none"
        ]
        reaction, known = _left_to_do(wanted, drift, before)
        conn.execute(
            "INSERT INTO estudio.watches (plugin, run_id, release_id, since, until, trained_until, sessions, numbers,"
            " drift, reaction, summary) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (plugin, run_id) DO UPDATE SET release_id = EXCLUDED.release_id, since = EXCLUDED.since,"
            " until = EXCLUDED.until, trained_until = EXCLUDED.trained_until, sessions = EXCLUDED.sessions,"
            " numbers = EXCLUDED.numbers, drift = EXCLUDED.drift, reaction = EXCLUDED.reaction,"
            " summary = EXCLUDED.summary",
            (
                *(release.plugin, run_id, release.release_id, since, until, trained_until, sessions),
                *(json_numbers(numbers), list(drift), reaction, f"{summary}{known}"),
            ),
        )
        return next(row for row in history(conn, release.plugin) if row.run_id == run_id)


def _left_to_do(wanted: Reaction, drift: Sequence[str], before: Sequence[Watch]) -> tuple[Reaction, str]:
    asked = next((row for row in before if row.reaction == "train"), None)
    if wanted != "none" and asked is not None:
        return "none", f" A training was asked for by {asked.run_id}."
    told = {name: row.run_id for row in before for name in row.drift}
    if wanted == "notify" and set(drift) <= set(told):
        return "none", f" This was told by {told[drift[0]]}."
    return wanted, ""
