"""Texts of a database whose encoding is not UTF-8: read as the bytes that stand there, and made texts here.

Where the server makes UTF-8 of them, a single byte that means nothing in its encoding is the error of all rows.
"""

from __future__ import annotations

import codecs
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, LargeBinary, Text, cast, func, literal


@dataclass(frozen=True)
class Encoding:
    """Encoding of a database.

    Attributes:
        name: PostgreSQL's name of it.
        codec: Python's name of it, where texts have to come as bytes; None where they come as they are.
    """

    name: str = "UTF8"
    codec: str | None = None

    @classmethod
    def of(cls, connection: Connection) -> Encoding:
        """Return that of the database which is connected to."""
        return cls.named(str(connection.exec_driver_sql("SHOW server_encoding").scalar_one()))

    @classmethod
    def named(cls, name: str) -> Encoding:
        """Return the encoding that PostgreSQL calls `name`. One that Python has not is left to the server."""
        if name not in ("UTF8", "SQL_ASCII"):
            with suppress(LookupError):
                return cls(name, codecs.lookup(name.replace("WIN", "cp").replace("KOI8", "koi8-")).name)
        return cls(name)

    def selected(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return what to select of a column of texts."""
        return func.convert_to(cast(column, Text), "SQL_ASCII") if self.codec else column

    def text(self, value: str | bytes) -> str:
        """Return the text that was selected.

        Raises:
            ValueError: it has none; the message is the reason.

        >>> Encoding.named("WIN1251").text(bytes([203, 224]))
        'Ла'
        """
        if isinstance(value, str):
            return value
        try:
            return bytes(value).decode(self.codec or "utf-8")
        except UnicodeDecodeError as error:
            known = self.name if self.codec else "utf-8"
            raise ValueError(f"is not {known}: {error.reason} at byte {error.start}") from error

    def shown(self, value: str | bytes) -> str:
        r"""Return the text that was selected; what stands for none in it is written as `\x98`."""
        return value if isinstance(value, str) else bytes(value).decode(self.codec or "utf-8", "backslashreplace")

    def has(self, text: str) -> bool:
        r"""Return whether a text of the database can be `text`.

        >>> Encoding.named("WIN1251").has("Лампа"), Encoding.named("WIN1251").has("ランプ"), Encoding().has("\ud800")
        (True, False, False)
        """
        try:
            text.encode(self.codec or "utf-8")
        except UnicodeEncodeError:
            return False
        return "\0" not in text


def bound_bytes(value: bytes) -> ColumnElement[Any]:
    """Return the text that these bytes are in the encoding of the database, as a bound value."""
    return func.convert_from(literal(bytes(value), LargeBinary()), "SQL_ASCII")
