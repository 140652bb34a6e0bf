"""A queue of changed ids beside the items, which a trigger on their table feeds.

The trigger's entry commits with the change itself. A reader takes entries, brings the items as they are by then, and
acknowledges exactly the entries that it read: one whose transaction commits later has its own number and waits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from psycopg import sql
from sqlalchemy import BigInteger, Column, Connection, MetaData, Row, Select, Table, Text, delete, func, select, text

from estudio_core.errors import ConfigurationError, SourceSchemaError
from estudio_core.sources.encodings import Encoding
from estudio_core.sources.source_database import SourceDatabase

_NAME_BYTES = 63
"""Of PostgreSQL's names; longer ones are cut there, and two of them may be one."""
_ON_ROWS = sql.SQL(
    "CREATE OR REPLACE TRIGGER {rows} AFTER INSERT OR UPDATE OR DELETE ON {table}\n"
    "    FOR EACH ROW EXECUTE FUNCTION {function}();\n"
    "ALTER TABLE {table} ENABLE ALWAYS TRIGGER {rows};\n"
)
_ON_TRUNCATE = sql.SQL(
    "CREATE OR REPLACE TRIGGER {truncate} AFTER TRUNCATE ON {table}\n"
    "    FOR EACH STATEMENT EXECUTE FUNCTION {function}();\n"
    "ALTER TABLE {table} ENABLE ALWAYS TRIGGER {truncate};\n"
)

_BELOW = (
    "WITH RECURSIVE below AS (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass(:name)"
    " UNION SELECT i.inhrelid FROM pg_inherits i JOIN below b ON i.inhparent = b.inhrelid)"
)
"""The partitions of a table, and those that inherit from it."""
_UNFED = text(
    f"{_BELOW} SELECT c.oid::regclass::text FROM pg_class c CROSS JOIN LATERAL ("  # noqa: S608 (constants)
    " SELECT bit_or(t.tgtype::int) FILTER (WHERE t.tgenabled IN ('O', 'A')) & 28 = 28 AS fed,"  # INSERT, DELETE, UPDATE
    " bool_or(t.tgenabled NOT IN ('O', 'A')) AS off FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid"
    " WHERE t.tgrelid = c.oid AND strpos(lower(p.prosrc), lower(:queue)) > 0) AS here"
    " WHERE (c.oid = to_regclass(:name) OR c.oid IN (SELECT inhrelid FROM below)) AND c.relkind IN ('r', 'p')"
    " AND here.fed IS NOT TRUE AND (here.off OR NOT c.relispartition) ORDER BY 1"
)


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
        encoding = self._encoding
        rows = self._rows(
            select(self._table.c.entry, encoding.selected(self._table.c.object_id).label("object_id"))
            .order_by(self._table.c.entry)
            .limit(limit)
        )
        ids = dict.fromkeys(encoding.shown(row.object_id) for row in rows if row.object_id is not None)
        return QueuedChanges([row.entry for row in rows], list(ids), any(row.object_id is None for row in rows))

    @cached_property
    def _encoding(self) -> Encoding:
        return self._database.read(Encoding.of)

    def acknowledge(self, entries: Sequence[int]) -> None:
        """Remove these entries: what they stand for is committed elsewhere."""
        statement = delete(self._table).where(self._table.c.entry.in_(list(entries)))
        self._database.write(lambda connection: connection.execute(statement))

    def depth(self) -> int:
        """Return the number of waiting entries. Raises: as `read`."""
        [(count,)] = self._rows(select(func.count()).select_from(self._table))
        return int(count)

    def unfed(self, table: str) -> list[str]:
        """Return the table, those of its partitions, and those that inherit from it, whose changes nothing queues.

        A trigger feeds the queue that fires where rows come, change and go, and whose function names the queue; on a
        partition, that of its table does. What feeds the queue of a view is not known.
        """
        place = sql.Identifier(*((self.schema,) if self.schema else ()), table).as_string(None)
        given = {"name": place, "queue": self.name.replace('"', '""')}
        found = self._database.read(lambda connection: connection.execute(_UNFED, given).scalars().all())
        return list(found)

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

    A TRUNCATE of a partition fires that partition's own trigger alone, so each of those that are there gets one. Tables
    that inherit get all. Changes that replication applies are queued too.

    Raises:
        ConfigurationError: the name of the queue is longer than PostgreSQL's names.
        SourceSchemaError: there is no such table, or it is a view, which has no triggers.
    """
    if len(queue.encode()) > _NAME_BYTES:
        raise ConfigurationError(f"change_queue={queue!r} has more than {_NAME_BYTES} bytes: choose a shorter name.")
    place = database.read(lambda connection: _schema_of(connection, table, schema))
    below = database.read(lambda connection: _descendants(connection, place, table))
    function = sql.Identifier(place, _named(queue, "_feed"))
    triggers = {"rows": sql.Identifier(_named(queue, "_rows")), "truncate": sql.Identifier(_named(queue, "_truncate"))}
    feeding = [_ON_ROWS, _ON_TRUNCATE]
    fed = [(sql.Identifier(place, table), feeding)]
    fed += [(sql.Identifier(*name), [_ON_TRUNCATE] if partition else feeding) for *name, partition in below]
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
        "{triggers}"
        "COMMIT;\n"
    ).format(
        queue=sql.Identifier(place, queue),
        function=function,
        body=sql.Literal(body.as_string(None)),
        triggers=sql.Composed(
            [statement.format(table=each, function=function, **triggers) for each, kinds in fed for statement in kinds]
        ),
    )
    return statements.as_string(None)


def queue_end_sql(database: SourceDatabase, table: str, queue: str, schema: str | None) -> str:
    """Return the SQL that takes away what `queue_sql` made: the triggers, of partitions too, and the queue.

    Raises:
        SourceSchemaError: there is no such table.
    """
    place = database.read(lambda connection: _schema_of(connection, table, schema))
    return (
        sql.SQL(
            "BEGIN;\n"
            "DROP FUNCTION IF EXISTS {function}() CASCADE;  -- and the triggers that call it\n"
            "DROP TABLE IF EXISTS {queue};\n"
            "COMMIT;\n"
        )
        .format(function=sql.Identifier(place, _named(queue, "_feed")), queue=sql.Identifier(place, queue))
        .as_string(None)
    )


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


def _descendants(connection: Connection, schema: str, table: str) -> list[tuple[str, str, bool]]:
    """Return schema and name of the partitions of a table, and of those that inherit from it, and which they are."""
    rows = connection.execute(
        text(
            f"{_BELOW} SELECT n.nspname::text, c.relname::text, c.relispartition FROM below b JOIN pg_class c"  # noqa: S608
            " ON c.oid = b.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind IN ('r', 'p') ORDER BY 1, 2"
        ),
        {"name": sql.Identifier(schema, table).as_string(None)},
    )
    return [(row.nspname, row.relname, row.relispartition) for row in rows]


def _named(queue: str, suffix: str) -> str:
    """Return `queue` with `suffix`, cut so that it stays a name of its own.

    >>> _named("shop_changes", "_feed"), _named("q" * 63, "_feed")
    ('shop_changes_feed', 'qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq_9b497770_feed')
    """
    if len((queue + suffix).encode()) <= _NAME_BYTES:
        return queue + suffix
    mark = f"_{hashlib.sha256(queue.encode()).hexdigest()[:8]}{suffix}"
    return queue.encode()[: _NAME_BYTES - len(mark)].decode(errors="ignore") + mark
