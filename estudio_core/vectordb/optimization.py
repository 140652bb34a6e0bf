"""Changes of a collection's tables that a plugin wants, each applied once per collection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import LiteralString

import psycopg
from psycopg import sql

from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.locks import lock_objects


class Optimization(ABC):
    """A named change, e.g. an expression index on a payload field.

    Attributes:
        name: Its name in the ledger; another content needs another name.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def __call__(self, conn: psycopg.Connection, collection: Collection) -> None:
        """Apply the change, in the transaction that also records it."""


class _StatementOptimization(Optimization):
    """One statement with `{table}` (quoted, with schema) and `{name}` (a fitting name for an index on it)."""

    def __init__(self, name: str, statement: LiteralString) -> None:
        super().__init__(name)
        self.statement = statement

    def _execute(self, conn: psycopg.Connection, collection: Collection, table: sql.Identifier, kind: str) -> None:
        # The name of an index derives from table and optimization; PostgreSQL would cut a longer one silently.
        index = Collection(f"{collection.collection_id}:{kind}:{self.name}", collection.index_info).name("custom")
        conn.execute(sql.SQL(self.statement).format(table=table, name=sql.Identifier(index)))


class PgvectorObjectsOptimization(_StatementOptimization):
    """A statement on the objects table (object_id, payload, ...).

    Example:
        PgvectorObjectsOptimization("price", "CREATE INDEX {name} ON {table} (((payload ->> 'price')))")
    """

    def __call__(self, conn: psycopg.Connection, collection: Collection) -> None:
        """Apply the statement to the objects table."""
        self._execute(conn, collection, collection.objects, "objects")


class PgvectorPartsOptimization(_StatementOptimization):
    """A statement on the parts table (object_id, part, embedding, is_average, user_id)."""

    def __call__(self, conn: psycopg.Connection, collection: Collection) -> None:
        """Apply the statement to the parts table."""
        self._execute(conn, collection, collection.parts, "parts")


def apply_optimizations(
    conn: psycopg.Connection, collection: Collection, optimizations: Sequence[Optimization]
) -> list[str]:
    """Apply what the ledger does not hold yet, each in one transaction with its entry; return the names applied."""
    applied = []
    for optimization in optimizations:
        with conn.transaction():
            lock_objects(conn, f"optimization:{collection.collection_id}", [optimization.name])
            new = conn.execute(
                "INSERT INTO estudio.optimizations (collection_id, name) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                (collection.collection_id, optimization.name),
            ).rowcount
            if new:
                optimization(conn, collection)
                applied.append(optimization.name)
    return applied
