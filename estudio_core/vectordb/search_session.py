"""Connections for searching: planner and index scan are set up once per connection instead of once per search.

A search that brings its settings along is two statements in one transaction; on such a connection it is one. Nothing
else runs on them: their planner is told to use the vector index whatever its estimates say.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import psycopg
from psycopg.types.json import Jsonb

from estudio_core import database

BREADTH = "hnsw.ef_search"
SETTINGS = {
    "hnsw.iterative_scan": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_sort": "off",
}
"""Of the statement that `first_page` sends."""
PLANNER_AS_USUAL = "".join(f" SET LOCAL {name} TO DEFAULT;" for name in SETTINGS)
"""Ends them for one transaction."""

_breadths: WeakKeyDictionary[psycopg.Connection, int] = WeakKeyDictionary()


def search_connection() -> database.connection:
    """Return the context of a connection of this process's pool for searching.

    Raises:
        DatabaseUnavailableError: no connection within 15 seconds.
        ConnectionLostError: it broke.
    """
    return database.connection(_set_up)


def renew_connections() -> None:
    """Replace those connections of the pool that are broken: after the server was restarted, all of them."""
    database.pool(_set_up).check()


def is_search_session(conn: psycopg.Connection) -> bool:
    """Return whether `conn` has the settings of this module."""
    return conn in _breadths


def set_breadth(conn: psycopg.Connection, ef_search: int) -> None:
    """Have the index scans of a search session look at `ef_search` candidates, until another number is set."""
    if _breadths[conn] != ef_search:
        conn.execute("SELECT set_config(%s, %s, false)", (BREADTH, str(ef_search)))
        _breadths[conn] = ef_search


def _set_up(conn: psycopg.Connection) -> None:
    conn.execute(
        "SELECT set_config(name, value, false) FROM jsonb_each_text(%s) AS s (name, value)", (Jsonb(SETTINGS),)
    )
    _breadths[conn] = 0
