"""Facets: aggregations in OpenSearch's form, read, counted and told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from estudio_core.service.queries import payload_field
from estudio_core.service.refusals import named, refuse
from estudio_core.vectordb import facets
from estudio_core.vectordb.filters import Field

if TYPE_CHECKING:
    import psycopg

    from estudio_core.deadline import Deadline
    from estudio_core.vectordb.collection import Collection

STATS = ("min", "max", "sum", "avg", "value_count", "stats")
KINDS = ("terms", "range", *STATS)
MOST_RANGES = 100
_Bound = float | Decimal | None


@dataclass(frozen=True)
class Aggregation:
    """What is counted of a field: `kind` is one of `KINDS`, or `values_and_numbers` for `terms` and `stats` at once."""

    kind: str
    field: Field
    size: int = 10
    by_value: bool = False
    ranges: tuple[tuple[_Bound, _Bound], ...] = ()
    keys: tuple[str, ...] = ()
    meta: Mapping[str, Any] | None = None
    """Given back as it is."""


def read_aggregations(given: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Aggregation]:
    """Return aggregations by name.

    Raises:
        Refused: one is of a kind, or has an option, that is not supported.
    """
    return {name: replace(_read(name, body), meta=_meta(body)) for name, body in (given or {}).items()}


def _meta(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    given = body.get("meta")
    if not isinstance(given, Mapping | None):
        raise refuse("[meta] of an aggregation is an object.")
    return given


def _read(name: str, body: Mapping[str, Any]) -> Aggregation:
    kinds = [kind for kind in body if kind != "meta"]
    if "aggs" in body or "aggregations" in body:
        raise refuse(f"The aggregation [{named(name)}] holds others, which is not supported: ask for each by itself.")
    if len(kinds) != 1 or kinds[0] not in KINDS:
        listed = ", ".join(KINDS)
        raise refuse(f"The aggregation [{named(', '.join(kinds))}] is not supported. Supported: {listed}.")
    kind, options = kinds[0], body[kinds[0]]
    legal = {"terms": {"field", "size", "order"}, "range": {"field", "ranges", "keyed"}}.get(kind, {"field"})
    if not isinstance(options, Mapping) or "field" not in options:
        raise refuse(f"The aggregation [{kind}] wants a field.")
    for option in options:
        if option not in legal:
            raise refuse(f"The aggregation [{kind}] does not support [{named(option)}].")
    path = Field(payload_field(options["field"]))
    if kind == "terms":
        size = options.get("size", 10)
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= facets.MOST_VALUES:
            raise refuse(f"The aggregation [terms] has a size of 1 to {facets.MOST_VALUES:,}.")
        return Aggregation(kind, path, size, _by_value(options.get("order")))
    if kind == "range":
        return _ranges(path, options)
    return Aggregation(kind, path)


def _by_value(order: Any) -> bool:
    if order in (None, {"_count": "desc"}):
        return False
    if order == {"_key": "asc"}:
        return True
    raise refuse('The aggregation [terms] is ordered by {"_count": "desc"} or {"_key": "asc"}.')


def _ranges(path: Field, options: Mapping[str, Any]) -> Aggregation:
    given = options.get("ranges")
    if options.get("keyed"):
        raise refuse("The aggregation [range] does not support [keyed].")
    if not isinstance(given, list) or not 1 <= len(given) <= MOST_RANGES:
        raise refuse(f"The aggregation [range] wants ranges, 1 to {MOST_RANGES}.")
    ranges, keys = [], []
    for each in given:
        if not isinstance(each, Mapping) or set(each) - {"from", "to", "key"}:
            raise refuse("A range of an aggregation is {from, to, key}.")
        low, high = each.get("from"), each.get("to")
        for bound in (low, high):
            if isinstance(bound, bool) or not isinstance(bound, int | float | Decimal | None):
                raise refuse("A range of an aggregation goes from a number to a number.")
        if isinstance(each.get("key"), bool) or not isinstance(each.get("key"), str | None):
            raise refuse("The key of a range is a text.")
        ranges.append((low, high))
        keys.append(each.get("key") or f"{_star(low)}-{_star(high)}")
    return Aggregation("range", path, ranges=tuple(ranges), keys=tuple(keys))


def _star(bound: _Bound) -> str:
    return "*" if bound is None else str(float(bound)) if -1e300 < bound < 1e300 else str(bound)[:40]


def count(
    connection: psycopg.Connection,
    collection: Collection,
    wanted: Mapping[str, Aggregation],
    of: facets.Subset,
    deadline: Deadline,
) -> dict[str, Any]:
    """Return the answers to aggregations over these objects, as OpenSearch tells them.

    Raises:
        SearchTimeoutError: the deadline passed before the last one was begun.
    """
    told = {}
    for name, each in wanted.items():
        deadline.require("fields were counted")
        about = {} if each.meta is None else {"meta": each.meta}
        told[name] = {**about, **_counted(connection, collection, each, of)}
    return told


def _counted(
    connection: psycopg.Connection, collection: Collection, wanted: Aggregation, of: facets.Subset
) -> dict[str, Any]:
    if wanted.kind == "terms":
        found = facets.value_counts(connection, collection, wanted.field, of, wanted.size, by_value=wanted.by_value)
        return _terms(found)
    if wanted.kind == "values_and_numbers":
        found, numbers = facets.values_and_numbers(
            connection, collection, wanted.field, of, wanted.size, by_value=wanted.by_value
        )
        return {**_terms(found), "stats": _stats(numbers)}
    if wanted.kind == "range":
        counts = facets.range_counts(connection, collection, wanted.field, of, wanted.ranges)
        return {
            "buckets": [
                {
                    "key": key,
                    **{name: bound for name, bound in (("from", low), ("to", high)) if bound is not None},
                    "doc_count": times,
                }
                for key, (low, high), times in zip(wanted.keys, wanted.ranges, counts, strict=True)
            ]
        }
    told = _stats(facets.number_stats(connection, collection, wanted.field, of))
    if wanted.kind == "stats":
        return told
    return {"value": told[{"value_count": "count"}.get(wanted.kind, wanted.kind)]}


def _terms(found: facets.ValueCounts) -> dict[str, Any]:
    return {
        "doc_count_error_upper_bound": 0,
        "sum_other_doc_count": found.others,
        "buckets": [_bucket(value, times) for value, times in found.values],
    }


def _stats(numbers: facets.NumberStats) -> dict[str, Any]:
    mean = None if not numbers.count else float(numbers.sum) / numbers.count
    return {"count": numbers.count, "min": numbers.min, "max": numbers.max, "avg": mean, "sum": numbers.sum}


def _bucket(value: Any, times: int) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"key": int(value), "key_as_string": str(value).lower(), "doc_count": times}
    return {"key": value, "doc_count": times}
