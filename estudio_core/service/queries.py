"""Queries in OpenSearch's language, as a text to rank by and a filter; what is not supported is refused by name.

A text is looked for in all of an item, whatever fields a `match` names: items are embedded, and their words counted, as
a whole. Everything else is a condition on the payload.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from estudio_core.service.refusals import as_request, named, refuse
from estudio_core.vectordb.filters import MAX_DEPTH, field_path, parse_filter
from estudio_core.vectordb.search import QUERY_LIMIT

Node = dict[str, Any]
MOST_WORDS = 50
"""Words of a `match` that stands in a filter: each is a condition."""
_DATE_MATHS = re.compile(r"now(?:[+\-/]|$)|.*\|\|")
_KEYWORD = ".keyword"
WHOLE_ITEM = "A text ranks by the whole of an item; the fields that were named do not matter."


@dataclass(frozen=True)
class Asked:
    """What a query asks for.

    Attributes:
        text: What is ranked by; None: nothing is.
        filter: Condition in the form of `vectordb.filters`; None: none.
        notes: What of the query was taken in another sense than OpenSearch's.
    """

    text: str | None = None
    filter: Node | None = None
    notes: tuple[str, ...] = ()


def read_query(query: str | Mapping[str, Any] | None) -> Asked:
    """Return what a query asks for.

    >>> read_query({"bool": {"must": [{"match": {"title": "lamp"}}], "filter": [{"term": {"brand": "acme"}}]}})
    ... # doctest: +NORMALIZE_WHITESPACE
    Asked(text='lamp', filter={'term': {'field': ['brand'], 'value': 'acme'}},
        notes=('A text ranks by the whole of an item; the fields that were named do not matter.',))

    Raises:
        Refused: it is none, or asks for what is not there.
    """
    if query is None:
        return Asked()
    if isinstance(query, str):
        return Asked(text=_readable(query) if query.strip() else None)
    asked = _read(query, MAX_DEPTH)
    if asked.filter is not None:
        with as_request():
            parse_filter(asked.filter)
    return asked


def read_filter(query: Mapping[str, Any]) -> Node | None:
    """Return the condition of a query in filter context; None where everything meets it. Raises: as `read_query`."""
    found = _filter(query, MAX_DEPTH)
    if found is not None:
        with as_request():
            parse_filter(found)
    return found


def _one(query: Any) -> tuple[str, Any]:
    if not isinstance(query, Mapping) or len(query) != 1:
        raise refuse("A query is an object with one name, such as {'match': {'title': 'lamp'}}.", "parsing_exception")
    [(name, body)] = query.items()
    return name, body


def _read(query: Any, depth: int) -> Asked:
    name, body = _one(query)
    if name in ("match", "multi_match"):
        return _text(name, body)
    if name == "bool":
        return _bool(body, depth)
    return Asked(filter=_filter(query, depth))


def _text(name: str, body: Any) -> Asked:
    if name == "multi_match":
        given = _options(name, body, {"query", "fields", "type", "operator"})
        if "query" not in given:
            raise refuse("[multi_match] wants a query.", "parsing_exception")
        if any(not isinstance(each, str) for each in _listed(given.get("fields", []))):
            raise refuse("[multi_match] names fields by a list of texts.", "parsing_exception")
        if any("^" in each for each in _listed(given.get("fields", []))):
            raise refuse("[multi_match] fields have no weights (^) here: an item ranks as a whole.")
        if given.get("type", "best_fields") not in ("best_fields", "most_fields", "cross_fields"):
            raise refuse(f"[multi_match] the type [{named(given['type'])}] is not supported.")
        fields_named = bool(given.get("fields"))
    else:
        field, value = _one_field(name, body)
        given = _options(name, value if isinstance(value, Mapping) else {"query": value}, {"query", "operator"})
        fields_named = field not in ("*", "_all")
    operator = str(given.get("operator", "or")).lower()
    if operator != "or":
        raise refuse(f"[{name}] the operator [{named(operator)}] is not supported: put a match into bool.filter.")
    text = _query_text(name, given)
    return Asked(text=text, notes=(WHOLE_ITEM,) if fields_named else ())


def _query_text(name: str, given: Mapping[str, Any]) -> str:
    text = given.get("query")
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise refuse(f"[{name}] wants a text as its query.", "parsing_exception")
    if not str(text).strip():
        raise refuse(f"[{name}] the query is blank. match_all lists all items.")
    return _readable(str(text))


def _readable(text: str) -> str:
    if len(text) > QUERY_LIMIT:
        raise refuse(f"A query has at most {QUERY_LIMIT:,} characters.")
    return text


_CLAUSES = ("must", "filter", "should", "must_not")


def _bool(body: Any, depth: int) -> Asked:
    clauses = _clauses(body, depth)
    found = [_read(each, depth - 1) for each in clauses["must"]]
    should = clauses["should"]
    if len(should) == 1 and not clauses["must"] and _ranks(should[0]):
        found.append(_read(should[0], depth - 1))  # alone it is what is asked for
        should = []
    if any(_ranks(each) for each in should):
        raise refuse("[bool] a text stands in must, or alone in should: one text ranks.")
    texts = [asked.text for asked in found if asked.text is not None]
    if len(texts) > 1:
        raise refuse("[bool] holds several texts; one text ranks. Join their words, or put one into bool.filter.")
    conditions = [asked.filter for asked in found] + [_filter(each, depth - 1) for each in clauses["filter"]]
    condition = _joined(conditions, should, clauses["must_not"], depth)
    notes = tuple(dict.fromkeys(note for asked in found for note in asked.notes))
    return Asked(texts[0] if texts else None, condition, notes)


def _clauses(body: Any, depth: int) -> dict[str, list[Any]]:
    if depth <= 0:
        raise refuse(f"[bool] is nested more than {MAX_DEPTH} levels deep.")
    given = _options("bool", body, {*_CLAUSES, "minimum_should_match"})
    clauses = {name: _listed(given.get(name) or []) for name in _CLAUSES}
    least = given.get("minimum_should_match")
    if least is not None and str(least) != "1":
        raise refuse("[bool] minimum_should_match is 1 or not given.")
    beside = clauses["must"] or clauses["filter"]
    filters = [each for each in clauses["should"] if not _ranks(each)]
    if filters and beside and least is None:
        raise refuse(
            "[bool] should beside must or filter would only raise scores, which conditions do not here. Give "
            "minimum_should_match: 1 to ask for one of them."
        )
    return clauses


def _ranks(query: Any) -> bool:
    """Return whether a query has a text that ranks."""
    if not isinstance(query, Mapping) or len(query) != 1:
        return False
    [(name, body)] = query.items()
    if name == "bool" and isinstance(body, Mapping):
        return any(_ranks(each) for clause in ("must", "should") for each in _listed(body.get(clause) or []))
    return name in ("match", "multi_match")


def _joined(must: list[Node | None], should: list[Any], must_not: list[Any], depth: int) -> Node | None:
    wanted = [each for each in must if each is not None]
    choices = [_filter(each, depth - 1) for each in should]
    refused = [_filter(each, depth - 1) for each in must_not]
    clauses: dict[str, Any] = {}
    if wanted:
        clauses["must"] = wanted
    if choices and all(each is not None for each in choices):  # else one of them is met by all
        clauses["should"] = choices
    if refused:
        clauses["must_not"] = [_EVERYTHING if each is None else each for each in refused]
    if list(clauses) == ["must"] and len(wanted) == 1:
        return wanted[0]
    return {"bool": clauses} if clauses else None


_EVERYTHING: Node = {"bool": {}}


def _filter(query: Any, depth: int) -> Node | None:
    name, body = _one(query)
    if name == "bool":
        clauses = _clauses(body, depth)
        must = [_filter(each, depth - 1) for each in (*clauses["must"], *clauses["filter"])]
        return _joined(must, clauses["should"], clauses["must_not"], depth)
    if name == "match_all":
        _options(name, body, set())
        return None
    reader = _FILTERS.get(name)
    if reader is None:
        legal = ", ".join(sorted([*_FILTERS, "bool", "match_all", "multi_match"]))
        raise refuse(f"The query [{named(name)}] is not supported. Supported: {legal}.", "parsing_exception")
    return reader(name, body)


def _term(name: str, body: Any) -> Node:
    field, value = _one_field(name, body)
    if isinstance(value, Mapping):
        value = _only(name, value, "value")
    if isinstance(value, list):
        raise refuse("[term] takes one value; [terms] takes a list.")
    return {"term": {"field": _path(field), "value": value}}


def _terms(name: str, body: Any) -> Node:
    field, value = _one_field(name, body)
    if not isinstance(value, list):
        raise refuse("[terms] takes a list of values; a look-up in another index is not supported.")
    return {"terms": {"field": _path(field), "value": value}} if value else {"bool": {"must_not": [_EVERYTHING]}}


def _range(name: str, body: Any) -> Node:
    field, value = _one_field(name, body)
    bounds = _options(name, value, {"gt", "gte", "lt", "lte"})
    bounds = {sign: bound for sign, bound in bounds.items() if bound is not None}
    if not bounds:
        return {"exists": {"field": _path(field)}}
    if any(isinstance(bound, str) and _DATE_MATHS.match(bound) for bound in bounds.values()):
        raise refuse("[range] dates are written out; now-1d and the like are not supported.")
    return {"range": {"field": _path(field), "value": bounds}}


def _exists(name: str, body: Any) -> Node:
    return {"exists": {"field": _path(_only(name, body, "field"))}}


def _wildcard(name: str, body: Any) -> Node:
    field, value = _one_field(name, body)
    if isinstance(value, Mapping):
        given = _options(name, value, {"value", "wildcard"})
        value = given.get("value", given.get("wildcard"))
    return {"wildcard": {"field": _path(field), "value": value}}


def _prefix(name: str, body: Any) -> Node:
    field, value = _one_field(name, body)
    if isinstance(value, Mapping):
        value = _only(name, value, "value")
    if not isinstance(value, str) or "*" in value or "?" in value:
        raise refuse("[prefix] takes a text without * and ?.")
    return {"wildcard": {"field": _path(field), "value": f"{value}*"}}


def _match(name: str, body: Any) -> Node:
    field, value = _one_field(name, body)
    given = _options(name, value if isinstance(value, Mapping) else {"query": value}, {"query", "operator"})
    text, path = _query_text(name, given), _path(field)
    operator = str(given.get("operator", "or")).lower()
    if operator not in ("or", "and"):
        raise refuse(f"[{name}] the operator is or, or and.")
    words = text.split()
    if operator == "and" or len(words) == 1:
        return {"match": {"field": path, "value": text}}
    if len(words) > MOST_WORDS:
        raise refuse(f"[{name}] in a filter takes at most {MOST_WORDS} words.")
    return {"bool": {"should": [{"match": {"field": path, "value": word}} for word in words]}}


def _match_phrase(name: str, body: Any) -> Node:
    field, value = _one_field(name, body)
    if isinstance(value, Mapping):
        value = _only(name, value, "query")
    return {"phrase": {"field": _path(field), "value": value}}


_FILTERS: dict[str, Callable[[str, Any], Node]] = {
    "term": _term,
    "terms": _terms,
    "range": _range,
    "exists": _exists,
    "wildcard": _wildcard,
    "prefix": _prefix,
    "match": _match,
    "match_phrase": _match_phrase,
}


def _one_field(name: str, body: Any) -> tuple[str, Any]:
    if not isinstance(body, Mapping) or not body:
        raise refuse(f"[{name}] wants {{field: value}}.", "parsing_exception")
    if len(body) > 1:
        further = next(iter(list(body)[1:]))
        raise refuse(f"[{name}] takes one field; [{named(further)}] is not supported beside it.", "parsing_exception")
    [(field, value)] = body.items()
    return field, value


def _options(name: str, given: Any, legal: set[str]) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise refuse(f"[{name}] wants an object.", "parsing_exception")
    for option in given:
        if option not in legal:
            listed = ", ".join(sorted(legal)) or "none"
            raise refuse(f"[{name}] does not support [{named(option)}]. Supported: {listed}.", "parsing_exception")
    return given


def _only(name: str, given: Any, option: str) -> Any:
    found = _options(name, given, {option})
    if option not in found:
        raise refuse(f"[{name}] wants [{option}].", "parsing_exception")
    return found[option]


def _path(field: Any) -> list[str]:
    return list(payload_field(field))


def payload_field(field: Any) -> tuple[str, ...]:
    """Return the path of a field as OpenSearch's clients name it: `brand.keyword` is the field `brand`.

    Raises:
        Refused: it is none.
    """
    if field in ("_id", "_index"):
        raise refuse(f"The field [{field}] cannot be asked for; a field of the payload can.")
    if isinstance(field, str) and field.endswith(_KEYWORD) and field != _KEYWORD:
        field = field.removesuffix(_KEYWORD)
    with as_request():
        return field_path(field).path


def _listed(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]
