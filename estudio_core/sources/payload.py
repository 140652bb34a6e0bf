"""Values of database rows as JSON values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any
from uuid import UUID

from psycopg.types.range import Range

_AS_TEXT = (UUID, Range, IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network)


def to_json_value(value: Any) -> Any:
    """Return `value` as JSON has it.

    Numbers stay numbers (a Decimal becomes an int where it is one, else a float; NaN and infinities become None),
    dates and times ISO 8601 text, intervals seconds, arrays lists.

    Raises:
        ValueError: JSON has nothing for it, as for bytes.

    >>> to_json_value({"price": Decimal("9.90"), "tags": ("a", None), "sold": Decimal("3")})
    {'price': 9.9, 'tags': ['a', None], 'sold': 3}
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | Decimal):
        return _number(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, _AS_TEXT):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): to_json_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json_value(inner) for inner in value]
    raise ValueError(f"is {type(value).__name__}, which JSON does not have")


def _number(value: float | Decimal) -> int | float | None:
    if not math.isfinite(value):
        return None
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)
    return float(value)
