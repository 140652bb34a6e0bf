"""Payload filters: a typed tree, read from JSON, turned into SQL by `filter_sql`.

    {"term": {"brand": "acme"}}                     equal, or an element of a list
    {"terms": {"brand": ["acme", "zeta"]}}          one of them ("any" is the same)
    {"any": {"tags": ["red", "blue"]}}              a list that holds at least one of them
    {"all": {"tags": ["red", "blue"]}}              a list that holds all of them
    {"exists": {"field": "price"}}                  present and not null
    {"match": {"title": "running shoe"}}            text holding all these words
    {"phrase": {"title": "running shoe"}}           text holding these words one after another
    {"wildcard": {"sku": "AB-*-?"}}                 text of this form, the whole of it; * any run, ? one character
    {"range": {"price": {"gte": 10, "lt": 20}}}     numbers, times (see `times`), or other texts by code point
    {"bool": {"must": [..], "filter": [..], "should": [..], "must_not": [..]}}

`must` and `filter` hold all, `must_not` holds none, `should` holds at least one where it is not empty.
Numbers, texts and truth values are different: 1 is neither "1" nor true. A dot in a field name descends; a list of
names (`["a.b"]`, as `{"term": {"field": ["a.b"], "value": 1}}`) takes names with dots as they are.
A field of another type than the filter's does not match, and never raises. What comes from strangers is bounded: by
`MAX_DEPTH`, `MAX_CONDITIONS`, `MAX_VALUES`, `MAX_TEXT`, `MAX_PATTERN`; of a payload's text, `field_indexes.WORDS_READ`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from psycopg.types.json import Jsonb

from estudio_core import exact_json
from estudio_core.errors import ConfigurationError, shown, suggest

Number = int | float | Decimal
Scalar = str | Number | bool | None
MAX_DEPTH = 32
"""Nesting of `bool`; deeper trees are refused before Python's stack or PostgreSQL's parser suffers."""
MAX_CONDITIONS = 500
"""Conditions of one filter: each is SQL that is parsed and planned."""
MAX_VALUES = 10_000
"""Values of one condition."""
MAX_TEXT, MAX_PATTERN = 10_000, 1_000
"""Characters of a text, and of a pattern or a field's name."""


@dataclass(frozen=True)
class Field:
    """Path of a payload field, e.g. `("maker", "name")`."""

    path: tuple[str, ...]

    @property
    def jsonpath(self) -> str:
        r"""The field as a lax SQL/JSON path that also enters lists.

        >>> Field(("maker", 'a"b')).jsonpath
        '$."maker"."a\\"b"[*]'
        """
        return f"${self._members}[*]"

    @property
    def strict_jsonpath(self) -> str:
        """The field as a strict path, which enters no list: what containment compares, too."""
        return f"strict ${self._members}"

    @property
    def _members(self) -> str:
        return "".join("." + json.dumps(name, ensure_ascii=False) for name in self.path)

    def document(self, value: Any) -> Jsonb:
        """Return `{"maker": {"name": value}}`, which a matching payload contains."""
        for name in reversed(self.path):
            value = {name: value}
        return Jsonb(value, exact_json.dumps)


@dataclass(frozen=True)
class Terms:
    """The field equals, or its list holds, one of the values (all of them if `every`)."""

    field: Field
    values: tuple[Scalar, ...]
    every: bool = False


@dataclass(frozen=True)
class Exists:
    """The field is present and not null."""

    field: Field


@dataclass(frozen=True)
class Match:
    """The field's text holds all words, one after another if `phrase`."""

    field: Field
    text: str
    phrase: bool = False


@dataclass(frozen=True)
class Wildcard:
    """The field's text has the form of the pattern (`*`, `?`)."""

    field: Field
    pattern: str


@dataclass(frozen=True)
class Range:
    """The field lies within all bounds, pairs of jsonpath comparison and value."""

    field: Field
    bounds: tuple[tuple[str, str | Number], ...]


@dataclass(frozen=True)
class Bool:
    """All of `must`, at least one of `should` where there are any, none of `must_not`."""

    must: tuple[Filter, ...] = ()
    should: tuple[Filter, ...] = ()
    must_not: tuple[Filter, ...] = ()


Filter = Terms | Exists | Match | Wildcard | Range | Bool


def parse_filter(given: Mapping[str, Any] | Filter) -> Filter:
    """Read a filter from its JSON form; a `Filter` is returned as it is.

    Raises:
        ConfigurationError: an unknown operator or a value of the wrong kind, with what is legal.

    >>> parse_filter({"term": {"brand": "acme"}})
    Terms(field=Field(path=('brand',)), values=('acme',), every=False)
    """
    parsed = _parse(given, MAX_DEPTH)
    if (conditions := _conditions(parsed)) > MAX_CONDITIONS:
        raise ConfigurationError(
            f"A filter of {conditions:,} conditions; at most {MAX_CONDITIONS:,} are taken. 'terms' takes many values."
        )
    return parsed


