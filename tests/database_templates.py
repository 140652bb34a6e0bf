"""Databases that tests get copies of."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from psycopg import sql


class DatabaseTemplates:
    """Databases of one server that others are made from.

    Args:
        server: URL of the server.
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self._made: set[str] = set()

    def made(self, name: str, fill: Callable[[str], object]) -> str:
        """Return the name of a database that `fill` has filled, given its URL: at the first call only."""
        database = f"template_{name}"
        if name not in self._made:
            with psycopg.connect(self._server, autocommit=True) as connection:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
            fill(self._server.replace("/postgres?", f"/{database}?"))
            with psycopg.connect(self._server, autocommit=True) as connection:
                # Nobody may be connected to a database while it is copied.
                connection.execute(
                    sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(database))
                )
                connection.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", (database,)
                )
            self._made.add(name)
        return database
