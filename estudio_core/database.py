"""Connections to Estudio's own database: PostgreSQL with pgvector, embedded by default."""

from __future__ import annotations

import atexit
import math
import os
import select
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from estudio_core import embedded_postgres, exact_json, watchdog
from estudio_core.errors import (
    ConfigurationError,
    ConnectionLostError,
    DatabaseUnavailableError,
    DataError,
    EstudioError,
    SettingError,
    shown,
)
from estudio_core.forks import keep_for_ever
from estudio_core.migrations.check import SCHEMA as SCHEMA
from estudio_core.migrations.check import require_pgvector as require_pgvector
from estudio_core.migrations.check import require_schema as require_schema
from estudio_core.postgres_url import describe, noticing, postgres_url
from estudio_core.session_settings import OWN, SEARCHING, SEE_PGVECTOR, SET
from estudio_core.settings import get_settings

if TYPE_CHECKING:
    import psycopg
    from psycopg.types.json import Jsonb
    from psycopg_pool import ConnectionPool

CONNECTION_TIMEOUT_S = 15.0
"""How long a transaction waits for a connection, while the server restarts for example."""
RECONNECT_S = 1.0
"""The pool tries a server that is away again after this time. Its own back-off would grow to minutes, and searches
would fail long after the server is back."""
LOST_CLIENT_S = 2
"""The server looks this often whether the client of a long statement still lives. By default it finds out at the end of
the statement: the build lock of a killed task would be held until its index is built."""

CLOSE_S = 2.0
"""For the threads of a pool to end: those of one that is idle do at once, and psycopg warns of each that does not."""

CHECK_INTERVAL_S = 1.0
"""A pooled connection that answered so lately is taken to be alive; one round trip less in most searches."""

CHECK_PATIENCE_S = 1.0
"""A connection that gives no sign of life for so long is replaced."""

Configure = Callable[["psycopg.Connection"], None]
"""Sets up a new connection of a pool, in autocommit mode."""

_checked: WeakKeyDictionary[psycopg.Connection, float] = WeakKeyDictionary()
_looked_at: WeakSet[psycopg.Connection] = WeakSet()


def database_url() -> str:
    """Return the URL of Estudio's database; start the embedded server where none is configured.

    Raises:
        ConfigurationError: the configured one is not PostgreSQL's, or cannot be read.
    """
    configured = get_settings().database_url
    if configured is not None:
        return postgres_url(configured.get_secret_value(), "ESTUDIO_DATABASE_URL")
    return embedded_postgres.url_of(get_settings().home, migrate)


def url_needs_a_start() -> bool:
    """Return whether `database_url` would start a server: what only looks after things leaves that to a search."""
    settings = get_settings()
    return settings.database_url is None and not embedded_postgres.is_known(settings.home)


def connect(url: str | None = None, *, autocommit: bool = False, **kwargs: Any) -> psycopg.Connection:
    """Open a connection, to `database_url()` where no URL is given.

    Raises:
        DatabaseUnavailableError: the server does not answer.
    """
    import psycopg

    from estudio_core.statement_spans import TellingCursor

    target = url or database_url()
    options = {**noticing(target), "cursor_factory": TellingCursor, **kwargs}
    try:
        connection = psycopg.connect(target, autocommit=autocommit, **options)
    except psycopg.OperationalError as error:
        raise DatabaseUnavailableError(
            f"PostgreSQL at {describe(target)} does not answer: {str(error).strip()}. "
            "Check ESTUDIO_DATABASE_URL, or run: estudio doctor"
        ) from error
    _refuse_shared_sessions(connection, target)
    _notice_lost_client(connection)
    _settle(connection, OWN)
    return connection


_own_sessions: set[str] = set()
"""Servers, or poolers before them, whose clients each have a session of their own."""


def _refuse_shared_sessions(connection: psycopg.Connection, url: str) -> None:
    """Refuse a pooler that lends a server to its clients for one transaction: settings and locks are the session's.

    Raises:
        SettingError: it does.
    """
    if url in _own_sessions:
        return
    from estudio_core.pooler import shares_sessions

    if shares_sessions(connection, url):
        connection.close()
        raise SettingError(
            f"The pooler at {describe(url)} lends servers for single transactions or statements, and Estudio's "
            "settings, prepared statements and locks are those of a session. Set pool_mode = session for this database "
            "in PgBouncer, or let the URL name PostgreSQL itself."
        )
    _own_sessions.add(url)


