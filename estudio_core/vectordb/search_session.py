"""Connections for searching: planner and index scan are set up once per connection instead of once per search.

A search that brings its settings along is two statements in one transaction; on such a connection it is one. Nothing
else runs on them: their planner is told to use the vector index whatever its estimates say. Costly searches have a pool
of their own (`lanes`), and so has every event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

import psycopg
from psycopg.types.json import Jsonb

from estudio_core import database, telemetry, watchdog
from estudio_core.deadline import Deadline
from estudio_core.errors import DatabaseUnavailableError
from estudio_core.postgres_url import noticing
from estudio_core.settings import get_settings
from estudio_core.statement_spans import TellingAsyncCursor
from estudio_core.telemetry import measured
from estudio_core.vectordb.lanes import LaneName, lane
from estudio_core.vectordb.reader import search_url, search_url_may_wait
from estudio_core.vectordb.statements import Blocking, Native, Statements, run

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

BREADTH = "hnsw.ef_search"
TIMEOUT = "statement_timeout"
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
SPARE = 1.1
"""A session's `statement_timeout` is so much longer than the deadline that it was set for: the next search, whose
encoding took a little less or more time, needs no statement to set it anew."""
_MOST_SPARE = 1.25

_breadths: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
_timeouts: WeakKeyDictionary[Any, tuple[int, int]] = WeakKeyDictionary()
"""Milliseconds of a session's `statement_timeout` now, and of the role's or database's own (0: none)."""
_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, LaneName], AsyncConnectionPool]]
_loops = WeakKeyDictionary()
_looked_at: WeakSet[Any] = WeakSet()


def default_deadline() -> Deadline:
    """Return the deadline of a search that begins now and names none."""
    return Deadline.after(get_settings().search_timeout_s)


@contextmanager
def search_connection(lane_name: LaneName = "cheap", deadline: Deadline | None = None) -> Iterator[psycopg.Connection]:
    """Lend a connection of this process's pool for searching; its statements end with the deadline.

    Args:
        lane_name: Which pool.
        deadline: Of the search; None: the default one, from now on.

    Raises:
        OverloadedError: others have all of them for longer than there is time.
        SearchTimeoutError: none came free in time, or the server did not answer by then.
        DatabaseUnavailableError: the server does not answer.
        ConnectionLostError: it broke.
    """
    deadline = deadline or default_deadline()
    deadline.require("the database did not answer")
    at = lane(lane_name)
    url = search_url()
    with at.admitted(deadline) as holds:
        lent = database.connection(_SET_UP[lane_name], at.size, url, wait_s=max(deadline.left_s, 0.0))
        with measured(telemetry.POOL, {telemetry.LANE: lane_name}):
            try:
                conn = lent.__enter__()
            except DatabaseUnavailableError as error:
                if at.load.inside > at.size:  # others have them all
                    raise deadline.passed("others had all connections for searching") from error
                raise
        holds()
        telemetry.count_connection(lane_name, at.size, 1)
        ended: BaseException | None = None
        try:
            watchdog.watch(conn, deadline.at)
            run(set_timeout(Blocking(conn), deadline))
            yield conn
        except BaseException as error:
            if watchdog.let_go(conn) and isinstance(error, psycopg.OperationalError):
                raise deadline.passed("the database did not answer") from error
            ended = error
            raise
        finally:
            watchdog.let_go(conn)
            telemetry.count_connection(lane_name, at.size, -1)
            lent.__exit__(None if ended is None else type(ended), ended, None)


@asynccontextmanager
async def async_search_connection(
    lane_name: LaneName = "cheap", deadline: Deadline | None = None
) -> AsyncIterator[psycopg.AsyncConnection]:
    """Lend a connection of the running event loop's pool for searching. Raises: as `search_connection`."""
    from psycopg_pool import PoolTimeout

    deadline = deadline or default_deadline()
    deadline.require("the database did not answer")
    at = lane(lane_name)
    url = await asyncio.to_thread(search_url) if search_url_may_wait() else search_url()
    with at.admitted(deadline) as holds:
        with measured(telemetry.POOL, {telemetry.LANE: lane_name}):
            source = await _async_pool(url, lane_name, at.size, deadline)
            try:
                conn = await source.getconn(timeout=max(deadline.left_s, 0.01))
            except PoolTimeout as error:
                if at.load.inside > at.size:
                    raise deadline.passed("others had all connections for searching") from error
                raise database.no_connection(url, deadline.seconds) from error
        holds()
        telemetry.count_connection(lane_name, at.size, 1)
        try:
            watchdog.watch(conn, deadline.at)
            if conn not in _looked_at:
                # Asked once for each, as those of `database` are; the statements are the same.
                await asyncio.to_thread(database.require_tables, url)
                _looked_at.add(conn)
            await set_timeout(Native(conn), deadline)
            yield conn
        except BaseException as error:
            if watchdog.let_go(conn) and isinstance(error, psycopg.OperationalError):
                raise deadline.passed("the database did not answer") from error
            database.name_outage(error)
            raise
        finally:
            watchdog.let_go(conn)
            telemetry.count_connection(lane_name, at.size, -1)
            await source.putconn(conn)


