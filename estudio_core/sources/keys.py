"""Keys of rows: which column types can be one, how they are ordered, compared and written as text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Text, Uuid, any_, cast, collate, literal
from sqlalchemy.types import TypeEngine

from estudio_core.errors import SourceSchemaError
from estudio_core.sources.encodings import Encoding, bound_bytes

_INTEGERS = {20: "bigint", 21: "smallint", 23: "integer"}
_TEXTS = {25: "text", 1043: "character varying"}
_CAST_TO_TEXT = {18: '"char"', 19: "name"}
_PADDED = 1042  # character, whose blanks at the end mean nothing
_UUID = 2950
_FIRST_USER_OID = 16384  # types that were created in the database: enums, citext, …
_BIGINT = 2**63
_PLAIN = Encoding()

# Names for messages; any other type is shown by its number.
_OTHER_NAMES = {
    16: "boolean", 17: "bytea", 114: "json", 700: "real", 701: "double precision", 1082: "date", 1114: "timestamp",
    1184: "timestamp with time zone", 1700: "numeric", 3802: "jsonb",
}  # fmt: skip


@dataclass(frozen=True)
class KeyType:
    """Type of a key column: an integer, a UUID, a text, or a type that is compared as text.

    Texts are ordered and ranged by bytes (`COLLATE "C"`), so that a range means the same whatever the
    database's language is. Integers and UUIDs are used as they are, so that their index serves.
    """

    kind: str
    encoding: Encoding = _PLAIN

    @classmethod
    def of(cls, column: str, oid: int, encoding: Encoding) -> KeyType:
        """Return the key type of a column with the PostgreSQL type number `oid`, in a database of that encoding.

        Raises:
            SourceSchemaError: such a column cannot be a key.
        """
        if oid in _INTEGERS:
            return cls("integer")
        if oid in _TEXTS:
            return cls("text", encoding)
        if oid == _UUID:
            return cls("uuid")
        if oid == _PADDED:
            return cls("padded", encoding)
        if oid in _CAST_TO_TEXT or oid >= _FIRST_USER_OID:
            return cls("cast", encoding)
        raise SourceSchemaError(
            f"The id column {column!r} has the type {_OTHER_NAMES.get(oid, f'number {oid}')}; "
            "keys are integers, uuid or text. Choose another id_column, or cast it in a query generator."
        )

    def parse(self, object_id: str) -> Any:
        """Return the key that `object_id` stands for; None where no key of this type is written like that.

        >>> KeyType("integer").parse("7"), KeyType("integer").parse("007"), KeyType("integer").parse("x")
        (7, None, None)
        """
        try:
            if self.kind == "integer":
                number = int(object_id)
                return number if str(number) == object_id and -_BIGINT <= number < _BIGINT else None
            if self.kind == "uuid":
                unique = UUID(object_id)
                return unique if str(unique) == object_id else None
        except ValueError:
            return None
        return object_id if self.encoding.has(object_id) else None

    def selected(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return what to select of the key column."""
        return self.encoding.selected(column) if self._is_text else column

    def format(self, key: Any) -> str:
        """Return a key that was selected as an object id; one that is no text as it can be shown."""
        text = self.encoding.shown(key) if self._is_text else str(key)
        return text.rstrip(" ") if self.kind == "padded" else text

    def fault(self, key: Any) -> str:
        """Return why a key that was selected is no object id: it is no text in the database's encoding; else ""."""
        try:
            if self._is_text:
                self.encoding.text(key)
        except ValueError as reason:
            return str(reason)
        return ""

    def sortable(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return the expression by which rows are ordered and ranged."""
        if self.kind == "text":
            return collate(column, "C")
        return collate(cast(column, Text), "C") if self._is_cast else column

    def bind(self, object_id: str | bytes) -> ColumnElement[Any]:
        """Return `object_id` as a bound value to compare with `sortable`; bytes are a text as the database has it.

        Raises:
            SourceSchemaError: it cannot be a key of this type.
        """
        if isinstance(object_id, bytes):
            return bound_bytes(object_id)
        key = self.parse(object_id)
        if key is None:
            raise SourceSchemaError(
                f"{object_id!r} is no key of the type {self.kind}: the ranges are of another source."
            )
        return literal(key, self._sql_type())

    def among(self, column: ColumnElement[Any], object_ids: Iterable[Any]) -> ColumnElement[bool]:
        """Return the condition that the key is one of `object_ids`: one bound array, however many they are."""
        keys = [key for object_id in object_ids if (key := self.parse(str(object_id))) is not None]
        compared = cast(column, Text) if self._is_cast else column
        return compared == any_(literal(keys, ARRAY(self._sql_type())))

    @property
    def _is_text(self) -> bool:
        return self.kind in ("text", "cast", "padded")

    @property
    def _is_cast(self) -> bool:
        return self.kind in ("cast", "padded")

    def _sql_type(self) -> TypeEngine[Any]:
        if self.kind == "integer":
            return BigInteger()
        return Uuid() if self.kind == "uuid" else Text()
