"""Switches and rollbacks of a plugin follow each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import LiteralString

import psycopg

from estudio_core.vectordb.locks import lock_key


@contextmanager
def one_at_a_time(conn: psycopg.Connection, plugin: str) -> Iterator[None]:
    """Hold off other switches and rollbacks of `plugin` in the block; `conn` is in autocommit mode.

    The lock belongs to the session: it is given back when the process dies.
    """
    with _turn(conn, plugin, "SELECT pg_advisory_lock(%s)"):
        yield


@contextmanager
def try_one_at_a_time(conn: psycopg.Connection, plugin: str) -> Iterator[bool]:
    """Do what `one_at_a_time` does without waiting; False in the block where a switch or rollback is under way."""
    with _turn(conn, plugin, "SELECT pg_try_advisory_lock(%s)") as answer:
        yield answer is True


@contextmanager
def _turn(conn: psycopg.Connection, plugin: str, lock: LiteralString) -> Iterator[object]:
    """Yield what `lock` answers: False where it did not wait, anything else where it took the lock."""
    key = lock_key("promotion", plugin)
    row = conn.execute(lock, (key,)).fetchone()
    assert row is not None
    try:
        yield row[0]
    finally:
        if row[0] is not False:
            with suppress(psycopg.OperationalError):  # a session that broke has given its locks back
                conn.execute("SELECT pg_advisory_unlock(%s)", (key,))
