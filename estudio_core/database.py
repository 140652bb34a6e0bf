"""Connections to Estudio's own database: PostgreSQL with pgvector, embedded by default."""

from __future__ import annotations

import atexit
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from estudio_core import embedded_postgres
from estudio_core.errors import (
    ConfigurationError,
    ConnectionLostError,
    DatabaseUnavailableError,
)
from estudio_core.postgres_url import describe, postgres_url
from estudio_core.settings import get_settings

if TYPE_CHECKING:
    import psycopg
    from psycopg_pool import ConnectionPool

SCHEMA = "estudio"
MINIMUM_PGVECTOR = (0, 8, 4)
"""0.8.3 and 0.8.4 repair HNSW index corruption; 0.8.2 a buffer overflow in parallel builds."""

CONNECTION_TIMEOUT_S = 15.0
"""How long a transaction waits for a connection, while the server restarts for example."""
RECONNECT_S = 1.0
"""The pool tries a server that is away again after this time. Its own back-off would grow to minutes, and searches
would fail long after the server is back."""
LOST_CLIENT_S = 2
"""The server looks this often whether the client of a long statement still lives. By default it finds out at the end of
the statement: the build lock of a killed task would be held until its index is built."""

SCHEMA_LOCK_TIMEOUT_S = 10.0
"""How long a change of the tables waits for transactions that use them. Whoever comes after it waits behind it."""

CHECK_INTERVAL_S = 1.0
"""A pooled connection that answered so lately is taken to be alive; one round trip less in most searches."""

Configure = Callable[["psycopg.Connection"], None]
"""Sets up a new connection of a pool, in autocommit mode."""

_checked: WeakKeyDictionary[psycopg.Connection, float] = WeakKeyDictionary()
_SCHEMA_LOCK = 4_837_201_155  # advisory lock key: one process creates the schema at a time
_SCHEMA_PACKAGES = (
    "estudio_core.clickstream",
    "estudio_core.vectordb",
    "estudio_core.promotion",
    "estudio_core.improvement",
    "estudio_core.monitoring",
    "estudio_core.pipeline",
)


def database_url() -> str:
    """Return the URL of Estudio's database; start the embedded server where none is configured.

    Raises:
        ConfigurationError: the configured one is not PostgreSQL's, or cannot be read.
    """
    configured = get_settings().database_url
    if configured is not None:
        return postgres_url(configured.get_secret_value(), "ESTUDIO_DATABASE_URL")
    return embedded_postgres.url_of(get_settings().home)


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
    _read_committed(connection)
    return connection


def _read_committed(connection: psycopg.Connection) -> None:
    """Have every statement see what is committed when it begins, whatever the server's default.

    A switch that waited for writers must see what they wrote.
    """
    import psycopg

    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED


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
        _register_vector(connection)
        _read_committed(connection)
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
            return source, source.getconn(timeout=min(2 * RECONNECT_S, max(0.1, deadline - time.monotonic())))
        except PoolTimeout as error:
            if time.monotonic() > deadline:
                raise DatabaseUnavailableError(
                    f"PostgreSQL at {describe(database_url())} gives no connection within {CONNECTION_TIMEOUT_S:g} s. "
                    "Run: estudio doctor"
                ) from error


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


def _name_outage(error: BaseException) -> None:
    import psycopg

    gone = (psycopg.errors.AdminShutdown, psycopg.errors.CrashShutdown, psycopg.errors.CannotConnectNow)
    # An error that the server itself reports has a code; a connection that broke has none.
    if isinstance(error, psycopg.OperationalError) and (error.sqlstate is None or isinstance(error, gone)):
        raise ConnectionLostError(f"PostgreSQL went away: {str(error).strip()}. Try again.") from error


def ensure_schema(connection: psycopg.Connection) -> None:
    """Create the schema `estudio` and its tables where they are not those of this version; safe to call at any time.

    Where they are, it looks at one row and locks nothing: even a `CREATE INDEX IF NOT EXISTS` of an index that exists
    would have every writer wait.

    Raises:
        ConfigurationError: pgvector is missing or older than 0.8.4.
        DatabaseUnavailableError: the tables have to change, and somebody uses them for longer than 10 seconds.
    """
    import psycopg

    if _stored_digest(connection) == _schema_digest():
        _require_pgvector(connection)
        return
    try:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
            if _stored_digest(connection) != _schema_digest():
                connection.execute(
                    "SELECT set_config('lock_timeout', %s, true)", (f"{int(SCHEMA_LOCK_TIMEOUT_S * 1000)}ms",)
                )
                _create_schema(connection)
    except psycopg.errors.LockNotAvailable as error:
        raise DatabaseUnavailableError(
            "Estudio's tables have to be created or changed for this version, and another transaction has used them "
            f"for more than {SCHEMA_LOCK_TIMEOUT_S:g} s: a dump, or a session left open (see pg_stat_activity). "
            "End it, or try again later."
        ) from error


def _stored_digest(connection: psycopg.Connection) -> str | None:
    """Return what the tables were made from; None where there are none."""
    with connection.transaction():
        found = connection.execute("SELECT to_regclass('estudio.schema_version')").fetchone()
        if found is None or found[0] is None:
            return None
        row = connection.execute("SELECT max(digest) FROM estudio.schema_version").fetchone()
    return None if row is None else row[0]


@cache
def _schema_digest() -> str:
    digest = hashlib.sha256()
    for statements in _schema_files():
        digest.update(statements)
    return digest.hexdigest()


def _schema_files() -> list[bytes]:
    return [resources.files(package).joinpath("schema.sql").read_bytes() for package in _SCHEMA_PACKAGES]


def _create_schema(connection: psycopg.Connection) -> None:
    import psycopg

    try:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except (psycopg.errors.UndefinedFile, psycopg.errors.FeatureNotSupported) as error:
        raise ConfigurationError(
            "The database has no pgvector extension. Install pgvector >= 0.8.4 on the server."
        ) from error
    _require_pgvector(connection)
    connection.execute("CREATE SCHEMA IF NOT EXISTS estudio")
    for statements in _schema_files():
        connection.execute(statements)
    connection.execute("CREATE TABLE IF NOT EXISTS estudio.schema_version (digest text NOT NULL)")
    connection.execute("DELETE FROM estudio.schema_version")
    connection.execute("INSERT INTO estudio.schema_version VALUES (%s)", (_schema_digest(),))


def _require_pgvector(connection: psycopg.Connection) -> None:
    with connection.transaction():
        row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    if row is None:
        raise ConfigurationError("The database has lost its pgvector extension. Run: CREATE EXTENSION vector")
    version = tuple(int(part) for part in row[0].split("."))
    if version < MINIMUM_PGVECTOR:
        raise ConfigurationError(
            f"pgvector {row[0]} is installed; 0.8.4 or newer is needed (index corruption in older ones). "
            "Update the package, then run: ALTER EXTENSION vector UPDATE"
        )