def require_own_sessions(url: str, wait_s: float | None = None) -> None:
    """Do the same before the first connection of a pool, which would try again and again; asked once in a process.

    A server that does not answer within `wait_s` seconds (10 at most, and 2 at the least) is asked the next time.
    """
    import psycopg

    if url in _own_sessions:
        return
    patience = 10 if wait_s is None else math.ceil(min(max(wait_s, 2.0), 10.0))
    asked = partial(psycopg.connect, url, autocommit=True, connect_timeout=patience)
    with suppress(psycopg.OperationalError), asked() as connection:
        _refuse_shared_sessions(connection, url)


def migrate(url: str | None = None) -> str:
    """Carry out all migrations that the database (`database_url()` by default) lacks; return the number it is at now.

    Raises:
        SchemaVersionError, ConfigurationError, DatabaseUnavailableError: as `migrations.upgrade.migrate`.
    """
    from estudio_core.migrations import upgrade

    with outages_named():
        return upgrade.migrate(lambda: connect(url))


def json_numbers(numbers: Mapping[str, Any]) -> Jsonb:
    """Return named figures as a value of a statement, without those that JSON has no word for: NaN and infinities."""
    from psycopg.types.json import Jsonb

    return Jsonb({name: it for name, it in numbers.items() if not (isinstance(it, float) and not math.isfinite(it))})


async def settle_async(connection: psycopg.AsyncConnection) -> None:
    """Make a pooled session of an event loop what `pool` makes of its own."""
    import psycopg
    from psycopg.types.json import set_json_loads

    await connection.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
    set_json_loads(exact_json.loads, connection)
    async with connection.transaction():
        await connection.execute(SET.format(local=False), (list(SEARCHING), list(SEARCHING.values())))
        await connection.execute(SEE_PGVECTOR)


def require_tables(url: str) -> None:
    """Check the tables of a server. Raises: as `require_schema`."""
    with connection(url=url) as pooled:
        require_schema(pooled)


def _settle(connection: psycopg.Connection, settings: Mapping[str, str]) -> None:
    """Make a session what Estudio's statements are written for, whatever server, database and role say.

    Every statement sees what is committed when it begins: a switch that waited for writers must see what they wrote.
    pgvector is found wherever it is installed. Numbers of payloads stay what they are.
    """
    import psycopg
    from psycopg.types.json import set_json_loads

    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    set_json_loads(exact_json.loads, connection)
    with connection.transaction():
        connection.execute(SET.format(local=False), (list(settings), list(settings.values())))
        connection.execute(SEE_PGVECTOR)


def _notice_lost_client(connection: psycopg.Connection) -> None:
    import psycopg

    # Only servers on systems that can tell have the setting (Linux, macOS, BSD).
    with suppress(psycopg.errors.InvalidParameterValue), connection.transaction():
        connection.execute("SELECT set_config('client_connection_check_interval', %s, false)", (f"{LOST_CLIENT_S}s",))


def pool(
    configure: Configure | None = None,
    size: int | None = None,
    url: str | None = None,
    wait_s: float | None = None,
) -> ConnectionPool:
    """Return this process's connection pool to `url`: in autocommit mode, with vectors registered.

    Connections that `configure` has set up for one purpose are a pool of their own, which nobody else borrows from.

    Args:
        configure: Sets up a new connection.
        size: Connections at most; None: the setting `database_pool_size`.
        url: Of the server; None: `database_url()`.
        wait_s: How long to wait for a server that was never asked; None: 10 seconds.
    """
    key = (url or database_url(), configure)
    require_own_sessions(key[0], wait_s)
    with _pools_lock:
        found = _pools.get(key)
        if found is not None:
            _pools.move_to_end(key)
        else:
            found = _pools[key] = _new_pool(*key, size or get_settings().database_pool_size)
            while len(_pools) > _MOST_POOLS:
                _pools.popitem(last=False)
        return found


