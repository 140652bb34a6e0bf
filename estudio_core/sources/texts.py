"""What counts as the text of a row."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID


def text_of(value: Any, column: str, encoding: str = "utf-8") -> str:
    """Return the text in `value` of the column `column`; blanks around it are kept.

    Raises:
        ValueError: it is NULL, blank, or no text; the message is the reason.

    >>> text_of(b"usb c charger", "content")
    'usb c charger'
    """
    if value is None:
        raise ValueError(f"{column!r} is NULL")
    if isinstance(value, bytes):
        try:
            value = value.decode(encoding)
        except UnicodeDecodeError as error:
            raise ValueError(f"{column!r} is not {encoding}: {error.reason} at byte {error.start}") from error
    if isinstance(value, int | float | Decimal | UUID) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"{column!r} is {type(value).__name__}, not text")
    if not value.strip():
        raise ValueError(f"{column!r} is blank")
    return value
