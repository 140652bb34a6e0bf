"""Ids as callers give them: texts, and numbers, which stand for the texts that they are written as."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from numbers import Integral
from typing import Any
from uuid import UUID

from estudio_core.errors import ConfigurationError, shown

PLUGIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
"""What plugins are called: the name becomes part of DAG ids, tables and addresses."""


def as_id(given: Any, what: str = "An id") -> str:
    """Return an id as text.

    >>> as_id("a"), as_id(7)
    ('a', '7')

    Raises:
        ConfigurationError: it is neither a text, nor an integer, nor a UUID.
    """
    if isinstance(given, str):
        return given
    if isinstance(given, Integral | UUID) and given is not True and given is not False:
        with suppress(ValueError):  # Python writes no integer of more than 4,300 digits
            return str(given)
    raise ConfigurationError(f"{what} is a text or an integer; given {shown(given)}.")


def id_list(given: Iterable[Any], what: str) -> list[str]:
    """Return ids in the order given.

    >>> id_list(("a", 7), "object_ids")
    ['a', '7']

    Raises:
        ConfigurationError: one text, which would be read as an id a letter, or nothing that has elements.
    """
    return [as_id(each, f"Each of {what}") for each in listed(given, what, "ids")]


def listed(given: Any, what: str, of: str) -> list[Any]:
    """Return the elements of a list, which a text or a mapping is not.

    Raises:
        ConfigurationError: it is one.

    >>> listed("12", "object_ids", "ids")
    Traceback (most recent call last):
    estudio_core.errors.ConfigurationError: object_ids is a list of ids; given '12'. For one of them: ['12'].
    """
    if not isinstance(given, str | bytes | bytearray | Mapping):
        with suppress(TypeError):  # not `Iterable`: an array without a dimension says that it is
            iterator = iter(given)
            return list(iterator)
    raise ConfigurationError(f"{what} is a list of {of}; given {shown(given)}. For one of them: [{shown(given)}].")


def storable(text: str) -> str:
    """Return a text that databases can hold.

    Raises:
        ValueError: it has the character NUL or half of a surrogate pair.
    """
    if "\x00" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("it has the character NUL or half of a surrogate pair, which no database holds")
    return text
