"""Whether this code can work with the tables that a database has."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

from estudio_core import migrations
from estudio_core.errors import ConfigurationError, SchemaVersionError

if TYPE_CHECKING:
    import psycopg

SCHEMA = "estudio"
MINIMUM_PGVECTOR = (0, 8, 4)
"""0.8.3 and 0.8.4 repair HNSW index corruption; 0.8.2 a buffer overflow in parallel builds."""


MINIMUM_SERVER = 140_000
"""Of PostgreSQL, as `server_version_num`: the first that notices during a statement that its client is gone."""


@dataclass(frozen=True)
class Demand:
    """Something of a database that Estudio cannot work with, and what mends it."""

    problem: str
    mend: str

    def __str__(self) -> str:
        """Both."""
        return f"{self.problem}: {self.mend}."


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


_FACTS = """
    SELECT current_setting('server_version_num')::int AS version, current_setting('server_encoding') AS encoding,
        current_setting('transaction_read_only')::bool OR pg_is_in_recovery() AS reads_only,
        current_setting('session_replication_role') AS replication_role, current_user::text AS role,
        current_database()::text AS name, has_database_privilege(current_database(), 'TEMP') AS temporary,
        has_database_privilege(current_database(), 'CREATE') AS creates, e.nspname AS own,
        e.oid IS NULL OR has_schema_privilege(e.oid, 'USAGE') AND has_schema_privilege(e.oid, 'CREATE') AS in_own,
        v.nspname AS pgvector, v.oid IS NULL OR has_schema_privilege(v.oid, 'USAGE') AS in_pgvector,
        EXISTS (SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'vector') AS available,
        (SELECT string_agg(c.relname, ', ' ORDER BY c.relname) FROM pg_catalog.pg_class c WHERE c.relnamespace = e.oid
            AND c.relkind IN ('r', 'p') AND NOT (has_table_privilege(c.oid, 'SELECT, INSERT') AND
            has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))) AS closed
    FROM (SELECT) AS here LEFT JOIN pg_catalog.pg_namespace e ON e.nspname = %s
        LEFT JOIN (pg_catalog.pg_extension x JOIN pg_catalog.pg_namespace v ON v.oid = x.extnamespace)
            ON x.extname = 'vector'
"""


def demands(connection: psycopg.Connection) -> list[Demand]:
    """Return what of database, role and session Estudio cannot work with; nothing is changed."""
    from psycopg.rows import dict_row
    from psycopg.sql import Identifier

    with connection.cursor(row_factory=dict_row) as cursor:
        facts = cursor.execute(_FACTS, (SCHEMA,)).fetchone()
    assert facts is not None
    has = SimpleNamespace(**facts)
    role, name = (Identifier(each).as_string(connection) for each in (has.role, has.name))
    found = []
    if has.version < MINIMUM_SERVER:
        found.append(Demand(f"PostgreSQL {has.version // 10_000} is too old", f"upgrade to {MINIMUM_SERVER // 10_000}"))
    if has.encoding != "UTF8":
        made = "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and let ESTUDIO_DATABASE_URL name that"
        found.append(Demand(f"the encoding of database {name} is {has.encoding}, which does not hold every text", made))
    if has.reads_only:
        found.append(Demand("the server takes no writes", "let ESTUDIO_DATABASE_URL name the primary server"))
    if has.replication_role == "replica":
        reset = f"ALTER ROLE {role} SET session_replication_role = origin"
        found.append(Demand("session_replication_role is replica, so that no trigger keeps the words of items", reset))
    if has.own is None and not has.creates:
        made = f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {role}"
        found.append(Demand(f"role {role} may not create the schema {SCHEMA!r}", made))
    if not has.in_own:
        grant = f"GRANT USAGE, CREATE ON SCHEMA {SCHEMA} TO {role}"
        found.append(Demand(f"role {role} may not use, or create tables in, schema {SCHEMA!r}", grant))
    if not has.temporary:
        found.append(
            Demand(f"role {role} may make no temporary tables", f"GRANT TEMPORARY ON DATABASE {name} TO {role}")
        )
    if has.closed:
        grant = f"GRANT ALL ON ALL TABLES IN SCHEMA {SCHEMA} TO {role}"
        found.append(Demand(f"role {role} may not read and write {has.closed:.200}", grant))
    if has.pgvector is None:
        mend = "CREATE EXTENSION vector, as a role that may" if has.available else "install pgvector on the server"
        found.append(Demand("the database has no pgvector", mend))
    if not has.in_pgvector:
        place = Identifier(has.pgvector).as_string(connection)
        grant = f"GRANT USAGE ON SCHEMA {place} TO {role}"
        found.append(Demand(f"role {role} may not use schema {place}, where pgvector is", grant))
    return found


def require_usable(connection: psycopg.Connection) -> None:
    """Refuse a database that Estudio cannot work with.

    Raises:
        ConfigurationError: names all that is wrong, and what mends it.
    """
    if found := demands(connection):
        raise ConfigurationError(f"Estudio cannot work with this database. {' '.join(map(str, found))}")
