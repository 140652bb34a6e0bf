"""Bring Estudio's tables to what this code works with."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import tenacity

from estudio_core import migrations
from estudio_core.errors import DatabaseUnavailableError
from estudio_core.migrations.check import SCHEMA, require_pgvector, require_schema, require_usable, schema_version
from estudio_core.session_settings import SEE_PGVECTOR

if TYPE_CHECKING:
    import psycopg

LOCK_TRY_S = 0.5
"""How long one try waits for a lock: all writers of that table wait behind it. Shorter than PostgreSQL's
`deadlock_timeout` (1 s): of a migration and a writer that wait for each other the migration gives way."""
PAUSE_S = 0.5
"""Between two tries, for the writers that waited."""
PATIENCE_S = 60.0
"""How long it is tried again while others use the tables."""

_ONE_AT_A_TIME = 4_837_201_155
"""Advisory lock key. Versions before numbered migrations take it too while they make tables."""

logger = logging.getLogger(__name__)


def migrate(connect: Callable[[], psycopg.Connection]) -> str:
    """Carry out all migrations that the database of `connect` lacks; return the number it is at now.

    Each is one transaction: killed in the middle, it leaves the tables of the version before. Where nothing is lacking,
    one row is read; tables of a newer version that serve this one stay as they are.

    Raises:
        SchemaVersionError: a newer version of Estudio made the tables, and this one cannot work with them.
        ConfigurationError: pgvector is missing or older than 0.8.4, or database or role are of a kind that Estudio
            cannot work with; the message says what to change.
        DatabaseUnavailableError: the server does not answer, or others use the tables without a pause for a minute.
    """
    import psycopg

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(psycopg.errors.LockNotAvailable),
        wait=tenacity.wait_fixed(PAUSE_S),
        stop=tenacity.stop_after_delay(PATIENCE_S),
        reraise=True,
    )
    try:
        return retrying(_migrate, connect)
    except psycopg.errors.LockNotAvailable as error:
        raise DatabaseUnavailableError(
            f"Estudio's tables are to be migrated to {migrations.newest()}, and other transactions have used them for "
            f"{PATIENCE_S:g} s: a dump, a vacuum, a session left open, or another migration (see pg_stat_activity). "
            "Nothing was changed by this try. End them, or run it again later: estudio migrate"
        ) from error


def _migrate(connect: Callable[[], psycopg.Connection]) -> str:
    with connect() as connection:
        found = schema_version(connection)
        if found is None or found.number < migrations.newest():
            connection.execute("SELECT set_config('lock_timeout', %s, false)", (f"{LOCK_TRY_S * 1000:.0f}ms",))
            # Held by the session: a second migration that waited finds nothing left to do.
            connection.execute("SELECT pg_advisory_lock(%s)", (_ONE_AT_A_TIME,))
            _make_room(connection)
            connection.commit()
            _run_scripts(connection)
        return require_schema(connection)


def _make_room(connection: psycopg.Connection) -> None:
    """Create what the first migration stands on: the extension, and the schema with Alembic's own table."""
    import psycopg

    with suppress(psycopg.Error), connection.transaction():  # what is lacking then is told below, with all else
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    require_usable(connection)
    require_pgvector(connection)
    connection.execute(SEE_PGVECTOR)
    # IF NOT EXISTS would ask for the right to create one that is there.
    if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'estudio'").fetchone() is None:
        connection.execute("CREATE SCHEMA estudio")


def _run_scripts(connection: psycopg.Connection) -> None:
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import StaticPool, create_engine
    from sqlalchemy.exc import DBAPIError

    scripts = ScriptDirectory(str(migrations.SCRIPTS))
    engine = create_engine("postgresql+psycopg://", creator=lambda: connection, poolclass=StaticPool)
    with engine.connect() as bind:
        context = MigrationContext.configure(
            bind,
            opts={
                "version_table_schema": SCHEMA,
                "transaction_per_migration": True,
                # What Alembic's command `upgrade head` runs; that needs a file env.py, which nothing else can import.
                "fn": lambda current, _: scripts._upgrade_revs("head", current),
            },
        )
        try:
            with migrations.alembic, Operations.context(context):
                context.run_migrations()
        except DBAPIError as error:
            if error.orig is None:
                raise
            raise error.orig from error