_MOST_POOLS = 16
_pools: OrderedDict[tuple[str, Configure | None], ConnectionPool] = OrderedDict()
_pools_lock = threading.Lock()


def forget_pools() -> None:
    """Let the next use open new pools: settings or the server's have changed."""
    with _pools_lock:
        gone = list(_pools.values())
        _pools.clear()
    for each in gone:
        each.close(timeout=CLOSE_S)


def _after_fork() -> None:
    global _pools, _pools_lock
    keep_for_ever(_pools)
    _pools, _pools_lock = OrderedDict(), threading.Lock()
    _checked.clear()


os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _close_pools() -> None:
    """Close this process's own pools: a forked one has none of its parent's."""
    while _pools:
        _pools.popitem()[1].close()


def _new_pool(url: str, configure: Configure | None, size: int) -> ConnectionPool:
    from psycopg_pool import ConnectionPool

    from estudio_core.statement_spans import TellingCursor

    def set_up(connection: psycopg.Connection) -> None:
        _settle(connection, SEARCHING)
        _register_vector(connection)
        if configure is not None:
            configure(connection)

    return ConnectionPool(
        url,
        kwargs={"autocommit": True, "cursor_factory": TellingCursor, **noticing(url)},
        min_size=0,
        max_size=size,
        open=True,
        timeout=CONNECTION_TIMEOUT_S,
        reconnect_timeout=RECONNECT_S,
        check=_check,
        configure=set_up,
    )


def _register_vector(connection: psycopg.Connection) -> None:
    from pgvector.psycopg import register_vector

    register_vector(connection)


def may_be_broken(connection: psycopg.Connection | psycopg.AsyncConnection) -> bool:
    """Return whether the server has said something on a connection that nobody has asked: that it ends, mostly.

    After a restart of the server all pooled connections are like that. It costs no round trip.
    """
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(waiting.poll(0))


def _check(connection: psycopg.Connection) -> None:
    """Ask a pooled connection for a sign of life, unless it gave one within `CHECK_INTERVAL_S` and is quiet."""
    from psycopg_pool import ConnectionPool

    now = time.monotonic()
    if now - _checked.get(connection, -CHECK_INTERVAL_S) >= CHECK_INTERVAL_S or may_be_broken(connection):
        watchdog.watch(connection, now + CHECK_PATIENCE_S)
        try:
            ConnectionPool.check_connection(connection)
        finally:
            watchdog.let_go(connection)
        _checked[connection] = now


class connection:  # noqa: N801 - used as the function that `contextmanager` would make, with less work for a search
    """Lends a pooled connection in autocommit mode, from the pool of those that `configure` has set up.

    Args:
        configure: As of `pool`, like `size` and `url`.
        size: See there.
        url: See there.
        wait_s: How long to wait for one; None: 15 seconds.

    Raises:
        DatabaseUnavailableError: no connection within that time.
        ConnectionLostError: it broke.
    """

    __slots__ = ("_configure", "_pool", "_pooled", "_size", "_url", "_wait_s")

    def __init__(
        self,
        configure: Configure | None = None,
        size: int | None = None,
        url: str | None = None,
        wait_s: float | None = None,
    ) -> None:
        self._configure, self._size, self._url, self._wait_s = configure, size, url, wait_s

    def __enter__(self) -> psycopg.Connection:
        """Borrow a connection."""
        source = pool(self._configure, self._size, self._url, self._wait_s)
        self._pool, self._pooled = _borrow(source, self._url, self._wait_s)
        return self._pooled

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Give it back."""
        self._pool.putconn(self._pooled)
        if error is not None:
            name_outage(error)


@contextmanager
def transaction() -> Iterator[psycopg.Connection]:
    """Yield a pooled connection inside one transaction: committed at the end, rolled back on an error.

    Raises:
        DatabaseUnavailableError: no connection within 15 seconds.
        ConnectionLostError: it broke; what was not committed is not done.
    """
    with connection() as pooled, pooled.transaction():
        yield pooled


def _borrow(source: ConnectionPool, url: str | None, wait_s: float | None) -> tuple[ConnectionPool, psycopg.Connection]:
    """Take a connection out of one of this process's pools."""
    from psycopg_pool import PoolTimeout

    wait_s = CONNECTION_TIMEOUT_S if wait_s is None else wait_s
    deadline = time.monotonic() + wait_s
    while True:
        try:
            # Asked again and again: a pool that has given up an attempt begins a new one only for a new request.
            pooled = source.getconn(timeout=min(2 * RECONNECT_S, max(0.01, deadline - time.monotonic())))
            return source, _with_tables(source, pooled)
        except PoolTimeout as error:
            if time.monotonic() > deadline:
                raise no_connection(url, wait_s) from error


