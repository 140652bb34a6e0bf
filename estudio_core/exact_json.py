"""JSON whose numbers stay what they are: those that a float cannot hold are `Decimal`."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

MOST_DIGITS = 4_000
"""Of a number, before and after its point: Python reads integers of 4,300, PostgreSQL keeps 16,383 after a point."""
MOST_LEVELS = 100
"""Of lists and objects in each other: Python's reader, which is recursive, gives up at some hundreds."""
_FLOAT_HOLDS = 15
"""Decimal digits that every float holds."""

_AS_THEY_ARE = frozenset({str, int, bool, type(None)})
_STRICT = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def loads(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    >>> loads('[0.10, 1e2, 0.1234567890123456789]')
    [0.1, 100.0, Decimal('0.1234567890123456789')]

    Raises:
        ValueError: it is no JSON, holds an integer of more than 4,300 digits, or is nested too deeply.
    """
    try:
        return _READER.decode(text if isinstance(text, str) else text.decode())
    except RecursionError:
        raise ValueError(f"is nested more than {MOST_LEVELS} levels deep") from None


def dumps(value: Any) -> str:
    """Return `value` as JSON text.

    >>> dumps({"price": Decimal("0.1234567890123456789")})
    '{"price": 0.1234567890123456789}'

    Raises:
        TypeError, ValueError: JSON has nothing for it.
    """
    try:
        return _STRICT.encode(value)
    except TypeError:
        return _encoded(value)


def check(value: Any, levels: int = MOST_LEVELS) -> None:
    """Refuse what would not come back from JSON as it is.

    Raises:
        ValueError: a key is no text, a number is not finite or too long, a value is none of JSON's, or it is nested
            more than `levels` deep. The message goes on from the name of what holds it.
    """
    if type(value) in _AS_THEY_ARE or isinstance(value, str | int):
        return
    if isinstance(value, float | Decimal):
        if not (value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)):
            raise ValueError(f"holds {value}, which JSON does not have")
        if isinstance(value, Decimal):
            _, digits, exponent = value.as_tuple()
            if abs(int(exponent)) > MOST_DIGITS or len(digits) > MOST_DIGITS:
                raise ValueError(f"holds a number of more than {MOST_DIGITS:,} digits")
        return
    if not isinstance(value, dict | list | tuple):
        raise ValueError(f"holds {type(value).__name__}, which JSON does not have")
    if levels == 0:
        raise ValueError(f"is nested more than {MOST_LEVELS} levels deep")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"has the key {key!r}, which is no text")
    for inner in value.values() if isinstance(value, dict) else value:
        if type(inner) not in _AS_THEY_ARE:  # most values of most documents
            check(inner, levels - 1)


def _number(text: str) -> float | Decimal:
    value = float(text)
    if len(text) <= _FLOAT_HOLDS and "e" not in text and "E" not in text:
        return value
    exact = Decimal(text)
    return value if math.isfinite(value) and Decimal(repr(value)) == exact else exact


_READER = json.JSONDecoder(parse_float=_number)


def _encoded(value: Any) -> str:
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"{value} is no JSON number")
        return format(value, "f")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_STRICT.encode(str(key))}: {_encoded(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_encoded, value)) + "]"
    return _STRICT.encode(value)