async def close_async_pools() -> None:
    """Close the pools of the running event loop, as a server does when it ends."""
    for pool in _loops.pop(asyncio.get_running_loop(), {}).values():
        await pool.close()


def renew_connections() -> None:
    """Replace those connections of the pools that are broken: after the server was restarted, all of them."""
    url = search_url()
    for name, configure in _SET_UP.items():
        database.pool(configure, lane(name).size, url).check()


async def renew_async_connections() -> None:
    """Do the same for the running event loop."""
    for pool in _loops.get(asyncio.get_running_loop(), {}).values():
        await pool.check()


def is_search_session(conn: Any) -> bool:
    """Return whether `conn` has the settings of this module."""
    return conn in _breadths


async def set_breadth(at: Statements, ef_search: int) -> None:
    """Have the index scans of a search session look at `ef_search` candidates, until another number is set."""
    if _breadths[at.connection] != ef_search:
        await at.rows(b"SELECT set_config(%s, %s, false)", (BREADTH, str(ef_search)))
        _breadths[at.connection] = ef_search


async def set_timeout(at: Statements, deadline: Deadline) -> None:
    """Have the statements of a search session end with the deadline."""
    if (wanted := _wanted_timeout(at.connection, deadline)) is not None:
        await at.rows(b"SELECT set_config(%s, %s, false)", (TIMEOUT, str(wanted)))
        _timeouts[at.connection] = wanted, _timeouts[at.connection][1]


def _wanted_timeout(conn: Any, deadline: Deadline) -> int | None:
    """Return the milliseconds that a session's `statement_timeout` is to become; None where it is well as it is."""
    now_ms, own_ms = _timeouts[conn]
    left_ms = max(1, int(deadline.left_s * 1000))
    if own_ms and own_ms <= left_ms:
        return own_ms if now_ms != own_ms else None
    if left_ms <= now_ms <= left_ms * _MOST_SPARE + 5:
        return None
    wanted = int(left_ms * SPARE) + 1
    return min(wanted, own_ms) if own_ms else wanted


def _set_up(conn: psycopg.Connection) -> None:
    row = conn.execute(_SET, (Jsonb(SETTINGS),)).fetchone()
    assert row is not None
    _note(conn, row[0])


def _set_up_costly(conn: psycopg.Connection) -> None:
    _set_up(conn)


_SET_UP: dict[LaneName, database.Configure] = {"cheap": _set_up, "costly": _set_up_costly}
_SET = (
    "SELECT (SELECT setting::int FROM pg_catalog.pg_settings WHERE name = 'statement_timeout'),"
    " (SELECT count(set_config(name, value, false)) FROM jsonb_each_text(%s) AS s (name, value))"
)


def _note(conn: Any, own_ms: int) -> None:
    _breadths[conn] = 0
    _timeouts[conn] = own_ms, own_ms


async def _async_pool(url: str, lane_name: LaneName, size: int, deadline: Deadline) -> AsyncConnectionPool:
    from psycopg_pool import AsyncConnectionPool

    pools = _loops.setdefault(asyncio.get_running_loop(), {})
    if (found := pools.get((url, lane_name))) is None:
        await asyncio.to_thread(database.require_own_sessions, url, deadline.left_s)
    if (found := pools.get((url, lane_name))) is None:  # nobody else has made it meanwhile
        found = pools[url, lane_name] = AsyncConnectionPool(
            url,
            kwargs={"autocommit": True, "cursor_factory": TellingAsyncCursor, **noticing(url)},
            min_size=0,
            max_size=size,
            open=False,
            reconnect_timeout=database.RECONNECT_S,
            check=_check,
            configure=_async_set_up,
        )
        await found.open()
    return found


_checked: WeakKeyDictionary[Any, float] = WeakKeyDictionary()


async def _check(conn: psycopg.AsyncConnection) -> None:
    from psycopg_pool import AsyncConnectionPool

    now = time.monotonic()
    lately = now - _checked.get(conn, -database.CHECK_INTERVAL_S) < database.CHECK_INTERVAL_S
    if not lately or database.may_be_broken(conn):
        watchdog.watch(conn, now + database.CHECK_PATIENCE_S)
        try:
            await AsyncConnectionPool.check_connection(conn)
        finally:
            watchdog.let_go(conn)
        _checked[conn] = now


async def _async_set_up(conn: psycopg.AsyncConnection) -> None:
    from pgvector.psycopg import register_vector_async

    await database.settle_async(conn)
    await register_vector_async(conn)
    cursor = await conn.execute(_SET, (Jsonb(SETTINGS),))
    row = await cursor.fetchone()
    assert row is not None
    _note(conn, row[0])
