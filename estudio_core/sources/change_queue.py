"""A queue of changed ids beside the items, which a trigger on their table feeds.

The trigger's entry commits with the change itself. A reader takes entries, brings the items as they are by then, and
acknowledges exactly the entries that it read: one whose transaction commits later has its own number and waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql
from sqlalchemy import BigInteger, Column, Connection, MetaData, Row, Select, Table, Text, delete, func, select, text

from estudio_core.errors import SourceSchemaError
from estudio_core.sources.source_database import SourceDatabase


@dataclass(frozen=True)
class QueuedChanges:
    """Entries of the queue.

    Attributes:
        entries: Their numbers, to acknowledge.
        object_ids: Ids of the items concerned, each once, the oldest change first.
        whole_table: Whether the table was emptied by TRUNCATE meanwhile.
    """

    entries: list[int]
    object_ids: list[str]
    whole_table: bool


class ChangeQueue:
    """The queue table `name` in the database of the items.

    Args:
        database: Where it is; the user needs SELECT and DELETE on it.
        name: Name of the table.
        schema: Its schema; None: the search path.
    """

    def __init__(self, database: SourceDatabase, name: str, schema: str | None = None) -> None:
        self.name = name
        self.schema = schema
        self._database = database
        self._table = Table(
            name, MetaData(), Column("entry", BigInteger), Column("object_id", Text), schema=schema, quote=True
        )

    def read(self, limit: int) -> QueuedChanges:
        """Return the oldest `limit` entries; they stay until they are acknowledged.

        Raises:
            SourceSchemaError: there is no such queue.
            UnavailableError: the database does not answer.
        """
        rows = self._rows(
            select(self._table.c.entry, self._table.c.object_id).order_by(self._table.c.entry).limit(limit)
        )
        ids = dict.fromkeys(row.object_id for row in rows if row.object_id is not None)
        return QueuedChanges([row.entry for row in rows], list(ids), any(row.object_id is None for row in rows))

    def acknowledge(self, entries: Sequence[int]) -> None:
        """Remove these entries: what they stand for is committed elsewhere."""
        statement = delete(self._table).where(self._table.c.entry.in_(list(entries)))
        self._database.write(lambda connection: connection.execute(statement))

    def depth(self) -> int:
        """Return the number of waiting entries. Raises: as `read`."""
        [(count,)] = self._rows(select(func.count()).select_from(self._table))
        return int(count)

    def _rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        try:
            return self._database.read(lambda connection: connection.execute(query).all())
        except SourceSchemaError as error:
            raise SourceSchemaError(
                f"The queue of changes {self.name!r} cannot be read: {error} "
                "What creates it is printed by: estudio plugins queue-sql"
            ) from error


def queue_sql(database: SourceDatabase, table: str, id_column: str, queue: str, schema: str | None) -> str:
    """Return the SQL that creates the queue `queue` and the triggers on `table` that feed it. It may be run again.

    Raises:
        SourceSchemaError: there is no such table, or it is a view, which has no triggers.
    """
    place = database.read(lambda connection: _schema_of(connection, table, schema))
    body = sql.SQL(
        "BEGIN\n"
        "    IF TG_OP = 'TRUNCATE' THEN\n"
        "        INSERT INTO {queue} (object_id) VALUES (NULL);\n"
        "        RETURN NULL;\n"
        "    END IF;\n"
        "    IF TG_OP <> 'INSERT' THEN\n"
        "        INSERT INTO {queue} (object_id) VALUES (OLD.{key}::text);\n"
        "    END IF;\n"
        "    IF TG_OP = 'INSERT' OR (TG_OP = 'UPDATE' AND NEW.{key} IS DISTINCT FROM OLD.{key}) THEN\n"
        "        INSERT INTO {queue} (object_id) VALUES (NEW.{key}::text);\n"
        "    END IF;\n"
        "    RETURN NULL;\n"
        "END"
    ).format(queue=sql.Identifier(place, queue), key=sql.Identifier(id_column))
    statements = sql.SQL(
        "BEGIN;\n"
        "CREATE TABLE IF NOT EXISTS {queue} (\n"
        "    entry bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,\n"
        "    object_id text,  -- NULL: the whole table was emptied\n"
        "    queued_at timestamptz NOT NULL DEFAULT clock_timestamp()\n"
        ");\n"
        "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql\n"
        "    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body};\n"
        "CREATE OR REPLACE TRIGGER {rows} AFTER INSERT OR UPDATE OR DELETE ON {table}\n"
        "    FOR EACH ROW EXECUTE FUNCTION {function}();\n"
        "CREATE OR REPLACE TRIGGER {truncate} AFTER TRUNCATE ON {table}\n"
        "    FOR EACH STATEMENT EXECUTE FUNCTION {function}();\n"
        "COMMIT;\n"
    ).format(
        queue=sql.Identifier(place, queue),
        function=sql.Identifier(place, f"{queue}_feed"),
        body=sql.Literal(body.as_string(None)),
        rows=sql.Identifier(f"{queue}_rows"),
        truncate=sql.Identifier(f"{queue}_truncate"),
        table=sql.Identifier(place, table),
    )
    return statements.as_string(None)


def _schema_of(connection: Connection, table: str, schema: str | None) -> str:
    name = sql.Identifier(schema, table) if schema else sql.Identifier(table)
    row = connection.execute(
        text(
            "SELECT n.nspname, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.oid = to_regclass(:name)"
        ),
        {"name": name.as_string(None)},
    ).one_or_none()
    if row is None or row.relkind not in ("r", "p"):
        found = "is not there" if row is None else "is no table"
        raise SourceSchemaError(
            f"{table!r} {found}. The trigger has to be on a table that is written to: name that one."
        )
    return str(row.nspname)
