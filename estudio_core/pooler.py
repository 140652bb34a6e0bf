"""Whether a pooler stands before PostgreSQL that gives its clients no session of their own, as PgBouncer may."""

from __future__ import annotations

from contextlib import suppress

import psycopg

_TRIES = 3


def shares_sessions(connection: psycopg.Connection, url: str) -> bool:
    """Return whether the server of an idle `connection` is lent to another client meanwhile.

    PostgreSQL tells a client the number of its process when it connects; a pooler tells some other. Only then a second
    client is asked whose server it gets inside a transaction: the one that this connection had is its alone, unless the
    pooler lends servers for less than a session. A pooler gives out the server that came back last, so that one look
    would do; where others come between, it is looked again.
    """
    before = connection.autocommit
    connection.autocommit = True
    try:
        mine = _server(connection)
        if mine == connection.info.backend_pid:
            return False
        for _ in range(_TRIES):
            with suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=10) as other:
                try:
                    theirs = _server(other)  # inside a transaction, which holds it
                except psycopg.errors.FeatureNotSupported:
                    return True
                if theirs == mine:
                    return True
            if _server(connection) != mine:
                return True
        return False
    except psycopg.errors.FeatureNotSupported:  # not even transactions
        return True
    finally:
        connection.autocommit = before


def _server(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    assert row is not None
    return int(row[0])
