"""The queries of an item source, all derived from one: `all()`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from copy import copy
from datetime import datetime
from functools import cached_property
from typing import Any, Self

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Engine,
    MetaData,
    Select,
    Subquery,
    Table,
    Text,
    and_,
    cast,
    exc,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.sql.selectable import GenerativeSelect

from estudio_core.errors import ConfigurationError, SourceSchemaError, suggest
from estudio_core.ids import listed
from estudio_core.sources.encodings import Encoding
from estudio_core.sources.keys import KeyType

_EVERYTHING = 2**31 - 1
"""Batch size that takes in all rows, also where a subclass puts it into an inner query."""


class QueryGenerator:
    """Queries for the items of one table.

    For items that are a join or an expression, subclass it and override `all()` alone: every other query selects
    from `all()` as a subquery, without its order and limit, so that its columns and labels are found by all of them.
    Columns of the same name keep the first one's place under it (the next is called `<name>_1`).

    The table is read from the database on first use; constructing a generator opens no connection.

    Args:
        table_name: Table, view or materialised view.
        engine: Where it is.
        id_column: Column of `all()` that holds the key: an integer, UUID or text, unique and not null.
        schema: Schema of the table; None: the search path.
    """

    def __init__(self, table_name: str, engine: Engine, id_column: str = "id", schema: str | None = None) -> None:
        self.table_name = table_name
        self.engine = engine
        self.id_column = id_column
        self.schema = schema

    @cached_property
    def table(self) -> Table:
        """The table, as it is in the database.

        Raises:
            sqlalchemy.exc.NoSuchTableError: it does not exist (a loader turns this into SourceSchemaError).
        """
        with warnings.catch_warnings():
            # Types of extensions are of no concern here; they are read as text.
            warnings.filterwarnings("ignore", message="Did not recognize type", category=exc.SAWarning)
            return Table(self.table_name, MetaData(), autoload_with=self.engine, schema=self.schema)

    def bound_to(self, engine: Engine, id_column: str | None = None) -> Self:
        """Return a copy that reads through `engine`."""
        bound = copy(self)
        bound.engine = engine
        if id_column is not None:
            bound.id_column = id_column
            vars(bound).pop("key_type", None)
        return bound

    def all(self, offset: int, batch_size: int) -> Select[Any]:
        """Return the query for a page of items, ordered by id."""
        key = self._column(self.table.c, self.id_column)
        return select(self.table).order_by(key).limit(batch_size).offset(offset)

    def one(self, row_id: object) -> Select[Any]:
        """Return the query for the item with the key `row_id`."""
        return self.fetch_all([row_id])

    def fetch_all(self, row_ids: Iterable[object]) -> Select[Any]:
        """Return the query for the items whose key is among `row_ids`, in no order."""
        rows = self.rows
        return select(rows).where(
            self.key_type.among(self._column(rows.c, self.id_column), listed(row_ids, "row_ids", "keys"))
        )

    def count(self) -> Select[Any]:
        """Return the query for the number of items; rows without a key are none."""
        return select(func.count(self.sort_key)).select_from(self.rows)

    def keys(self, after: str | None = None) -> Select[Any]:
        """Return the query for the keys, as `key`, greater than `after` or all there are, in no order."""
        behind = self.sort_key.is_not(None) if after is None else self.behind(after)
        return select(self.key_type.selected(self.sort_key).label("key")).select_from(self.rows).where(behind)

    def after(self, key: str | bytes | None, limit: int | None = None, until: str | None = None) -> Select[Any]:
        """Return the query for items with a key greater than `key` and not greater than `until`, in key order.

        Rows without a key are left out.

        This pages in constant time: call it again with the last key of the page before.
        """
        ordered = self.sort_key
        query = select(self.rows)
        if key is None and until is None:
            query = query.where(ordered.is_not(None))
        if key is not None:
            query = query.where(self.behind(key))
        if until is not None:
            query = query.where(ordered <= self.key_type.bind(until))
        return query.order_by(ordered).limit(limit)

    def behind(self, key: str | bytes) -> ColumnElement[bool]:
        """Return the condition that the key of an item is greater than `key`; bytes are those of a text."""
        return self.sort_key > self.key_type.bind(key)

    def changed(
        self,
        column: str,
        since: datetime | str,
        key: str | bytes | None = None,
        until: datetime | str | None = None,
    ) -> Select[Any]:
        """Return the query for items with `column` later than `since`, ordered by `(column, key)`.

        Args:
            column: The time of change.
            since: A time with a time zone, or what PostgreSQL writes for one that Python has not.
            key: Items of exactly that time come too, those with a greater key.
            until: Latest time of change.
        """
        changed_at = self._column(self.rows.c, column)
        later: ColumnElement[bool] = changed_at > _moment(since)
        if key is not None:
            later = or_(later, and_(changed_at == _moment(since), self.behind(key)))
        query = select(self.rows).where(later, self.sort_key.is_not(None))
        if until is not None:
            query = query.where(changed_at <= _moment(until))
        return query.order_by(changed_at, self.sort_key)

    def newest_change(self, column: str) -> Select[Any]:
        """Return the query for the latest time of change."""
        return select(func.max(self._column(self.rows.c, column))).where(self.sort_key.is_not(None))

    @cached_property
    def rows(self) -> Subquery:
        """All items, without order and limit, to select from.

        Raises:
            ConfigurationError: `all()` returns no query, or gives the same label twice.
        """
        query = self.all(0, _EVERYTHING)
        if not isinstance(query, GenerativeSelect):
            raise ConfigurationError(
                f"{type(self).__name__}.all() returned {type(query).__name__}; return a sqlalchemy select(...)."
            )
        query = query.limit(None).offset(None)
        # DISTINCT ON chooses its rows by the order; everything else does without.
        if "DISTINCT ON" not in str(query.compile(self.engine)):
            query = query.order_by(None)
        rows = query.subquery("items")
        try:
            rows.c.keys()
        except exc.InvalidRequestError as error:
            raise ConfigurationError(f"{type(self).__name__}.all() labels two columns the same: {error}.") from error
        return rows

    @property
    def sort_key(self) -> ColumnElement[Any]:
        """The expression that orders items."""
        return self.key_type.sortable(self._column(self.rows.c, self.id_column))

    @cached_property
    def key_type(self) -> KeyType:
        """Type of the key.

        Raises:
            SourceSchemaError: the column does not exist or cannot be a key.
        """
        self.require([self.id_column])
        return KeyType.of(self.id_column, self.column_types[self.id_column], self.encoding)

    @cached_property
    def encoding(self) -> Encoding:
        """Encoding of the database."""
        with self.engine.connect() as connection:
            return Encoding.of(connection)

    @cached_property
    def column_types(self) -> dict[str, int]:
        """PostgreSQL type numbers of the columns of `all()`, by name; no row is read for it."""
        with self.engine.connect() as connection:
            result = connection.execute(select(self.rows).limit(0))
            assert result.cursor is not None
            return {column[0]: column[1] for column in result.cursor.description}  # type: ignore[misc]  # psycopg: int

    def require(self, names: Iterable[str]) -> None:
        """Check that the columns `names` exist.

        Raises:
            SourceSchemaError: one does not.
        """
        for name in names:
            if name not in self.column_types:
                raise self._missing(name, self.column_types)

    def _column(self, columns: Any, name: str) -> ColumnElement[Any]:
        if name not in columns:
            raise self._missing(name, columns.keys())
        column: ColumnElement[Any] = columns[name]
        return column

    def _missing(self, name: str, legal: Iterable[str]) -> SourceSchemaError:
        table = f"{self.schema}.{self.table_name}" if self.schema else self.table_name
        return SourceSchemaError(f"The items of {table!r} have no column {name!r}. {suggest(name, legal)}")


def _moment(time: datetime | str) -> ColumnElement[Any]:
    moment = DateTime(timezone=True)
    return literal(time, moment) if isinstance(time, datetime) else cast(literal(time, Text()), moment)
