"""PostgreSQL URLs as people write them: read, made one spelling, and told without a password."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache
from typing import Any

from estudio_core.errors import SettingError

_TYPES = {"postgres", "postgresql", "pgsql"}
_NOTICING = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""In seconds, but for the last, which is in milliseconds."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@lru_cache(maxsize=32)
def postgres_url(url: str, source: str) -> str:
    """Return `url` as libpq reads it: drivers that SQLAlchemy names are left out, `key=value` pairs stay as they are.

    >>> postgres_url("postgresql+psycopg2://reader@db/shop", "the URL")
    'postgresql://reader@db/shop'

    Args:
        url: The URL.
        source: Where it comes from, for messages.

    Raises:
        SettingError: it is not PostgreSQL's, or cannot be read. The message holds no part of it but the scheme.
    """
    url = with_libpq_scheme(url, source)
    connection_parameters(url)
    return url


def with_libpq_scheme(url: str, source: str) -> str:
    """Return `url` with the scheme `postgresql`, the rest unread; one of `key=value` pairs as it is.

    Raises:
        SettingError: the scheme is another database's.
    """
    if not _SCHEME.match(url):
        return url
    scheme, _, rest = url.partition("://")
    require_postgres(scheme.partition("+")[0], source)
    return f"postgresql://{rest}"


def connection_parameters(url: str) -> dict[str, Any]:
    """Return the libpq parameters of `url`, read as psycopg reads them.

    >>> connection_parameters("postgresql://reader@db:5433/shop")
    {'user': 'reader', 'dbname': 'shop', 'host': 'db', 'port': '5433'}

    Raises:
        SettingError: it cannot be read, or a special character of its password stands for something else.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    known: dict[str, Any] | None = None
    if _unambiguous(url):
        with suppress(psycopg.ProgrammingError):  # whose message quotes parts of the URL
            known = dict(conninfo_to_dict(url))
    if known is None or not all(port.isdigit() for port in str(known.get("port", "0")).split(",") if port):
        raise SettingError(
            "The database URL cannot be read. Write postgresql://user:password@host:5432/database, "
            "with special characters of user and password percent-encoded (@ is %40, / is %2F)."
        )
    return known


def noticing(url: str) -> dict[str, Any]:
    """Return further parameters of a connection to `url`: a server whose host does not answer is noticed.

    That takes ten seconds at the beginning, and a minute later on, where systems wait for two hours. What the URL says
    of it is kept.

    >>> sorted(noticing("postgresql://db/shop?keepalives_count=9"))
    ['connect_timeout', 'keepalives_idle', 'keepalives_interval', 'tcp_user_timeout']
    """
    known = connection_parameters(url)
    return {name: value for name, value in _NOTICING.items() if name not in known}


def _unambiguous(url: str) -> bool:
    """Whether no @ stands where libpq takes what is before it, maybe a password, for host, port or database."""
    if not _SCHEME.match(url):
        return True
    authority, _, path = url.partition("://")[2].partition("?")[0].partition("/")
    return authority.count("@") <= 1 and "@" not in path


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
        SettingError: it is one.
    """
    if kind.lower() not in _TYPES:
        raise SettingError(
            f"The type of {source} is {kind!r}; PostgreSQL is needed: use postgresql://user:password@host/database."
        )


def sqlalchemy_url(url: str) -> str:
    """Return `url` with SQLAlchemy's name of the psycopg 3 driver.

    >>> sqlalchemy_url("postgresql://reader@db/shop")
    'postgresql+psycopg://reader@db/shop'
    """
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg{separator}{rest}" if scheme in {"postgres", "postgresql"} else url