def no_connection(url: str | None, wait_s: float) -> DatabaseUnavailableError:
    """Return the error of a pool that had none to lend in time."""
    return DatabaseUnavailableError(
        f"PostgreSQL at {describe(url or database_url())} gives no connection within {wait_s:.3g} s. "
        "Run: estudio doctor"
    )


def _with_tables(source: ConnectionPool, pooled: psycopg.Connection) -> psycopg.Connection:
    """Check the tables on a connection's first use: a pool renews them, so that long-lived processes see too."""
    if pooled not in _looked_at:
        try:
            require_schema(pooled)
        except BaseException:
            source.putconn(pooled)
            raise
        _looked_at.add(pooled)
    return pooled


@contextmanager
def outages_named() -> Iterator[None]:
    """Turn the many ways in which psycopg reports that the server went away into one error of ours.

    Raises:
        ConnectionLostError: the connection broke inside the block. What was not committed is not done.
    """
    try:
        yield
    except Exception as error:
        name_outage(error)
        raise


@contextmanager
def errors_named() -> Iterator[None]:
    """Turn every error of the driver into one of ours, for callers who know nothing of PostgreSQL.

    What it cannot send is one of them: a text that is no UTF-8.

    Raises:
        ConnectionLostError: as `outages_named`.
        DatabaseUnavailableError: the server stopped or refused a statement; a retry may help.
        ConfigurationError: the role lacks a right, or the database takes no writes.
        DataError: the server cannot work with a value that was given.
    """
    try:
        yield
    except Exception as error:
        import psycopg

        if isinstance(error, UnicodeEncodeError):
            raise DataError(f"{shown(error.object)} is no UTF-8 text.") from error
        if not isinstance(error, psycopg.Error):
            raise
        name_outage(error)
        raise _named(error) from error


def _named(error: psycopg.Error) -> EstudioError:
    import psycopg

    said = str(error).strip().partition("\n")[0][:500]  # which may hold a value of any length
    state = error.sqlstate or ""
    if isinstance(error, psycopg.errors.QueryCanceled):
        return DatabaseUnavailableError(
            f"PostgreSQL stopped a statement: {said}. Where that is a limit of the database or of Estudio's role, "
            "raise it: ALTER ROLE … SET statement_timeout = …"
        )
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return ConfigurationError(
            f"PostgreSQL refuses: {said}. Grant Estudio's role that right; estudio doctor lists it."
        )
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return ConfigurationError(
            f"The database takes no writes: {said}. Let ESTUDIO_DATABASE_URL name the primary server."
        )
    if isinstance(error, psycopg.DataError) or state.startswith("54"):
        return DataError(f"PostgreSQL cannot work with what was given: {said}.")
    return DatabaseUnavailableError(
        f"PostgreSQL reports: {said} ({state}). Try again; if it stays, run: estudio doctor"
    )


def name_outage(error: BaseException) -> None:
    """Raise our error where psycopg's says that the server went away.

    Raises:
        ConnectionLostError: it does.
    """
    import psycopg

    gone = (psycopg.errors.AdminShutdown, psycopg.errors.CrashShutdown, psycopg.errors.CannotConnectNow)
    # An error that the server itself reports has a code; a connection that broke has none.
    if isinstance(error, psycopg.OperationalError) and (error.sqlstate is None or isinstance(error, gone)):
        raise ConnectionLostError(f"PostgreSQL went away: {str(error).strip()}. Try again.") from error
