"""Transactions on the database of a source: an engine per process, errors by kind, retries."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.abc import Loader
from psycopg.types.datetime import TimestampLoader, TimestamptzLoader
from psycopg.types.string import TextLoader
from sqlalchemy import Connection, Engine, create_engine, event, exc, inspect
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from estudio_core.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    DataError,
    SourceSchemaError,
    SourceTimeoutError,
    suggest,
)
from estudio_core.postgres_url import connection_parameters, describe, noticing
from estudio_core.session_settings import PATIENCE, SET, SPELLING
from estudio_core.settings import get_settings
from estudio_core.sources.connections import resolve_url

T = TypeVar("T")

_ATTEMPTS = 3
_FIRST_WAIT_S = 0.25
_SETTINGS = SPELLING | PATIENCE

# Error classes 08 (connection) and 57P (server goes down or comes up), and "too many connections".
_CONNECTION_STATES = ("08", "57P", "53300")
_SCHEMA_ERRORS = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.InvalidSchemaName,
)


def _read_everything(connection: psycopg.Connection, _: object) -> None:
    """Have values that Python has not come as they are: one of them is no reason to read none.

    Times such as `infinity` are texts then. Texts that are no UTF-8, which databases of the encoding SQL_ASCII may
    hold, are bytes.
    """
    for name, loader in (("timestamp", TimestampLoader), ("timestamptz", TimestamptzLoader)):
        connection.adapters.register_loader(name, _or_as_it_is(loader))
    for name in ("text", "varchar", "bpchar", "name"):
        connection.adapters.register_loader(name, _or_as_it_is(TextLoader))


def _or_as_it_is(loader: type[Loader]) -> type[Loader]:
    class OrAsItIs(loader):  # type: ignore[misc, valid-type]
        def load(self, data: Any) -> Any:
            try:
                value = super().load(data)
                return value.decode() if isinstance(value, bytes) else value
            except psycopg.DataError:
                return bytes(data).decode()
            except UnicodeDecodeError:
                return bytes(data)

    return OrAsItIs


class SourceDatabase:
    """The database of the items, which are only read. Nothing is resolved or connected before the first use.

    A forked process makes its own engine: a connection must not be shared by two processes.
    """

    def __init__(
        self, connection_string: str | None = None, connection_id: str | None = None, schema: str | None = None
    ) -> None:
        if connection_string and connection_id:
            raise ConfigurationError(
                f"connection_string and connection_id={connection_id!r} are both given. Give one of them."
            )
        self._connection_string = connection_string
        self._connection_id = connection_id
        self._schema = schema
        self._engine: Engine | None = None
        self._owner_pid = 0

    @property
    def identity(self) -> str:
        """Which database it is: host, port and name, whoever connects, and options such as a search path."""
        known = connection_parameters(self._url())
        place = "/".join(str(known.get(name, "")) for name in ("host", "port", "dbname"))
        return f"{place} {known['options']}" if known.get("options") else place

    @property
    def engine(self) -> Engine:
        """The engine of this process."""
        if self._engine is not None and self._owner_pid != os.getpid():
            self._engine.dispose(close=False)  # its sockets belong to the parent process
            self._engine = None
        if self._engine is None:
            parameters = connection_parameters(self._url()) | noticing(self._url())
            parameters.setdefault("application_name", "estudio")
            parameters["client_encoding"] = "utf8"
            self._engine = create_engine(
                "postgresql+psycopg://",
                connect_args=parameters,
                pool_pre_ping=True,
                pool_size=2,  # one that reads, one that looks up tables meanwhile
                pool_use_lifo=True,
                hide_parameters=True,
                # By PostgreSQL's own 63, SQLAlchemy renames columns whose names have more than 57 characters.
                max_identifier_length=128,
            )
            event.listen(self._engine, "connect", _read_everything)
            self._owner_pid = os.getpid()
        return self._engine

    def close(self) -> None:
        """Close the connections of this process; the next use opens new ones."""
        if self._engine is not None:
            self._engine.dispose(close=self._owner_pid == os.getpid())
            self._engine = None

    def read(self, work: Callable[[Connection], T]) -> T:
        """Return `work(connection)`, run as of one moment, again where the connection broke."""

        def once() -> T:
            with self._snapshot() as connection:
                return work(connection)

        return _retrying()(once)

    def write(self, work: Callable[[Connection], object]) -> None:
        """Do `work(connection)` in a transaction, again where the connection broke: it has to bear being done twice."""

        def once() -> None:
            with self._transaction(postgresql_readonly=False) as connection:
                work(connection)
                connection.commit()

        _retrying()(once)

    @contextmanager
    def _snapshot(self) -> Iterator[Connection]:
        with self._transaction(isolation_level="REPEATABLE READ", postgresql_readonly=True) as connection:
            # Columns without time zone are read as UTC, wherever the server stands.
            longest = {"statement_timeout": f"{get_settings().source_timeout_s:g}s"}
            names, values = [*_SETTINGS, *longest], [*_SETTINGS.values(), *longest.values()]
            connection.exec_driver_sql(SET.format(local=True), (names, values))
            yield connection

    @contextmanager
    def _transaction(self, **options: Any) -> Iterator[Connection]:
        try:
            with self.engine.connect() as connection:
                yield connection.execution_options(**options)
        except exc.NoSuchTableError as error:
            raise self._missing_table(str(error)) from error
        except exc.DBAPIError as error:
            raise self._translated(error.orig, lost=error.connection_invalidated) from error

    def _translated(self, cause: BaseException | None, *, lost: bool) -> Exception:
        said = str(cause).strip()
        where = describe(self._url())
        state = getattr(cause, "sqlstate", None)
        unreached = isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError) and state is None
        if lost or unreached or (state or "").startswith(_CONNECTION_STATES):
            return DatabaseUnavailableError(
                f"PostgreSQL at {where} does not answer: {said}. Check that it runs, and the connection of the items."
            )
        if isinstance(cause, psycopg.errors.QueryCanceled):
            return SourceTimeoutError(
                f"A query for items at {where} takes more than {get_settings().source_timeout_s:g} s: {said}. Items "
                "are read in pages by their key, changes by their time and key, so these need an index: of a text "
                'CREATE INDEX ON … (id COLLATE "C"), of changes (updated_at, id), of a view that computes a lot, a '
                "materialised one with an index. Or let ESTUDIO_SOURCE_TIMEOUT_S allow more."
            )
        if isinstance(cause, psycopg.errors.InsufficientPrivilege):
            return ConfigurationError(f"PostgreSQL at {where} refuses: {said}. Grant the user that right.")
        if isinstance(cause, _SCHEMA_ERRORS):
            return SourceSchemaError(f"The items cannot be read from {where}: {said}.")
        return DataError(f"The query for items fails at {where}: {said}.")

    def _missing_table(self, name: str) -> SourceSchemaError:
        inspector = inspect(self.engine)
        where = describe(self._url())
        schemas = inspector.get_schema_names()
        if self._schema is not None and self._schema not in schemas:
            return SourceSchemaError(
                f"There is no schema {self._schema!r} at {where}. {suggest(self._schema, schemas)}"
            )
        schema, _, table = name.partition(".")
        if schema in schemas:
            return SourceSchemaError(
                f"There is no table {name!r} at {where}. "
                f"Give the schema apart: PostgresItems(table={table!r}, schema_name={schema!r}), or table_name and "
                "schema of a loader."
            )
        names = [
            *inspector.get_table_names(self._schema),
            *inspector.get_view_names(self._schema),
            *inspector.get_materialized_view_names(self._schema),
        ]
        place = where if self._schema is None else f"{where}, schema {self._schema!r}"
        return SourceSchemaError(f"There is no table {name!r} at {place}. {suggest(name, names)}")

    def _url(self) -> str:
        return resolve_url(self._connection_string, self._connection_id)


def _retrying() -> Retrying:
    return Retrying(
        retry=retry_if_exception_type(DatabaseUnavailableError),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_exponential(multiplier=_FIRST_WAIT_S),
        reraise=True,
    )
