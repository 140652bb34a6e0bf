"""Values as logs hold them: times, ids, positions, lists of hits. Each is read right, or refused with its reason."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

FIRST_YEAR = 1995
"""Of a log: nobody searched a shop before. A time in milliseconds that is read as seconds, or the other way round, is
tens of thousands of years away."""
_LARGEST_EXACT = 2**53
_LARGEST_POSITION = 1_000_000
_UNITS = (1, 1_000, 1_000_000, 1_000_000_000)
"""Seconds, and what writers use in their place. Of two units never both give a plausible year."""
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
_POSTGRES_LIST = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,{}"]+)')
_SEPARATORS = "|;,\t"
_BARE_IDS = re.compile(r"(?=\S*\d)[\w.-]+( +(?=\S*\d)[\w.-]+)+")
"""Ids between blanks. Each has a digit: else a text of several words may be one id."""
_HIT_IDS = ("object_id", "_id", "id", "doc_id", "docId", "objectID", "product_id", "item_id")
_HIT_SCORES = ("score", "_score", "rank_score")


class Unusable(ValueError):  # noqa: N818 (a row is; nobody meets it as an error)
    """A value that cannot be used. `reason` names no value, so that rows can be counted by it; `given` is the value."""

    def __init__(self, reason: str, given: object = None) -> None:
        super().__init__(reason)
        self.reason, self.given = reason, given


def as_moment(value: Any, zone: tzinfo = UTC) -> tuple[datetime, bool]:
    """Return a time, and whether it had no zone of its own.

    Numbers are seconds, milliseconds, microseconds or nanoseconds since 1970, whichever gives a year from 1995 to the
    next one. Texts are ISO 8601 in any of its forms, numbers, or dates as mail writes them.

    >>> as_moment("2026-03-01T12:00:00+01:00")[0].isoformat(), as_moment(1772366400)[0] == as_moment(1772366400000)[0]
    ('2026-03-01T11:00:00+00:00', True)

    Raises:
        Unusable: it is no time, or of a year that no log has.
    """
    if isinstance(value, bool) or value is None:
        raise Unusable("no time")
    if isinstance(value, datetime):
        return _plausible(value, zone)
    if isinstance(value, date):
        return _plausible(datetime(value.year, value.month, value.day), zone)
    if isinstance(value, int | float | Decimal):
        return _since_1970(value), False
    if not isinstance(value, str) or not (text := value.strip()):
        raise Unusable("no time")
    if _NUMBER.fullmatch(text) and not re.fullmatch(r"(19|20)\d{6}", text):  # 20260301 is a date
        return _since_1970(text), False
    return _plausible(_parsed(text), zone)


def _parsed(text: str) -> datetime:
    with suppress(ValueError):
        return datetime.fromisoformat(text)
    tidy = re.sub(r"\s*(UTC|GMT)$", "+00:00", text.replace(",", "."))
    tidy = re.sub(r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})", lambda d: f"{d[1]}-{int(d[2]):02}-{int(d[3]):02}", tidy)
    tidy = re.sub(r"(\d)\s+([+-]\d{2}:?\d{0,2})$", r"\1\2", tidy)
    tidy = re.sub(r"(\.\d{6})\d+", r"\1", tidy)
    try:
        return datetime.fromisoformat(tidy)
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        raise Unusable("the time is none that is known", text) from None


def _since_1970(given: str | float | Decimal) -> datetime:
    # ArithmeticError: an exponent beyond what Decimal has or can divide by.
    with suppress(ArithmeticError):
        number = Decimal(repr(given)) if isinstance(given, float) else Decimal(given)
        for unit in _UNITS if number.is_finite() else ():
            seconds = number / unit
            if abs(seconds) < 10**11:
                moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(seconds * 1_000_000))
                if _is_plausible(moment):
                    return moment
    raise Unusable("the time is of an implausible year", given)


def _plausible(moment: datetime, zone: tzinfo) -> tuple[datetime, bool]:
    bare = moment.tzinfo is None
    try:
        moment = (moment.replace(tzinfo=zone) if bare else moment).astimezone(UTC)
    except (OverflowError, ValueError):
        raise Unusable("the time is of an implausible year", moment) from None
    if not _is_plausible(moment):
        raise Unusable("the time is of an implausible year", moment.isoformat())
    return moment, bare


def _is_plausible(moment: datetime) -> bool:
    return FIRST_YEAR <= moment.year <= datetime.now(UTC).year + 1


def as_log_id(value: Any, what: str) -> str | None:
    """Return an id as text; None where there is none.

    >>> as_log_id(7, "object_id"), as_log_id(7.0, "object_id"), as_log_id(" ", "object_id")
    ('7', '7', None)

    Raises:
        Unusable: it is neither a text nor a whole number that is exact.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return value if value and not value.isspace() else None
    if isinstance(value, bool):
        raise Unusable(f"{what} is no id", value)
    if isinstance(value, int | UUID):
        return str(value)
    if isinstance(value, float | Decimal):
        if isinstance(value, float) and math.isnan(value):
            return None  # what a table of numbers holds where nothing is
        number: float | Decimal = value
        if math.isfinite(number) and number == int(number) and abs(int(number)) < _LARGEST_EXACT:
            return str(int(number))
    raise Unusable(f"{what} is no id", value)


