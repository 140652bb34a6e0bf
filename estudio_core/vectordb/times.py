"""Times written as texts, compared as times: `…Z` is `…+00:00`, `12:00+02:00` is `10:00Z`, and `.5` is `.500`.

A date is its midnight, a time without a zone is in UTC, and microseconds are what counts: as PostgreSQL has times.
Its `infinity`, years beyond 9999 and those before Christ are times too, as it writes them itself, which is in UTC.
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
_FAR = re.compile(
    r"-?infinity|([0-9]{5,7}|[0-9]{4}(?=.* BC$))-([0-9]{2}-[0-9]{2})"
    r"(?:[T ]([0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:[.]([0-9]{1,6}))?)?(?:Z|[+]00(?::?00)?)?)?( BC)?"
)
"""What Python and jsonpath have no time for. Before Christ, years count down."""
_LAST_YEAR = 9_999_999
_BEFORE_ALL, _BEFORE, _USUAL, _BEYOND, _AFTER_ALL = "01234"
"""How the texts begin by which such times are compared, and where all others stand between them."""
_TEMPLATE = 'yyyy-mm-dd"T"HH24:MI:SS.USTZH:TZM'


@dataclass(frozen=True)
class Moment:
    """A bound of a range that is a time, or a time of day, in the one form in which it is compared."""

    text: str
    of_day: bool
    is_far: bool = False


def moment(text: str) -> Moment | None:
    """Return the time that `text` is; None where it is none.

    >>> moment("2026-01-02T03:04+02").text, moment("10:00").text, moment("2026-02-30"), moment("2026")
    ('2026-01-02T01:04:00.000000+00:00', '10:00:00.000000', None, None)
    >>> moment("0044-03-15 BC").text < moment("0043-01-01 BC").text < moment("10000-01-01").text
    True
    """
    if far := _FAR.fullmatch(text):
        return Moment(_far_text(text, far), False, is_far=True)
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


def _far_text(text: str, found: re.Match[str]) -> str:
    year, day, minutes, seconds, fraction, before_christ = found.groups()
    if year is None:
        return _BEFORE_ALL if text.startswith("-") else _AFTER_ALL
    begin = f"{_BEFORE}{_LAST_YEAR - int(year):07}" if before_christ else f"{_BEYOND}{int(year):07}"
    return f"{begin}-{day}T{minutes or '00:00'}:{seconds or '00'}.{(fraction or '').ljust(6, '0')}"


def is_far(value: sql.Composable) -> sql.Composable:
    """Return the condition that the text `value` looks like a time that `compared_far` compares."""
    return sql.SQL("{} ~ {}").format(value, _FAR_PATTERN)


def compared_far(value: sql.Composable, operator: str, bound: Moment, bind: sql.Placeholder) -> sql.Composable:
    """Return how the text `value`, one that `is_far`, compares with `bound`, which is no time of day.

    Args:
        value: An expression of type text.
        operator: As jsonpath has it.
        bound: The bound.
        bind: The placeholder of `bound.text`.
    """
    written = sql.SQL(
        "(SELECT CASE {value} WHEN 'infinity' THEN {after_all} WHEN '-infinity' THEN {before_all} ELSE"
        " CASE WHEN m[6] IS NULL THEN {beyond} || lpad(m[1], 7, '0')"
        " ELSE {before} || lpad(({last} - m[1]::int)::text, 7, '0') END"
        " || '-' || m[2] || 'T' || coalesce(m[3], '00:00') || ':' || coalesce(m[4], '00')"
        " || '.' || rpad(coalesce(m[5], ''), 6, '0') END FROM regexp_match({value}, {pattern}) AS m)"
    ).format(
        value=value, pattern=_FAR_PATTERN, last=sql.Literal(_LAST_YEAR), before_all=sql.Literal(_BEFORE_ALL),
        before=sql.Literal(_BEFORE), beyond=sql.Literal(_BEYOND), after_all=sql.Literal(_AFTER_ALL),
    )  # fmt: skip
    other = sql.SQL("{}::text").format(bind) if bound.is_far else sql.Literal(_USUAL)
    return sql.SQL('(({}) COLLATE "C" {} {})').format(written, _sign(operator), other)


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
            _sign(operator),
            bind,
        )
    else:
        plain = sql.SQL(
            "m[1] || 'T' || coalesce(m[2], '00:00') || ':' || coalesce(m[3], '00') || '.'"
            " || rpad(coalesce(m[4], ''), 6, '0') || coalesce(m[5], '+00') || ':' || coalesce(m[6], '00')"
        )
        path = "$.datetime({0})" if bound.is_far else f"$ ? (@.datetime({{0}}) {operator} $b.datetime({{0}}))"
        test = sql.SQL("jsonb_path_exists(to_jsonb({}), {}::jsonpath, jsonb_build_object('b', {}::text), true)").format(
            plain, sql.Literal(path.format(_quoted(_TEMPLATE))), bind
        )
        if bound.is_far:
            test = sql.SQL('{} AND {} COLLATE "C" {} {}::text').format(test, sql.Literal(_USUAL), _sign(operator), bind)
    return sql.SQL("(SELECT {} FROM {} AS m)").format(test, found)


_FAR_PATTERN = sql.Literal(f"^(?:{_FAR.pattern})$")


def _sign(operator: str) -> sql.SQL:
    return sql.SQL("=" if operator == "==" else operator)


def _pattern(bound: Moment) -> str:
    return (_CLOCK if bound.of_day else _TIME).pattern


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'
