"""Whether this code can work with the tables that a database has."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from estudio_core import migrations
from estudio_core.errors import ConfigurationError, SchemaVersionError

if TYPE_CHECKING:
    import psycopg

SCHEMA = "estudio"
MINIMUM_PGVECTOR = (0, 8, 4)
"""0.8.3 and 0.8.4 repair HNSW index corruption; 0.8.2 a buffer overflow in parallel builds."""


@dataclass(frozen=True)
class SchemaVersion:
    """Which tables a database has.

    Attributes:
        number: Of the last migration that made them.
        serves_from: Code that knows the migration of this number, or a later one, works with them.
    """

    number: str
    serves_from: str


def schema_version(connection: psycopg.Connection) -> SchemaVersion | None:
    """Return which tables the database has; None where it has none, or those from before migrations had numbers."""
    import psycopg

    with suppress(psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn), connection.transaction():
        row = connection.execute("SELECT version_num, serves_from FROM estudio.alembic_version").fetchone()
        return None if row is None else SchemaVersion(*row)
    return None


def require_schema(connection: psycopg.Connection) -> str:
    """Check that this code can work with the tables, and return their number. Reads one row; changes and locks nothing.

    Tables that a newer version has migrated serve this one too, unless that migration says otherwise.

    Raises:
        SchemaVersionError: the tables are missing, older, or too new; the message names the command that helps.
    """
    needed = migrations.newest()
    found = schema_version(connection)
    if found is None or found.number < needed:
        has = "no tables of this version" if found is None else f"tables of version {found.number}"
        raise SchemaVersionError(f"Estudio's database has {has}, and {needed} is needed. Run: estudio migrate")
    if needed < found.serves_from:
        raise SchemaVersionError(
            f"Estudio's database has tables of version {found.number}, which serve code from {found.serves_from} on; "
            f"this code knows {needed}. Run: pip install --upgrade estudio"
        )
    return found.number


def require_pgvector(connection: psycopg.Connection) -> None:
    """Check the version of pgvector.

    Raises:
        ConfigurationError: it is older than 0.8.4.
    """
    row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    if row is None:
        raise ConfigurationError("The database has lost its pgvector extension. Run: CREATE EXTENSION vector")
    version = tuple(int(part) for part in row[0].split("."))
    if version < MINIMUM_PGVECTOR:
        raise ConfigurationError(
            f"pgvector {row[0]} is installed; 0.8.4 or newer is needed (index corruption in older ones). "
            "Update the package, then run: ALTER EXTENSION vector UPDATE"
        )
