"""How a search sends its statements: on a connection that blocks, or on one of an event loop. Its code is the same.

What searches is written once, as coroutines over `Statements`. `Native` awaits psycopg's asynchronous connection. Over
`Blocking` nothing ever waits for an event loop, so that `run` has the result after one step, without a loop.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from psycopg.pq import TransactionStatus

from estudio_core.statement_spans import statement_span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import psycopg
    from psycopg import sql

    Statement = bytes | sql.SQL | sql.Composed

T = TypeVar("T")
Values = Mapping[str, Any] | Sequence[Any] | None
Row = tuple[Any, ...]


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine over `Blocking` returns.

    Raises:
        RuntimeError: it waits for an event loop.
    """
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError("A search on a blocking connection waits for an event loop.")


class Statements(Protocol):
    """A connection as a search sees it."""

    @property
    def connection(self) -> Any:
        """Psycopg's connection."""
        ...

    async def rows(self, statement: Statement, values: Values = None, *, prepare: bool | None = None) -> list[Row]:
        """Return the rows of a statement."""
        ...

    async def execute(self, statement: Statement, values: Values = None) -> None:
        """Run a statement that returns nothing."""
        ...

    async def at_once(self, settings: tuple[Statement, Values], statement: Statement, values: Values) -> list[Row]:
        """Send two statements together, outside of a transaction; they are one, and the rows are the second's."""
        ...

    def transaction(self, *, force_rollback: bool = False) -> AbstractAsyncContextManager[Any]:
        """Return psycopg's block of a transaction."""
        ...


class Blocking:
    """Statements of a `psycopg.Connection`."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection

    async def rows(self, statement: Statement, values: Values = None, *, prepare: bool | None = None) -> list[Row]:
        """Return the rows of a statement."""
        return self.connection.execute(statement, values, prepare=prepare).fetchall()

    async def execute(self, statement: Statement, values: Values = None) -> None:
        """Run a statement that returns nothing."""
        self.connection.execute(statement, values)

    async def at_once(self, settings: tuple[Statement, Values], statement: Statement, values: Values) -> list[Row]:
        """Send two statements together; what is sent in one pipeline is one transaction."""
        with statement_span(self.connection, statement), self.connection.pipeline():
            self.connection.execute(*settings, prepare=True)
            cursor = self.connection.execute(statement, values)
        return cursor.fetchall()

    @asynccontextmanager
    async def transaction(self, *, force_rollback: bool = False) -> AsyncIterator[None]:
        """Return psycopg's block of a transaction."""
        with self.connection.transaction(force_rollback=force_rollback):
            yield


class Native:
    """Statements of a `psycopg.AsyncConnection`."""

    def __init__(self, connection: psycopg.AsyncConnection) -> None:
        self.connection = connection

    async def rows(self, statement: Statement, values: Values = None, *, prepare: bool | None = None) -> list[Row]:
        """Return the rows of a statement."""
        cursor = await self.connection.execute(statement, values, prepare=prepare)
        return await cursor.fetchall()

    async def execute(self, statement: Statement, values: Values = None) -> None:
        """Run a statement that returns nothing."""
        await self.connection.execute(statement, values)

    async def at_once(self, settings: tuple[Statement, Values], statement: Statement, values: Values) -> list[Row]:
        """Send two statements together; what is sent in one pipeline is one transaction."""
        with statement_span(self.connection, statement):
            async with self.connection.pipeline():
                await self.connection.execute(*settings, prepare=True)
                cursor = await self.connection.execute(statement, values)
        return await cursor.fetchall()

    @asynccontextmanager
    async def transaction(self, *, force_rollback: bool = False) -> AsyncIterator[None]:
        """Return psycopg's block of a transaction."""
        async with self.connection.transaction(force_rollback=force_rollback):
            yield


def is_idle(at: Statements) -> bool:
    """Return whether the connection is in no transaction."""
    return bool(at.connection.pgconn.transaction_status == TransactionStatus.IDLE)