def all_of(*given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return filters in their JSON form as one that is met where all of them are; None stands for no condition.

    >>> all_of(None, {"exists": {"field": "price"}})
    {'exists': {'field': 'price'}}
    """
    found = [dict(each) for each in given if each is not None]
    return {"bool": {"must": found}} if len(found) > 1 else found[0] if found else None


def _conditions(node: Filter) -> int:
    if not isinstance(node, Bool):
        return 1
    return 1 + sum(_conditions(child) for child in (*node.must, *node.should, *node.must_not))


def _parse(given: Any, depth: int) -> Filter:
    if isinstance(given, Terms | Exists | Match | Wildcard | Range | Bool):
        return given
    if depth == 0:
        raise ConfigurationError(f"A filter is nested more than {MAX_DEPTH} levels deep. Write it flatter.")
    if not isinstance(given, Mapping) or len(given) != 1:
        raise ConfigurationError(
            f"A filter is an object with one operator, such as {{'term': {{'brand': 'acme'}}}}; given {shown(given)}."
        )
    operator, body = next(iter(given.items()))
    if operator == "bool":
        return _parse_bool(body, depth)
    if operator not in _LEAVES:
        raise ConfigurationError(f"Unknown filter {shown(operator)}. {suggest(shown(operator), [*_LEAVES, 'bool'])}")
    if operator == "exists":
        return Exists(field_path(body["field"] if isinstance(body, Mapping) and set(body) == {"field"} else body))
    if not isinstance(body, Mapping):
        raise ConfigurationError(f"{operator!r} wants {{field: value}}; given {shown(body)}.")
    if set(body) == {"field", "value"}:
        return _LEAVES[operator](field_path(body["field"]), body["value"])
    if len(body) != 1:
        raise ConfigurationError(f"{operator!r} wants one field; given {shown(list(body))}. Join filters by 'bool'.")
    name, value = next(iter(body.items()))
    return _LEAVES[operator](field_path(name), value)


def _parse_bool(body: Any, depth: int) -> Bool:
    clauses = ("must", "filter", "should", "must_not")
    if not isinstance(body, Mapping):
        raise ConfigurationError(f"'bool' wants an object with some of {', '.join(clauses)}; given {shown(body)}.")
    parsed: dict[str, tuple[Filter, ...]] = {}
    for name, children in body.items():
        if name not in clauses:
            raise ConfigurationError(f"Unknown clause {shown(name)} of 'bool'. {suggest(shown(name), clauses)}")
        listed = children if isinstance(children, list | tuple) else [children]
        parsed[name] = tuple(_parse(child, depth - 1) for child in listed)
    must = parsed.get("must", ()) + parsed.get("filter", ())
    return Bool(must, parsed.get("should", ()), parsed.get("must_not", ()))


def field_path(given: Any, what: str = "A field") -> Field:
    """Read the name of a field, `maker.name` or `["maker", "name"]`.

    Raises:
        ConfigurationError: it is none, is too long, or names too many in each other.
    """
    path = (
        tuple(given.split(".")) if isinstance(given, str) else tuple(given) if isinstance(given, list | tuple) else ()
    )
    if not path or not all(isinstance(name, str) and name for name in path):
        raise ConfigurationError(
            f"{what} is a name such as 'brand' or 'maker.name', or a list of names; given {shown(given)}."
        )
    if len(path) > MAX_DEPTH:
        raise ConfigurationError(f"{what} of {len(path):,} names in each other; at most {MAX_DEPTH} are taken.")
    for name in path:
        _text(name, MAX_PATTERN)
    return Field(path)


def _text(given: Any, most: int = MAX_TEXT) -> str:
    if not isinstance(given, str):
        raise ConfigurationError(f"Text is wanted here; given {shown(given)}.")
    if len(given) > most:
        raise ConfigurationError(f"A text of {len(given):,} characters, {given[:40]!r}…; at most {most:,} are taken.")
    try:
        given.encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"{given!r} is no UTF-8 text.") from error
    if "\x00" in given:
        raise ConfigurationError(f"{given!r} holds the character NUL, which no payload can hold.")
    return given


def _scalar(given: Any) -> Scalar:
    if given is None or isinstance(given, bool):
        return given
    return _number(given) if isinstance(given, Number) else _text(given)


def _number(given: Number) -> Number:
    try:
        exact_json.check(given)
        exact_json.dumps(given)
    except ValueError as error:
        raise ConfigurationError(f"{shown(given)} is no JSON number: it {error}.") from error
    return given


def _terms(every: bool) -> Callable[[Field, Any], Filter]:
    def parse(field: Field, value: Any) -> Filter:
        if not isinstance(value, list | tuple) or not 0 < len(value) <= MAX_VALUES:
            given = f"{len(value):,} values" if isinstance(value, list | tuple) else shown(value)
            raise ConfigurationError(
                f"A list of one or more values, at most {MAX_VALUES:,}, is wanted for {'.'.join(field.path)!r}; "
                f"given {given}."
            )
        return Terms(field, tuple(map(_scalar, value)), every)

    return parse


def _range(field: Field, value: Any) -> Filter:
    signs = {"gte": ">=", "gt": ">", "lte": "<=", "lt": "<", "eq": "=="}
    if not isinstance(value, Mapping) or not value:
        raise ConfigurationError(f"'range' wants bounds such as {{'gte': 10}}; given {shown(value)}.")
    for name, bound in value.items():
        if name not in signs:
            raise ConfigurationError(f"Unknown bound {shown(name)}. {suggest(shown(name), signs)}")
        if isinstance(bound, bool) or not isinstance(bound, Number | str):
            raise ConfigurationError(f"A bound is a number or a text; given {name}={shown(bound)}.")
        _scalar(bound)
    return Range(field, tuple((signs[name], bound) for name, bound in value.items()))


_LEAVES: dict[str, Callable[[Field, Any], Filter]] = {
    "term": lambda field, value: Terms(field, (_scalar(value),)),
    "terms": _terms(every=False),
    "any": _terms(every=False),
    "all": _terms(every=True),
    "exists": lambda field, _: Exists(field),
    "match": lambda field, value: Match(field, _text(value)),
    "phrase": lambda field, value: Match(field, _text(value), phrase=True),
    "wildcard": lambda field, value: Wildcard(field, _text(value, MAX_PATTERN)),
    "range": _range,
}
