"""Cursors of psycopg that tell each statement as a span, with its operation; never its text or its values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.pq import PipelineStatus

from estudio_core.telemetry import STATEMENT, is_traced, measured

if TYPE_CHECKING:
    from typing import Self

    from opentelemetry.trace import Tracer
    from psycopg.abc import Params, Query

Row = TypeVar("Row")
_OPERATION = re.compile(rb"\W*(\w+)")
_LOOKED_AT = 200
"""Characters in which the first word stands."""
_READ = {"WITH": "SELECT", "TABLE": "SELECT", "VALUES": "SELECT"}


def operation_of(statement: Any) -> str:
    """Return what a statement does, by its first word.

    >>> operation_of("  insert into t values (1)"), operation_of(b"WITH a AS (SELECT 1) TABLE a")
    ('INSERT', 'SELECT')
    >>> operation_of(sql.SQL("{} {}").format(sql.SQL("COPY"), sql.Identifier("t")))
    'COPY'
    """
    while isinstance(statement, sql.Composed):
        parts = [part for part in statement if not isinstance(part, sql.SQL) or part.as_string(None).strip()]
        statement = parts[0] if parts else b""
    if isinstance(statement, sql.SQL):
        statement = statement.as_string(None)
    if isinstance(statement, str):
        statement = statement[:_LOOKED_AT].encode()
    found = _OPERATION.match(statement[:_LOOKED_AT]) if isinstance(statement, bytes) else None
    word = "" if found is None else found[1].decode("ascii", "replace").upper()
    return _READ.get(word, word)


class statement_span(measured):  # noqa: N801 - as `measured`
    """Measures a statement, or several that are sent together; of an error PostgreSQL's code is told too.

    Args:
        connection: Which it is sent on.
        statement: What is sent.
        rows: For how many rows, where it is sent for several.
    """

    __slots__ = ("_connection", "_rows", "_statement")

    def __init__(self, connection: Any, statement: Any, rows: int | None = None) -> None:
        super().__init__(STATEMENT, {})
        self._connection, self._statement, self._rows = connection, statement, rows

    def _begin(self, tracer: Tracer) -> None:
        operation, database = operation_of(self._statement), self._connection.info.dbname
        self._name = f"{operation} {database}".strip()
        self._attributes |= {
            "db.system.name": "postgresql",
            "db.namespace": database,
            "db.operation.name": operation,
        }
        if self._rows is not None:
            self._attributes["db.operation.batch.size"] = self._rows
        super()._begin(tracer)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, psycopg.Error) and error.sqlstate is not None:
            self.tell("db.response.status_code", error.sqlstate)
        super().__exit__(kind, error, traceback)


def _is_told(cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> bool:
    """Return whether a statement is told by itself: in a pipeline its cursor does not wait for it."""
    return is_traced() and cursor.connection.pgconn.pipeline_status == PipelineStatus.OFF


class TellingCursor(psycopg.Cursor[Row]):
    """Of a connection that blocks."""

    def execute(
        self, query: Any, params: Params | None = None, *, prepare: bool | None = None, binary: bool | None = None
    ) -> Self:
        """Run a statement."""
        if not _is_told(self):
            return super().execute(query, params, prepare=prepare, binary=binary)
        with statement_span(self.connection, query):
            return super().execute(query, params, prepare=prepare, binary=binary)

    def executemany(self, query: Query, params_seq: Any, *, returning: bool = False) -> None:
        """Run a statement for several rows."""
        if not _is_told(self):
            super().executemany(query, params_seq, returning=returning)
            return
        rows = list(params_seq)
        with statement_span(self.connection, query, len(rows)):
            super().executemany(query, rows, returning=returning)

    @contextmanager
    def copy(self, statement: Query, params: Params | None = None, **options: Any) -> Iterator[psycopg.Copy]:
        """Copy rows."""
        if not _is_told(self):
            with super().copy(statement, params, **options) as copying:
                yield copying
            return
        with statement_span(self.connection, statement), super().copy(statement, params, **options) as copying:
            yield copying


class TellingAsyncCursor(psycopg.AsyncCursor[Row]):
    """Of a connection of an event loop."""

    async def execute(
        self, query: Any, params: Params | None = None, *, prepare: bool | None = None, binary: bool | None = None
    ) -> Self:
        """Run a statement."""
        if not _is_told(self):
            return await super().execute(query, params, prepare=prepare, binary=binary)
        with statement_span(self.connection, query):
            return await super().execute(query, params, prepare=prepare, binary=binary)
