"""Queries in Algolia's form, read: parameters, filters, and what of an answer is wanted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from estudio_core import exact_json
from estudio_core.service import finding
from estudio_core.service.aggregations import Aggregation
from estudio_core.service.answers import Source
from estudio_core.service.endpoints import Call, as_document
from estudio_core.service.finding import Wanted
from estudio_core.service.highlights import Highlighter
from estudio_core.service.queries import payload_field
from estudio_core.service.refusals import as_request, named, refuse
from estudio_core.vectordb.filters import Field, all_of, parse_filter

MOST_PAGE = 1_000
LARGEST_FACET = 1_000

IGNORED = {
    "analytics", "analyticsTags", "clickAnalytics", "userToken", "getRankingInfo", "enableABTest",
    "enablePersonalization", "queryLanguages", "removeStopWords", "ignorePlurals", "synonyms", "typoTolerance",
}  # fmt: skip
"""Parameters that are taken as they come: they say something about the asker, or switch off what is not there."""
SUPPORTED = {
    "query", "page", "hitsPerPage", "offset", "length", "facets", "maxValuesPerFacet", "facetFilters", "numericFilters",
    "tagFilters", "attributesToRetrieve", "attributesToHighlight", "attributesToSnippet", "highlightPreTag",
    "highlightPostTag", "sortFacetValuesBy", *IGNORED,
}  # fmt: skip
BESIDE = {"indexName", "params", "type", "facet", "facetQuery", "maxFacetHits", "facetName"}
_COMPARISON = re.compile(r"(.+?)\s*(<=|>=|!=|<|>|=)\s*(-?\d+(?:\.\d+)?)")
_BETWEEN = re.compile(r"(.+?)\s*:\s*(-?\d+(?:\.\d+)?)\s+TO\s+(-?\d+(?:\.\d+)?)", re.IGNORECASE)
_BOUNDS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


@dataclass(frozen=True)
class Asked:
    """A query that was read."""

    wanted: Wanted
    page: int
    per_page: int
    facets: tuple[str, ...]
    values: Mapping[str, Any]
    source: Source | None
    """Attributes to retrieve; None: no attribute."""
    highlighted: frozenset[str]
    highlighter: Highlighter

    @property
    def logs(self) -> bool:
        """Whether clicks will say which query they belong to."""
        return self.values.get("clickAnalytics") is True and self.values.get("analytics") is not False

    def marks(self, name: str) -> bool:
        """Return whether the words of the query are marked in an attribute."""
        return "*" in self.highlighted or name in self.highlighted


async def read_query(call: Call, plugin: str, request: Any) -> Asked:
    """Return a query as it is carried out for this caller.

    Raises:
        Refused: it has a parameter that is not supported, or a wrong one.
    """
    if not isinstance(request, dict):
        raise refuse("A query is a JSON object.")
    values = {**of_params(request.get("params", "")), **{k: v for k, v in request.items() if k not in BESIDE}}
    for name in values:
        if name not in SUPPORTED:
            raise refuse(f"[{named(name)}] is not supported.")
    text = values.get("query") or ""
    if not isinstance(text, str) or len(text) > 10_000:
        raise refuse("[query] is a text of at most 10,000 characters.")
    per_page = whole_number(values, "hitsPerPage", 20, MOST_PAGE)
    page = whole_number(values, "page", 0, 10_000)
    if "offset" in values or "length" in values:
        if "page" in values or "hitsPerPage" in values:
            raise refuse("Pages are given by [page] and [hitsPerPage], or by [offset] and [length].")
        start, per_page = whole_number(values, "offset", 0, 10_000), whole_number(values, "length", 20, MOST_PAGE)
        page = 0
    else:
        start = page * per_page
    if start + per_page > 10_000:
        raise refuse("Pages reach the first 10,000 hits.")
    names = await _facet_names(call, plugin, values.get("facets"))
    most = whole_number(values, "maxValuesPerFacet", 100, LARGEST_FACET)
    if (order := values.get("sortFacetValuesBy", "count")) not in ("count", "alpha"):
        raise refuse("[sortFacetValuesBy] is count or alpha.")
    aggregations: dict[str, Aggregation] = {}
    for name in names:
        aggregations[name] = Aggregation(
            "values_and_numbers", Field(payload_field(name)), max(1, most), order == "alpha"
        )
    condition = _condition(values)
    wanted = Wanted(
        plugin=plugin,
        text=text if text.strip() else None,
        filter=call.caller.within(condition),
        start=start,
        size=per_page,
        aggregations=aggregations,
        user_id=call.caller.searches_as(None),
    )
    retrieved = values.get("attributesToRetrieve", ["*"])
    return Asked(
        wanted,
        page,
        per_page,
        names,
        values,
        source=None if retrieved == [] else Source(True if retrieved in (["*"], "*") else retrieved),
        highlighted=_names(values, "attributesToHighlight"),
        highlighter=Highlighter.of(
            text, values.get("highlightPreTag", "<em>"), values.get("highlightPostTag", "</em>")
        ),
    )


def _names(values: Mapping[str, Any], parameter: str) -> frozenset[str]:
    given = values.get(parameter, ["*"])
    listed = given if isinstance(given, list) else [given]
    if not all(isinstance(each, str) for each in listed):
        raise refuse(f"[{parameter}] is a list of names.")
    return frozenset(listed)


def of_params(given: Any) -> dict[str, Any]:
    """Return parameters that are written as those of an address are. Raises: Refused: they are not."""
    if not isinstance(given, str):
        raise refuse("[params] is a text such as query=lamp&hitsPerPage=20.")
    try:
        pairs = parse_qsl(given, keep_blank_values=True, max_num_fields=200)
    except ValueError:
        raise refuse("[params] has too many parts.") from None
    return {name: value if name == "query" else _parsed(name, value) for name, value in pairs}


def _parsed(name: str, value: str) -> Any:
    if name in ("highlightPreTag", "highlightPostTag", "userToken"):
        return value
    if value[:1] in "[{" or value in ("true", "false", "null") or re.fullmatch(r"-?\d{1,9}", value):
        return as_document(value.encode("utf-8", "replace"))
    if name in ("facets", "attributesToRetrieve", "attributesToHighlight", "attributesToSnippet"):
        return [part for part in value.split(",") if part]
    return value


def whole_number(values: Mapping[str, Any], name: str, usual: int, most: int) -> int:
    """Return a parameter that is a number. Raises: Refused: it is none, or too large."""
    given = values.get(name, usual)
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= most:
        raise refuse(f"[{name}] is a number from 0 to {most:,}.")
    return given


async def _facet_names(call: Call, plugin: str, given: Any) -> tuple[str, ...]:
    listed = [] if given is None else [given] if isinstance(given, str) else given
    if not isinstance(listed, list) or not all(isinstance(name, str) and name for name in listed) or len(listed) > 50:
        raise refuse("[facets] is a list of at most 50 names.")
    if "*" not in listed:
        return tuple(dict.fromkeys(listed))
    found = await finding.fields(plugin, call.caller.within(None), call.state)
    return tuple(field.name for field in found if not field.prose)


def _condition(values: Mapping[str, Any]) -> dict[str, Any] | None:
    if values.get("tagFilters") not in (None, "", [], [[]]):
        raise refuse("[tagFilters] is not supported: use facetFilters on a field of the payload.")
    conditions = [*_all_of(values.get("facetFilters"), _facet, "facetFilters")]
    conditions += _all_of(values.get("numericFilters"), _number, "numericFilters")
    found = all_of(*conditions)
    if found is not None:
        with as_request():
            parse_filter(found)
    return found


def _all_of(given: Any, read: Any, what: str) -> list[dict[str, Any]]:
    """Return conditions: those of a list hold together, of a list in it at least one."""
    listed = [] if given in (None, "", []) else given if isinstance(given, list) else [given]
    found = []
    for each in listed:
        choices = each if isinstance(each, list) else [each]
        if not all(isinstance(choice, str) for choice in choices):
            raise refuse(f"[{what}] is a list of texts, or of lists of texts.")
        if choices:
            found.append({"bool": {"should": [read(choice) for choice in choices]}})
    return found


def _facet(given: str) -> dict[str, Any]:
    name, colon, value = given.partition(":")
    if not colon or not name:
        raise refuse("[facetFilters] has texts such as brand:acme, or brand:-acme.")
    refused = value.startswith("-")
    value = value.removeprefix("-").removeprefix("\\") if refused or value.startswith("\\-") else value
    forms: list[Any] = [value]
    if value in ("true", "false"):
        forms.append(value == "true")
    elif re.fullmatch(r"-?(0|[1-9]\d{0,15})(\.\d{1,15})?", value):
        forms.append(exact_json.loads(value))
    condition = {"terms": {"field": list(payload_field(name)), "value": forms}}
    return {"bool": {"must_not": [condition]}} if refused else condition


def _number(given: str) -> dict[str, Any]:
    if (found := _BETWEEN.fullmatch(given.strip())) is not None:
        bounds = {"gte": exact_json.loads(_tidy(found[2])), "lte": exact_json.loads(_tidy(found[3]))}
        return {"range": {"field": list(payload_field(found[1])), "value": bounds}}
    if (found := _COMPARISON.fullmatch(given.strip())) is None:
        raise refuse("[numericFilters] has texts such as price>=10, or price:10 TO 20.")
    path, value = list(payload_field(found[1])), exact_json.loads(_tidy(found[3]))
    if found[2] in _BOUNDS:
        return {"range": {"field": path, "value": {_BOUNDS[found[2]]: value}}}
    equal = {"range": {"field": path, "value": {"eq": value}}}
    return equal if found[2] == "=" else {"bool": {"must_not": [equal]}}


def _tidy(number: str) -> str:
    """Return a number as JSON writes it, without zeros before it."""
    sign = "-" if number.startswith("-") else ""
    return sign + (number.lstrip("-0") if not re.match(r"-?0*(\.|$)", number) else "0" + number.lstrip("-0"))
