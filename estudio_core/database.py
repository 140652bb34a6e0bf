"""Connections to Estudio's own database: PostgreSQL with pgvector, embedded by default."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from estudio_core import embedded_postgres, exact_json
from estudio_core.errors import (
    ConfigurationError,
    ConnectionLostError,
    DatabaseUnavailableError,
    DataError,
    EstudioError,
)
from estudio_core.migrations.check import SCHEMA as SCHEMA
from estudio_core.migrations.check import require_pgvector as require_pgvector
from estudio_core.migrations.check import require_schema as require_schema
from estudio_core.postgres_url import describe, postgres_url
from estudio_core.session_settings import OWN, SEARCHING, SEE_PGVECTOR, SET
from estudio_core.settings import get_settings

if TYPE_CHECKING:
    import psycopg
    from psycopg_pool import ConnectionPool

CONNECTION_TIMEOUT_S = 15.0
"""How long a transaction waits for a connection, while the server restarts for example."""
RECONNECT_S = 1.0
"""The pool tries a server that is away again after this time. Its own back-off would grow to minutes, and searches
would fail long after the server is back."""
LOST_CLIENT_S = 2
"""The server looks this often whether the client of a long statement still lives. By default it finds out at the end of
the statement: the build lock of a killed task would be held until its index is built."""

CHECK_INTERVAL_S = 1.0
"""A pooled connection that answered so lately is taken to be alive; one round trip less in most searches."""

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


def connect(url: str | None = None, *, autocommit: bool = False, **kwargs: Any) -> psycopg.Connection:
    """Open a connection, to `database_url()` where no URL is given.

    Raises:
        DatabaseUnavailableError: the server does not answer.
    """
    import psycopg

    target = url or database_url()
    try:
        connection = psycopg.connect(target, autocommit=autocommit, connect_timeout=10, **kwargs)
    except psycopg.OperationalError as error:
        raise DatabaseUnavailableError(
            f"PostgreSQL at {describe(target)} does not answer: {str(error).strip()}. "
            "Check ESTUDIO_DATABASE_URL, or run: estudio doctor"
        ) from error
    _notice_lost_client(connection)
    _settle(connection, OWN)
    return connection


def migrate(url: str | None = None) -> str:
    """Carry out all migrations that the database (`database_url()` by default) lacks; return the number it is at now.

    Raises:
        SchemaVersionError, ConfigurationError, DatabaseUnavailableError: as `migrations.upgrade.migrate`.
    """
    from estudio_core.migrations import upgrade

    with outages_named():
        return upgrade.migrate(lambda: connect(url))


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


def pool(configure: Configure | None = None) -> ConnectionPool:
    """Return this process's connection pool to `database_url()`: in autocommit mode, with vectors registered.

    Connections that `configure` has set up for one purpose are a pool of their own, which nobody else borrows from.
    """
    return _pool(os.getpid(), database_url(), configure)


@lru_cache(maxsize=8)
def _pool(pid: int, url: str, configure: Configure | None) -> ConnectionPool:
    from psycopg_pool import ConnectionPool

    def set_up(connection: psycopg.Connection) -> None:
        _settle(connection, SEARCHING)
        _register_vector(connection)
        if configure is not None:
            configure(connection)

    created = ConnectionPool(
        url,
        kwargs={"autocommit": True, "connect_timeout": 10},
        min_size=0,
        max_size=get_settings().database_pool_size,
        open=True,
        timeout=CONNECTION_TIMEOUT_S,
        reconnect_timeout=RECONNECT_S,
        check=_check,
        configure=set_up,
    )
    atexit.register(created.close)
    return created


def _register_vector(connection: psycopg.Connection) -> None:
    from pgvector.psycopg import register_vector

    register_vector(connection)


def _check(connection: psycopg.Connection) -> None:
    """Ask a pooled connection for a sign of life, unless it gave one within `CHECK_INTERVAL_S`."""
    from psycopg_pool import ConnectionPool

    now = time.monotonic()
    if now - _checked.get(connection, -CHECK_INTERVAL_S) >= CHECK_INTERVAL_S:
        ConnectionPool.check_connection(connection)
        _checked[connection] = now


class connection:  # noqa: N801 - used as the function that `contextmanager` would make, with less work for a search
    """Lends a pooled connection in autocommit mode, from the pool of those that `configure` has set up.

    Raises:
        DatabaseUnavailableError: no connection within 15 seconds.
        ConnectionLostError: it broke.
    """

    __slots__ = ("_configure", "_pool", "_pooled")

    def __init__(self, configure: Configure | None = None) -> None:
        self._configure = configure

    def __enter__(self) -> psycopg.Connection:
        """Borrow a connection."""
        self._pool, self._pooled = _borrow(self._configure)
        return self._pooled

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Give it back."""
        self._pool.putconn(self._pooled)
        if error is not None:
            _name_outage(error)


@contextmanager
def transaction() -> Iterator[psycopg.Connection]:
    """Yield a pooled connection inside one transaction: committed at the end, rolled back on an error.

    Raises:
        DatabaseUnavailableError: no connection within 15 seconds.
        ConnectionLostError: it broke; what was not committed is not done.
    """
    with connection() as pooled, pooled.transaction():
        yield pooled


def _borrow(configure: Configure | None) -> tuple[ConnectionPool, psycopg.Connection]:
    """Take a connection out of this process's pool."""
    from psycopg_pool import PoolTimeout

    deadline = time.monotonic() + CONNECTION_TIMEOUT_S
    while True:
        source = pool(configure)
        try:
            # Asked again and again: a pool that has given up an attempt begins a new one only for a new request.
            pooled = source.getconn(timeout=min(2 * RECONNECT_S, max(0.1, deadline - time.monotonic())))
            return source, _with_tables(source, pooled)
        except PoolTimeout as error:
            if time.monotonic() > deadline:
                raise DatabaseUnavailableError(
                    f"PostgreSQL at {describe(database_url())} gives no connection within {CONNECTION_TIMEOUT_S:g} s. "
                    "Run: estudio doctor"
                ) from error


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
        _name_outage(error)
        raise


@contextmanager
def errors_named() -> Iterator[None]:
    """Turn every error of the driver into one of ours, for callers who know nothing of PostgreSQL.

    Raises:
        ConnectionLostError: as `outages_named`.
        DatabaseUnavailableError: the server stopped or refused a statement; a retry may help.
        ConfigurationError: the role lacks a right, or the database takes no writes.
        DataError: the server cannot work with a value that was given.
    """
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        _name_outage(error)
        raise _named(error) from error


def _named(error: psycopg.Error) -> EstudioError:
    import psycopg

    said = str(error).strip().partition("\n")[0]
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


def _name_outage(error: BaseException) -> None:
    import psycopg

    gone = (psycopg.errors.AdminShutdown, psycopg.errors.CrashShutdown, psycopg.errors.CannotConnectNow)
    # An error that the server itself reports has a code; a connection that broke has none.
    if isinstance(error, psycopg.OperationalError) and (error.sqlstate is None or isinstance(error, gone)):
        raise ConnectionLostError(f"PostgreSQL went away: {str(error).strip()}. Try again.") from error
