"""What leaves the clickstream: clients who ask to be forgotten, and rows that are older than they may be.

Datasets and reports of trainings hold no client's id (`extract` numbers clients instead), so that they stay as their
manifests say, and none of them leads back to whom the database has forgotten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from estudio_core.errors import ConfigurationError

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

_BATCH = 10_000
"""Rows of one statement: each is a transaction, which no backup or vacuum has to wait long for."""


@dataclass(frozen=True)
class Deleted:
    """How many rows are gone."""

    queries: int
    events: int


def forgotten_among(connection: psycopg.Connection, clients: Collection[str]) -> dict[str, datetime]:
    """Return those of the clients who were forgotten, and when."""
    if not clients:
        return {}
    digests = {_digest(client): client for client in clients}
    rows = connection.execute(
        "SELECT digest, at FROM estudio.forgotten_clients WHERE digest = ANY(%s)", (list(digests),)
    ).fetchall()
    return {digests[digest]: at for digest, at in rows}


def forget(connection: psycopg.Connection, client: str, committed: Callable[[], Any] | None = None) -> Deleted:
    """Delete a client's searches and events, and what was done after these searches; no old log brings them back.

    The id is looked for as `client_id` and as `user_id`. A digest of it stays, with the moment: later imports leave out
    rows of that client from before.

    Args:
        connection: An open connection.
        client: The id, as it is logged.
        committed: Called after each batch, such as the connection's `commit`; without it the caller commits, all of it.

    Raises:
        ConfigurationError: the id is blank.
    """
    if not client.strip():
        raise ConfigurationError("Whom to forget? The id of a client is blank.")
    connection.execute(
        "INSERT INTO estudio.forgotten_clients (digest) VALUES (%s)"
        " ON CONFLICT (digest) DO UPDATE SET at = excluded.at",
        (_digest(client),),
    )
    from psycopg import sql

    theirs = sql.SQL("client_id = %(client)s OR user_id = %(client)s")
    after = sql.SQL(
        "client_id = %(client)s OR user_id = %(client)s OR client_id IS NULL AND EXISTS ("
        "SELECT FROM estudio.ubi_queries q WHERE q.application = e.application AND q.query_id = e.query_id"
        " AND (q.client_id = %(client)s OR q.user_id = %(client)s))"
    )
    given = {"client": client}
    events = _delete(connection, "ubi_events", after, given, committed)
    queries = _delete(connection, "ubi_queries", theirs, given, committed)
    return Deleted(queries, events)


def expire(
    connection: psycopg.Connection,
    days: float,
    application: str | None = None,
    committed: Callable[[], Any] | None = None,
) -> Deleted:
    """Delete searches and events that are older.

    Args:
        connection: An open connection.
        days: Age from which on they go, above 0.
        application: Only its rows; all without it.
        committed: As in `forget`.

    Raises:
        ConfigurationError: `days` is not above 0.
    """
    if not days > 0:
        raise ConfigurationError(f"Rows are kept for a number of days above 0; given {days}.")
    from psycopg import sql

    given = {"before": datetime.now(UTC) - timedelta(days=min(days, 365_000)), "application": application}
    old = sql.SQL('"timestamp" < %(before)s AND (%(application)s::text IS NULL OR application = %(application)s)')
    events = _delete(connection, "ubi_events", old, given, committed)
    return Deleted(_delete(connection, "ubi_queries", old, given, committed), events)


def _delete(
    connection: psycopg.Connection,
    table: str,
    which: sql.Composable,
    given: dict[str, Any],
    committed: Callable[[], Any] | None,
) -> int:
    from psycopg import sql

    statement = sql.SQL(
        "DELETE FROM estudio.{table} WHERE ctid = ANY(ARRAY("
        "SELECT ctid FROM estudio.{table} e WHERE {which} LIMIT {most}))"
    ).format(table=sql.Identifier(table), which=which, most=sql.Literal(_BATCH))
    deleted = 0
    while True:
        found = connection.execute(statement, given).rowcount
        deleted += found
        if committed is not None:
            committed()
        if found < _BATCH:
            return deleted


def _digest(client: str) -> str:
    return hashlib.sha256(client.encode(errors="surrogatepass")).hexdigest()
