"""The table `estudio.promotions`: at most one promotion of a plugin is open, and the latest request is the one.

A request closes the open one before it as `superseded`. A release asks `require_open` before it goes on, and switches
inside `turns.one_at_a_time`, so that an older promotion never goes live after a younger one.

The pointer decides what is live: an open promotion whose release it names has gone live, whatever its process came to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from estudio_core.database import json_numbers
from estudio_core.errors import SupersededError
from estudio_core.experiments.alias_audit import cleaned
from estudio_core.vectordb.locks import lock_key
from estudio_core.vectordb.releases import live_release

Way = Literal["initialize", "gate", "approval", "alias", "manual", "rollback", "experiment"]
Outcome = Literal["open", "live", "failed", "superseded", "refused"]

_COLUMNS = (
    "promotion_id, plugin, way, actor, alias, alias_before, from_version, to_version, run_id, release_id, outcome,"
    " reason, numbers, requested_at, ended_at"
)


@dataclass(frozen=True)
class Promotion:
    """One row: who wanted which version to serve, and what became of it. Fields as in `migrations/versions`."""

    promotion_id: int
    plugin: str
    way: Way
    actor: str
    alias: str | None
    alias_before: int | None
    from_version: str | None
    to_version: str
    run_id: str | None
    release_id: int | None
    outcome: Outcome
    reason: str
    numbers: dict[str, float]
    requested_at: datetime
    ended_at: datetime | None


def request(
    conn: psycopg.Connection,
    plugin: str,
    way: Way,
    actor: str,
    to_version: str,
    *,
    run_id: str | None = None,
    release_id: int | None = None,
    alias: str | None = None,
    alias_before: int | None = None,
    reason: str = "",
    numbers: Mapping[str, float] | None = None,
) -> Promotion:
    """Open a promotion and supersede the one that was open; a repeated call returns the open one.

    Repeated is a call with the same `run_id`, or for aliases with the same alias and version. The row of a run that
    failed is opened again: somebody had it rerun.

    Raises:
        SupersededError: the run failed, and something newer was asked for or went live since.
    """
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (lock_key("promotion request", plugin),))
        found = of_run(conn, plugin, run_id) if run_id is not None else _open_alias(conn, plugin, alias, to_version)
        if found is not None and found.outcome != "failed":
            return found
        if found is not None:
            _require_latest(conn, found)
        supersede(conn, plugin, f"Version {to_version} was asked for by {actor}.")
        if found is not None:
            return _one(
                conn,
                "UPDATE estudio.promotions SET outcome = 'open', reason = '', ended_at = NULL,"
                " requested_at = clock_timestamp() WHERE promotion_id = %s RETURNING {columns}",
                (found.promotion_id,),
            )
        live = live_release(conn, plugin)
        return _one(
            conn,
            "INSERT INTO estudio.promotions (plugin, way, actor, alias, alias_before, from_version, to_version, run_id,"
            " release_id, reason, numbers) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING {columns}",
            (
                *(plugin, way, actor, alias, alias_before, live.model_version if live else None, to_version, run_id),
                *(release_id, cleaned(reason), json_numbers(numbers or {})),
            ),
        )


def reopen(conn: psycopg.Connection, promotion: Promotion) -> Promotion:
    """Ask once more for what a failed run was to bring; a promotion that did not fail stays as it is.

    Raises:
        SupersededError: something newer was asked for or went live since.
    """
    if promotion.outcome != "failed":
        return promotion
    return request(
        conn, promotion.plugin, promotion.way, promotion.actor, promotion.to_version, run_id=promotion.run_id
    )


def refuse(
    conn: psycopg.Connection,
    plugin: str,
    actor: str,
    to_version: str,
    *,
    run_id: str,
    reason: str,
    numbers: Mapping[str, float] | None = None,
    way: Literal["approval", "experiment"] = "approval",
) -> None:
    """Write down that a person, or an experiment, refused a candidate, whose release `run_id` would have carried out.

    What else is under way goes on: nothing was asked for. What has gone live stays so.
    """
    live = live_release(conn, plugin)
    conn.execute(
        "INSERT INTO estudio.promotions (plugin, way, actor, from_version, to_version, run_id, outcome, reason,"
        " numbers, ended_at) VALUES (%s, %s, %s, %s, %s, %s, 'refused', %s, %s, clock_timestamp())"
        " ON CONFLICT (plugin, run_id) DO UPDATE SET outcome = 'refused', actor = EXCLUDED.actor,"
        " reason = EXCLUDED.reason, ended_at = EXCLUDED.ended_at WHERE promotions.outcome IN ('open', 'failed')",
        (
            *(plugin, way, actor, live.model_version if live else None, to_version, run_id, cleaned(reason)),
            json_numbers(numbers or {}),
        ),
    )


def supersede(conn: psycopg.Connection, plugin: str, reason: str) -> None:
    """Close the open promotion of a plugin, if there is one."""
    _settle(conn, plugin)
    conn.execute(
        "UPDATE estudio.promotions SET outcome = 'superseded', reason = %s, ended_at = clock_timestamp()"
        " WHERE plugin = %s AND outcome = 'open'",
        (cleaned(reason), plugin),
    )


def take_up(conn: psycopg.Connection, plugin: str, run_id: str) -> Promotion | None:
    """Give the promotion that a moved alias asks for to a run; None where none waits for one."""
    with conn.transaction():
        mine = of_run(conn, plugin, run_id)
        if mine is not None:
            return mine
        conn.execute(
            "UPDATE estudio.promotions SET run_id = %s"
            " WHERE plugin = %s AND outcome = 'open' AND way = 'alias' AND run_id IS NULL",
            (run_id, plugin),
        )
        return of_run(conn, plugin, run_id)


def of_run(conn: psycopg.Connection, plugin: str, run_id: str) -> Promotion | None:
    """Return the promotion that a run carries out."""
    found = _select(conn, "plugin = %s AND run_id = %s", (plugin, run_id), 1)
    return found[0] if found else None


def waiting(conn: psycopg.Connection) -> list[Promotion]:
    """Return the promotions that no run has taken up yet, of all plugins."""
    return _select(conn, "outcome = 'open' AND way = 'alias' AND run_id IS NULL", (), None)


def require_open(conn: psycopg.Connection, promotion: Promotion) -> None:
    """Refuse to go on with a promotion that another one has taken the place of.

    One that failed may go on while nothing newer was asked for: somebody had a step of its run rerun.

    Raises:
        SupersededError: it has; the message says which.
    """
    current = get(conn, promotion.promotion_id)
    if current.outcome in {"superseded", "refused"}:
        raise SupersededError(
            f"Version {current.to_version} of {current.plugin!r} does not go live any more. {current.reason} "
            "To have it all the same, start a new release run."
        )
    if current.outcome == "failed":
        _require_latest(conn, current)
    live = live_release(conn, current.plugin)
    if current.outcome == "live" and live is not None and live.release_id != current.release_id:
        raise SupersededError(
            f"Run {current.run_id} made release {current.release_id} live, and release {live.release_id} has taken its "
            "place since: running it again does not undo that. To have it again, roll back to it or start a new "
            "release run."
        )


def require_open_run(conn: psycopg.Connection, plugin: str, run_id: str) -> None:
    """Do what `require_open` does for the promotion that a run carries out; a run without one may go on.

    Raises:
        SupersededError: another promotion has taken its place.
    """
    promotion = of_run(conn, plugin, run_id)
    if promotion is not None:
        require_open(conn, promotion)


def _require_latest(conn: psycopg.Connection, failed: Promotion) -> None:
    with conn.cursor() as cursor:
        row = cursor.execute(
            "SELECT 'version ' || to_version || ' was asked for by ' || actor FROM estudio.promotions"
            " WHERE plugin = %(plugin)s AND promotion_id <> %(id)s AND requested_at > %(requested)s"
            " AND outcome IN ('open', 'live', 'superseded')"
            " UNION ALL SELECT 'release ' || release_id || ' went live' FROM estudio.pointers"
            " JOIN estudio.deployments d USING (plugin, release_id)"
            " WHERE plugin = %(plugin)s AND switched_at > %(ended)s AND d.run_id IS DISTINCT FROM %(run)s LIMIT 1",
            {
                "plugin": failed.plugin,
                "id": failed.promotion_id,
                "requested": failed.requested_at,
                "ended": failed.ended_at,
                "run": failed.run_id,
            },
        ).fetchone()
    if row is not None:
        raise SupersededError(
            f"Run {failed.run_id} failed to release version {failed.to_version} of {failed.plugin!r}, and {row[0]} "
            "since: running it again does not undo that. To have it all the same, start a new release run."
        )


def end(
    conn: psycopg.Connection,
    promotion: Promotion,
    outcome: Outcome,
    *,
    reason: str | None = None,
    release_id: int | None = None,
    numbers: Mapping[str, float] | None = None,
) -> Promotion:
    """Write down what became of an open promotion; one that has ended, or has gone live, stays as it is.

    What has gone live is `live`, even where the next request came while the pointer moved.
    """
    if outcome != "live":
        _settle(conn, promotion.plugin)
    conn.execute(
        "UPDATE estudio.promotions SET outcome = %(outcome)s, release_id = COALESCE(%(release)s, release_id),"
        " reason = COALESCE(%(reason)s, CASE WHEN outcome = 'open' THEN reason ELSE '' END),"
        " numbers = numbers || %(numbers)s, ended_at = clock_timestamp()"
        " WHERE promotion_id = %(id)s"
        " AND (outcome = 'open' OR %(outcome)s = 'live' AND outcome IN ('failed', 'superseded'))",
        {
            "outcome": outcome,
            "release": release_id,
            "reason": None if reason is None else cleaned(reason),
            "numbers": json_numbers(numbers or {}),
            "id": promotion.promotion_id,
        },
    )
    return get(conn, promotion.promotion_id)


def note(conn: psycopg.Connection, promotion: Promotion, text: str) -> None:
    """Add to what is said of a promotion that is over, once."""
    conn.execute(
        "UPDATE estudio.promotions SET reason = ltrim(reason || ' ' || %(text)s)"
        " WHERE promotion_id = %(id)s AND strpos(reason, %(text)s) = 0",
        {"text": cleaned(text), "id": promotion.promotion_id},
    )


def get(conn: psycopg.Connection, promotion_id: int) -> Promotion:
    """Return a promotion by its number, which exists."""
    [found] = _select(conn, "promotion_id = %s", (promotion_id,), 1)
    return found


def history(conn: psycopg.Connection, plugin: str | None = None, limit: int | None = None) -> list[Promotion]:
    """Return promotions of a plugin, or of all, the latest request first."""
    return _select(conn, "%s::text IS NULL OR plugin = %s", (plugin, plugin), limit)


def _settle(conn: psycopg.Connection, plugin: str) -> None:
    """Note as live an open promotion whose process moved the pointer and died before it could say so."""
    conn.execute(
        "UPDATE estudio.promotions p SET outcome = 'live', release_id = d.release_id, ended_at = clock_timestamp()"
        " FROM estudio.pointers o JOIN estudio.deployments d ON d.release_id = o.release_id"
        " WHERE p.plugin = %s AND o.plugin = p.plugin AND p.outcome = 'open'"
        " AND (p.run_id = d.run_id OR p.release_id = d.release_id)",
        (plugin,),
    )


def _open_alias(conn: psycopg.Connection, plugin: str, alias: str | None, version: str) -> Promotion | None:
    if alias is None:
        return None
    where: LiteralString = "plugin = %s AND alias = %s AND to_version = %s AND outcome = 'open'"
    found = _select(conn, where, (plugin, alias, version), 1)
    return found[0] if found else None


def _select(
    conn: psycopg.Connection, condition: LiteralString, values: tuple[Any, ...], limit: int | None
) -> list[Promotion]:
    statement = sql.SQL(
        "SELECT {} FROM estudio.promotions WHERE {} ORDER BY requested_at DESC, promotion_id DESC LIMIT %s"
    )
    with conn.cursor(row_factory=class_row(Promotion)) as cursor:
        return cursor.execute(statement.format(sql.SQL(_COLUMNS), sql.SQL(condition)), (*values, limit)).fetchall()


def _one(conn: psycopg.Connection, statement: LiteralString, values: tuple[Any, ...]) -> Promotion:
    with conn.cursor(row_factory=class_row(Promotion)) as cursor:
        row = cursor.execute(sql.SQL(statement).format(columns=sql.SQL(_COLUMNS)), values).fetchone()
    assert row is not None
    return row
