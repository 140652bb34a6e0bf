"""PostgreSQL URLs as people write them: read, made one spelling, and told without a password."""

from __future__ import annotations

import re
from typing import Any

from estudio_core.errors import ConfigurationError

_TYPES = {"postgres", "postgresql", "pgsql"}


def postgres_url(url: str, source: str) -> str:
    """Return `url` as libpq reads it: drivers that SQLAlchemy names are left out, `key=value` pairs stay as they are.

    >>> postgres_url("postgresql+psycopg2://reader@db/shop", "the URL")
    'postgresql://reader@db/shop'

    Args:
        url: The URL.
        source: Where it comes from, for messages.

    Raises:
        ConfigurationError: it is not PostgreSQL's, or cannot be read. The message holds no part of it but the scheme.
    """
    if "://" in url:
        url = with_libpq_scheme(url, source)
    connection_parameters(url)
    return url


def with_libpq_scheme(url: str, source: str) -> str:
    """Return `url` with the scheme `postgresql`, the rest unread.

    Raises:
        ConfigurationError: the scheme is another database's.
    """
    scheme, _, rest = url.partition("://")
    require_postgres(scheme.partition("+")[0], source)
    return f"postgresql://{rest}"


def connection_parameters(url: str) -> dict[str, Any]:
    """Return the libpq parameters of `url`, read as psycopg reads them.

    >>> connection_parameters("postgresql://reader@db:5433/shop")
    {'user': 'reader', 'dbname': 'shop', 'host': 'db', 'port': '5433'}

    Raises:
        ConfigurationError: it cannot be read.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        known = dict(conninfo_to_dict(url))
    except psycopg.ProgrammingError:
        known = None
    # libpq's messages quote parts of the URL: where a / of the password was not encoded, it is the port.
    if known is None or not all(port.isdigit() for port in str(known.get("port", "0")).split(",") if port):
        raise ConfigurationError(
            "The database URL cannot be read. Write postgresql://user:password@host:5432/database, "
            "with special characters of user and password percent-encoded (@ is %40, / is %2F)."
        )
    return known


def describe(url: str) -> str:
    """Return user, host, port and database of `url`: all that a message may tell.

    >>> describe("postgresql://reader:secret@db:5433/shop?password=secret")
    'reader@db:5433/shop'
    """
    known = connection_parameters(url)
    user = f"{known['user']}@" if "user" in known else ""
    port = f":{known['port']}" if "port" in known else ""
    return f"{user}{known.get('host', 'localhost')}{port}/{known.get('dbname', '')}"


def require_postgres(kind: str, source: str) -> None:
    """Refuse another type of database than PostgreSQL, by what URLs and Airflow call it.

    Raises:
        ConfigurationError: it is one.
    """
    if kind.lower() not in _TYPES:
        raise ConfigurationError(
            f"The type of {source} is {kind!r}; PostgreSQL is needed: use postgresql://user:password@host/database."
        )


def sqlalchemy_url(url: str) -> str:
    """Return `url` with SQLAlchemy's name of the psycopg 3 driver.

    >>> sqlalchemy_url("postgresql://reader@db/shop")
    'postgresql+psycopg://reader@db/shop'
    """
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg{separator}{rest}" if scheme in {"postgres", "postgresql"} else url


def redact(url: str) -> str:
    """Return a URL of any kind without passwords: neither in its credentials nor in its query.

    >>> redact("postgresql://reader:secret@db/shop?password=secret&sslmode=require")
    'postgresql://reader:***@db/shop?password=***&sslmode=require'
    """
    scheme, separator, rest = url.partition("://")
    credentials, at, host = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    host = re.sub(r"(?<=[?&]password=)[^&]*", "***", host)
    return f"{scheme}{separator}{user}{':***' if colon else ''}{at}{host}"