def as_position(value: Any) -> int | None:
    """Return a place in the list as it is counted there; None where there is none.

    >>> as_position("3"), as_position(3.0), as_position(None)
    (3, 3, None)

    Raises:
        Unusable: it is not a whole number from 0 to a million.
    """
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = Decimal(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise Unusable("the position is no place in a list", value)
    if not math.isfinite(value) or value != int(value) or not 0 <= int(value) <= _LARGEST_POSITION:
        raise Unusable("the position is no place in a list", value)
    return int(value)


def as_hits(value: Any) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    """Return hits in the order shown, and their scores where all have one.

    A list of ids or of objects with an id, or such a list as a text: JSON, PostgreSQL's `{a,b}`, or ids between one
    kind of separator.

    >>> as_hits("7, 8"), as_hits('["7", 8]'), as_hits([{"_id": "7", "_score": 1.5}])
    ((('7', '8'), None), (('7', '8'), None), (('7',), (1.5,)))

    Raises:
        Unusable: it is no list, or one of them has no id.
    """
    if value is None:
        return (), None
    if type(value) is list and all(type(hit) is str and hit and not hit.isspace() for hit in value):
        return tuple(value), None
    if isinstance(value, str):
        value = _listed(value)
    if isinstance(value, Mapping) and "hits" in value:  # a whole answer of the engine
        return as_hits(value["hits"])
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        raise Unusable("the hits are no list", value)
    ids: list[str] = []
    scores: list[Any] = []
    for hit in value:
        if isinstance(hit, Mapping):
            found = next((hit[name] for name in _HIT_IDS if hit.get(name) is not None), None)
            scores.append(next((hit[name] for name in _HIT_SCORES if hit.get(name) is not None), None))
        else:
            found = hit
            scores.append(None)
        hit_id = as_log_id(found, "a hit")
        if hit_id is None:
            raise Unusable("a hit has no id", hit)
        ids.append(hit_id)
    return tuple(ids), as_scores(scores, len(ids))


def as_scores(value: Any, count: int) -> tuple[float, ...] | None:
    """Return scores as numbers where there is a finite one for each hit, else None."""
    if isinstance(value, str):
        value = _listed(value)
    if not isinstance(value, Sequence) or len(value) != count or not count:
        return None
    try:
        scores = tuple(float(score) for score in value)
    except (TypeError, ValueError, OverflowError):
        return None
    return scores if all(math.isfinite(score) for score in scores) else None


def _listed(text: str) -> Any:
    text = text.strip()
    if not text:
        return []
    if text[0] == "[":
        try:
            return json.loads(text)
        except ValueError:
            if text[-1] != "]":
                raise Unusable("the hits are no list", text) from None
            inner = text[1:-1]  # as Python prints a list of texts, or somebody's own
            return [part.strip().strip("'\"") for part in inner.split(",") if part.strip().strip("'\"")]
    if text[0] == "{" and text[-1] == "}":
        return [
            re.sub(r"\\(.)", r"\1", quoted) if quoted else bare.strip()
            for quoted, bare in _POSTGRES_LIST.findall(text[1:-1])
            if quoted or bare.strip()
        ]
    separator = next((each for each in _SEPARATORS if each in text), " " if _BARE_IDS.fullmatch(text) else None)
    return [part.strip() for part in text.split(separator) if part.strip()] if separator else [text]


_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def field_name(name: str) -> str:
    """Return a field's name as it is compared.

    >>> field_name("queryID"), field_name("Hit-IDs"), field_name("objectIDs")
    ('query_id', 'hit_ids', 'object_ids')
    """
    return _known_name(name) if len(name) <= _LONGEST_KNOWN else _as_field_name(name)


_LONGEST_KNOWN = 100
"""Characters of a name that is remembered: names come from strangers, and thousands are."""


def _as_field_name(name: str) -> str:
    tidy = name.strip().removeprefix("\ufeff").replace("IDs", "Ids")
    return re.sub(r"[\s-]+", "_", _CAMEL.sub("_", tidy)).lower()


_known_name = lru_cache(maxsize=4096)(_as_field_name)
