"""Times written as texts, compared as times: `…Z` is `…+00:00`, `12:00+02:00` is `10:00Z`, and `.5` is `.500`.

A date is its midnight, a time without a zone is in UTC, and microseconds are what counts: as PostgreSQL has times.
Nothing here raises on a text that only looks like one (`2026-02-30`): it is no time, and stands in no range of times.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from psycopg import sql

_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,6})\d*)?)? ?(?:[Zz]|([+-]\d\d)(?::?(\d\d))?)?)?"
)
_CLOCK = re.compile(r"(\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,6})\d*)?)?")
_TEMPLATE = 'yyyy-mm-dd"T"HH24:MI:SS.USTZH:TZM'


@dataclass(frozen=True)
class Moment:
    """A bound of a range that is a time, or a time of day, in the one form in which it is compared."""

    text: str
    of_day: bool


def moment(text: str) -> Moment | None:
    """Return the time that `text` is; None where it is none.

    >>> moment("2026-01-02T03:04+02").text, moment("10:00").text, moment("2026-02-30"), moment("2026")
    ('2026-01-02T01:04:00.000000+00:00', '10:00:00.000000', None, None)
    """
    if clock := _CLOCK.fullmatch(text):
        minutes, seconds, fraction = clock.groups()
        return Moment(f"{minutes}:{seconds or '00'}.{(fraction or '').ljust(6, '0')}", True)
    if not (time := _TIME.fullmatch(text)):
        return None
    day, minutes, seconds, fraction, hour, minute = time.groups()
    plain = (
        f"{day}T{minutes or '00:00'}:{seconds or '00'}.{(fraction or '').ljust(6, '0')}{hour or '+00'}:{minute or '00'}"
    )
    try:
        return Moment(datetime.fromisoformat(plain).astimezone(UTC).isoformat(timespec="microseconds"), False)
    except (ValueError, OverflowError):
        return None


def is_time(value: sql.Composable, bound: Moment) -> sql.Composable:
    """Return the condition that the text `value` looks like what `bound` is."""
    return sql.SQL("{} ~ {}").format(value, sql.Literal(f"^{_pattern(bound)}$"))


def compared(value: sql.Composable, operator: str, bound: Moment, bind: sql.Placeholder) -> sql.Composable:
    """Return how the text `value`, which looks like a time, compares with `bound`; false where it is none.

    Args:
        value: An expression of type text.
        operator: As jsonpath has it.
        bound: The bound.
        bind: The placeholder of `bound.text`.
    """
    found = sql.SQL("regexp_match({}, {})").format(value, sql.Literal(f"^{_pattern(bound)}$"))
    if bound.of_day:
        plain = sql.SQL("m[1] || ':' || coalesce(m[2], '00') || '.' || rpad(coalesce(m[3], ''), 6, '0')")
        test = sql.SQL("({}) {} {}::text").format(
            sql.SQL('({}) COLLATE "C"').format(plain),
            sql.SQL("=" if operator == "==" else operator),
            bind,
        )
    else:
        plain = sql.SQL(
            "m[1] || 'T' || coalesce(m[2], '00:00') || ':' || coalesce(m[3], '00') || '.'"
            " || rpad(coalesce(m[4], ''), 6, '0') || coalesce(m[5], '+00') || ':' || coalesce(m[6], '00')"
        )
        path = f"$ ? (@.datetime({_quoted(_TEMPLATE)}) {operator} $b.datetime({_quoted(_TEMPLATE)}))"
        test = sql.SQL("jsonb_path_exists(to_jsonb({}), {}::jsonpath, jsonb_build_object('b', {}::text), true)").format(
            plain, sql.Literal(path), bind
        )
    return sql.SQL("(SELECT {} FROM {} AS m)").format(test, found)


def _pattern(bound: Moment) -> str:
    return (_CLOCK if bound.of_day else _TIME).pattern


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'
