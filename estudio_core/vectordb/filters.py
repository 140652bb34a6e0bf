"""Payload filters: a typed tree, read from JSON, turned into SQL with bound values only.

    {"term": {"brand": "acme"}}                     equal, or an element of a list
    {"terms": {"brand": ["acme", "zeta"]}}          one of them ("any" is the same)
    {"any": {"tags": ["red", "blue"]}}              a list that holds at least one of them
    {"all": {"tags": ["red", "blue"]}}              a list that holds all of them
    {"exists": {"field": "price"}}                  present and not null
    {"match": {"title": "running shoe"}}            text holding all these words
    {"phrase": {"title": "running shoe"}}           text holding these words one after another
    {"wildcard": {"sku": "AB-*-?"}}                 text of this form, the whole of it; * any run, ? one character
    {"range": {"price": {"gte": 10, "lt": 20}}}     numbers, or texts by code point (ISO dates)
    {"bool": {"must": [..], "filter": [..], "should": [..], "must_not": [..]}}

`must` and `filter` hold all, `must_not` holds none, `should` holds at least one where it is not empty.
Numbers, texts and truth values are different: 1 is neither "1" nor true. A dot in a field name descends; a list of
names (`["a.b"]`, as `{"term": {"field": ["a.b"], "value": 1}}`) takes names with dots as they are.
A field of another type than the filter's does not match, and never raises.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import sql
from psycopg.types.json import Jsonb

from estudio_core.errors import ConfigurationError, suggest

Scalar = str | int | float | bool | None
MAX_DEPTH = 32
"""Nesting of `bool`; deeper trees are refused before Python's stack or PostgreSQL's parser suffers."""


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
        return "$" + "".join("." + json.dumps(name, ensure_ascii=False) for name in self.path) + "[*]"

    def document(self, value: Any) -> Jsonb:
        """Return `{"maker": {"name": value}}`, which a matching payload contains."""
        for name in reversed(self.path):
            value = {name: value}
        return Jsonb(value)


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
    bounds: tuple[tuple[str, str | int | float], ...]


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
    return _parse(given, MAX_DEPTH)


def filter_sql(node: Filter, payload: sql.Composable, binds: dict[str, Any]) -> sql.Composable:
    """Return the condition on a jsonb expression `payload`: true or false, never null.

    Args:
        node: The filter.
        payload: A jsonb expression; a GIN index on it serves `Terms`.
        binds: Receives the values, under the names that the condition's placeholders have.
    """
    if isinstance(node, Bool):
        conditions = [filter_sql(child, payload, binds) for child in node.must]
        if node.should:
            conditions.append(_joined(" OR ", [filter_sql(child, payload, binds) for child in node.should]))
        conditions += [sql.SQL("NOT {}").format(filter_sql(child, payload, binds)) for child in node.must_not]
        return _joined(" AND ", conditions)
    if isinstance(node, Terms):
        return _terms_sql(node, payload, binds)
    if isinstance(node, Exists):
        return sql.SQL("COALESCE(jsonb_typeof({} #> {}::text[]) <> 'null', false)").format(
            payload, _bind(binds, list(node.field.path))
        )
    if isinstance(node, Match):
        query = sql.SQL("phraseto_tsquery" if node.phrase else "plainto_tsquery")
        return sql.SQL("COALESCE(to_tsvector('simple', {} #>> {}::text[]) @@ {}('simple', {}::text), false)").format(
            payload, _bind(binds, list(node.field.path)), query, _bind(binds, node.text)
        )
    if isinstance(node, Wildcard):
        return sql.SQL(
            "EXISTS (SELECT 1 FROM jsonb_path_query({}, {}::jsonpath) AS value"
            " WHERE jsonb_typeof(value) = 'string' AND value #>> '{{}}' LIKE {}::text)"
        ).format(payload, _bind(binds, node.field.jsonpath), _bind(binds, _like(node.pattern)))
    names = {f"b{i}": value for i, (_, value) in enumerate(node.bounds)}
    test = " && ".join(f"@ {operator} $b{i}" for i, (operator, _) in enumerate(node.bounds))
    return sql.SQL("jsonb_path_exists({}, {}::jsonpath, {}, true)").format(
        payload, _bind(binds, f"{node.field.jsonpath} ? ({test})"), _bind(binds, Jsonb(names))
    )


def _bind(binds: dict[str, Any], value: Any) -> sql.Placeholder:
    name = f"filter{len(binds)}"
    binds[name] = value
    return sql.Placeholder(name)


def _terms_sql(node: Terms, payload: sql.Composable, binds: dict[str, Any]) -> sql.Composable:
    per_value = [
        sql.SQL("({payload} @> {scalar} OR {payload} @> {element})").format(
            payload=payload,
            scalar=_bind(binds, node.field.document(value)),
            element=_bind(binds, node.field.document([value])),
        )
        for value in node.values
    ]
    return _joined(" AND " if node.every else " OR ", per_value)


def _joined(operator: LiteralString, conditions: Sequence[sql.Composable]) -> sql.Composable:
    if not conditions:
        return sql.SQL("true")
    return sql.SQL("({})").format(sql.SQL(operator).join(conditions))


def _like(pattern: str) -> str:
    r"""Turn `*` and `?` into LIKE's signs, everything else into itself.

    >>> _like("50%_a*?")
    '50\\%\\_a%_'
    """
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")


def _parse(given: Any, depth: int) -> Filter:
    if isinstance(given, Terms | Exists | Match | Wildcard | Range | Bool):
        return given
    if depth == 0:
        raise ConfigurationError(f"A filter is nested more than {MAX_DEPTH} levels deep. Write it flatter.")
    if not isinstance(given, Mapping) or len(given) != 1:
        raise ConfigurationError(
            f"A filter is an object with one operator, such as {{'term': {{'brand': 'acme'}}}}; given {given!r}."
        )
    operator, body = next(iter(given.items()))
    if operator == "bool":
        return _parse_bool(body, depth)
    if operator not in _LEAVES:
        raise ConfigurationError(f"Unknown filter {operator!r}. {suggest(str(operator), [*_LEAVES, 'bool'])}")
    if operator == "exists":
        return Exists(_field(body["field"] if isinstance(body, Mapping) and set(body) == {"field"} else body))
    if not isinstance(body, Mapping):
        raise ConfigurationError(f"{operator!r} wants {{field: value}}; given {body!r}.")
    if set(body) == {"field", "value"}:
        return _LEAVES[operator](_field(body["field"]), body["value"])
    if len(body) != 1:
        raise ConfigurationError(
            f"{operator!r} wants one field; given {sorted(map(str, body))}. Join filters by 'bool'."
        )
    name, value = next(iter(body.items()))
    return _LEAVES[operator](_field(name), value)


def _parse_bool(body: Any, depth: int) -> Bool:
    clauses = ("must", "filter", "should", "must_not")
    if not isinstance(body, Mapping):
        raise ConfigurationError(f"'bool' wants an object with some of {', '.join(clauses)}; given {body!r}.")
    parsed: dict[str, tuple[Filter, ...]] = {}
    for name, children in body.items():
        if name not in clauses:
            raise ConfigurationError(f"Unknown clause {name!r} of 'bool'. {suggest(str(name), clauses)}")
        listed = children if isinstance(children, list | tuple) else [children]
        parsed[name] = tuple(_parse(child, depth - 1) for child in listed)
    must = parsed.get("must", ()) + parsed.get("filter", ())
    return Bool(must, parsed.get("should", ()), parsed.get("must_not", ()))


def _field(given: Any) -> Field:
    path = (
        tuple(given.split(".")) if isinstance(given, str) else tuple(given) if isinstance(given, list | tuple) else ()
    )
    if not path or not all(isinstance(name, str) and name for name in path):
        raise ConfigurationError(
            f"A field is a name such as 'brand' or 'maker.name', or a list of names; given {given!r}."
        )
    for name in path:
        _text(name)
    return Field(path)


def _text(given: Any) -> str:
    if not isinstance(given, str):
        raise ConfigurationError(f"Text is wanted here; given {given!r}.")
    try:
        given.encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"{given!r} is no UTF-8 text.") from error
    if "\x00" in given:
        raise ConfigurationError(f"{given!r} holds the character NUL, which no payload can hold.")
    return given


def _scalar(given: Any) -> Scalar:
    if given is None or isinstance(given, bool | int):
        return given
    return _finite(given) if isinstance(given, float) else _text(given)


def _finite(given: float) -> float:
    if given != given or given in (float("inf"), float("-inf")):
        raise ConfigurationError(f"{given!r} is no JSON number.")
    return given


def _terms(every: bool) -> Callable[[Field, Any], Filter]:
    def parse(field: Field, value: Any) -> Filter:
        if not isinstance(value, list | tuple) or not value:
            raise ConfigurationError(
                f"A list of one or more values is wanted for {'.'.join(field.path)!r}; given {value!r}."
            )
        return Terms(field, tuple(map(_scalar, value)), every)

    return parse


def _range(field: Field, value: Any) -> Filter:
    signs = {"gte": ">=", "gt": ">", "lte": "<=", "lt": "<", "eq": "=="}
    if not isinstance(value, Mapping) or not value:
        raise ConfigurationError(f"'range' wants bounds such as {{'gte': 10}}; given {value!r}.")
    for name, bound in value.items():
        if name not in signs:
            raise ConfigurationError(f"Unknown bound {name!r}. {suggest(str(name), signs)}")
        if isinstance(bound, bool) or not isinstance(bound, int | float | str):
            raise ConfigurationError(f"A bound is a number or a text; given {name}={bound!r}.")
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
    "wildcard": lambda field, value: Wildcard(field, _text(value)),
    "range": _range,
}
