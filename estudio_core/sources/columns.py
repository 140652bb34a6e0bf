"""How columns are read, so that every type of PostgreSQL comes as what PostgreSQL means by it.

What Python, psycopg or SQLAlchemy have for a type is another thing for some of its values (`24:00`, `infinity`, months
of an interval, NaN) and an error for the whole query for others. So only types that are the same everywhere are read as
they are; all else is turned into JSON or text by the server, row by row, and read here, value by value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Label, Text, cast, func, text

from estudio_core import exact_json
from estudio_core.sources.encodings import Encoding

_BOOLEAN, BYTEA, _JSON, _JSONB, _UUID = 16, 17, 114, 3802, 2950
_SAME_EVERYWHERE = {_BOOLEAN, 18, 19, 20, 21, 23, 25, 1042, 1043}
"""boolean, "char", name, bigint, smallint, integer, text, character, varchar. Domains have their base type."""
_PLAIN_TEXTS = {25, 1043}
_ARRAY, _COMPOSITE = "A", "C"


@dataclass(frozen=True)
class Column:
    """How a column is read.

    Attributes:
        name: Column or label of the query.
        label: Under which it is selected.
        expression: What is selected, of the column.
        value: Makes the value of what came.
    """

    name: str
    label: str
    expression: Callable[[ColumnElement[Any]], ColumnElement[Any]]
    value: Callable[[Any], Any]

    def selected(self, columns: Any) -> Label[Any]:
        """Return what to select of the columns of a query."""
        return self.expression(columns[self.name]).label(self.label)

    def read(self, row: Mapping[Any, Any]) -> Any:
        """Return the value in a row.

        Raises:
            ValueError: it cannot be read; the message is the reason.
        """
        given = row[self.label]
        try:
            return None if given is None else self.value(given)
        except ValueError as reason:
            raise ValueError(f"{self.name!r} {reason}") from reason


def item_column(name: str, type_number: int, category: str) -> Column:
    """Return how a column is read of which an item's text is made: as its text, or as JSON where it has an inside."""
    if type_number in _SAME_EVERYWHERE or type_number in (BYTEA, _UUID):
        return Column(name, name, _as_it_is, _same)
    if type_number in (_JSON, _JSONB) or category in (_ARRAY, _COMPOSITE):
        return Column(name, name, _as_json, _parsed)
    return Column(name, name, _as_text, _decoded)


def payload_column(name: str, type_number: int, place: int) -> Column:
    """Return how a column is read that is kept beside the vectors: as PostgreSQL's `to_jsonb` has it."""
    if type_number in _SAME_EVERYWHERE:
        return Column(name, f"payload {place}", _as_it_is, _decoded)
    # to_json and not to_jsonb: that fails, and the query with it, on what a column of type json may hold.
    return Column(name, f"payload {place}", _as_json, _parsed)


def untranslated(column: Column, type_number: int, encoding: Encoding) -> Column:
    """Return how a column is read of a database of this encoding: its bytes, where that is another than UTF-8."""
    if encoding.codec is None or (column.expression is _as_it_is and type_number not in _PLAIN_TEXTS):
        return column
    return replace(
        column,
        expression=lambda each: encoding.selected(column.expression(each)),
        value=lambda given: column.value(encoding.text(given)),
    )


def type_categories(connection: Connection, type_numbers: Mapping[str, int]) -> dict[str, str]:
    """Return PostgreSQL's category of each column's type, by column name."""
    rows = connection.execute(
        text("SELECT oid::bigint, typcategory::text FROM pg_catalog.pg_type WHERE oid = ANY(:numbers)"),
        {"numbers": list(set(type_numbers.values()))},
    )
    found = {row.oid: row.typcategory for row in rows}
    return {name: found.get(number, "") for name, number in type_numbers.items()}


def _as_it_is(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return column


def _as_json(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(func.to_json(column), Text)


def _as_text(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(column, Text)


def _same(value: Any) -> Any:
    return value


def _decoded(value: Any) -> Any:
    # A database of the encoding SQL_ASCII holds any bytes; `source_database` has those come as they are.
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"is not utf-8: {error.reason} at byte {error.start}") from error


def _parsed(value: Any) -> Any:
    try:
        return exact_json.loads(_decoded(value))
    except ValueError as error:
        raise ValueError(f"cannot be read as JSON: {error}") from error
