"""Switches and rollbacks of a plugin follow each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from estudio_core.vectordb.locks import lock_key


@contextmanager
def one_at_a_time(conn: psycopg.Connection, plugin: str) -> Iterator[None]:
    """Hold off other switches and rollbacks of `plugin` in the block; `conn` is in autocommit mode.

    The lock belongs to the session: it is given back when the process dies.
    """
    key = lock_key("promotion", plugin)
    conn.execute("SELECT pg_advisory_lock(%s)", (key,))
    try:
        yield
    finally:
        with suppress(psycopg.OperationalError):  # a session that broke has given its locks back
            conn.execute("SELECT pg_advisory_unlock(%s)", (key,))


@contextmanager
def try_one_at_a_time(conn: psycopg.Connection, plugin: str) -> Iterator[bool]:
    """Do what `one_at_a_time` does without waiting; False in the block where a switch or rollback is under way."""
    key = lock_key("promotion", plugin)
    row = conn.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone()
    alone = row == (True,)
    try:
        yield alone
    finally:
        if alone:
            with suppress(psycopg.OperationalError):
                conn.execute("SELECT pg_advisory_unlock(%s)", (key,))
