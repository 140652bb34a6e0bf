"""The database as a part of `estudio status`: where it is and whether it answers; nothing is started to find out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psycopg

from estudio_core import embedded_postgres
from estudio_core.postgres_url import describe, postgres_url
from estudio_core.settings import get_settings

ANSWER_TIMEOUT_S = 3


@dataclass(frozen=True)
class DatabaseStatus:
    """Address, without password, of Estudio's database, and whether it answers there."""

    address: str
    answers: bool


def database_status(home: Path) -> DatabaseStatus:
    """Return the state of the configured database, or of the embedded one of the installation in `home`.

    An embedded one that is stopped has its folder as address.

    Raises:
        ConfigurationError: the configured URL is not PostgreSQL's, or cannot be read.
    """
    configured = get_settings().database_url
    folder = home / "postgres"
    url = (
        embedded_postgres.running_url(folder)
        if configured is None
        else postgres_url(configured.get_secret_value(), "ESTUDIO_DATABASE_URL")
    )
    if url is None:
        return DatabaseStatus(str(folder), False)
    try:
        psycopg.connect(url, connect_timeout=ANSWER_TIMEOUT_S).close()
    except psycopg.OperationalError:
        return DatabaseStatus(describe(url), False)
    return DatabaseStatus(describe(url), True)
