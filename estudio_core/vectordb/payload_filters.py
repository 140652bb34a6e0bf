"""Filters that a collection's own payload suggests, for measuring what its index finds under them."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

import psycopg
from psycopg import sql

from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.ordering import EXACT_ROWS
from estudio_core.vectordb.search import count

SAMPLE_OBJECTS = 500
MOST_FILTERS = 5
_LEAST_SHARE, _MOST_SHARE = 0.01, 0.7
_LONGEST_VALUE = 200


def drawn_filters(conn: psycopg.Connection, collection: Collection) -> list[dict[str, Any]]:
    """Return up to five filters on different fields, frequent values and halves of numbers, each of many objects.

    Those that few objects match are left out: searches compare these one by one, so that nothing is missed. The same
    objects give the same filters.
    """
    rows = conn.execute(
        sql.SQL("SELECT payload FROM {} WHERE user_id IS NULL ORDER BY md5(object_id) LIMIT %s").format(
            collection.objects
        ),
        (SAMPLE_OBJECTS,),
    ).fetchall()
    payloads: list[dict[str, Any]] = [row[0] for row in rows]
    found = []
    for name in sorted({field for payload in payloads for field in payload if field}):
        suggested = _filter_on(name, [payload[name] for payload in payloads if name in payload], len(payloads))
        if suggested is not None and count(conn, collection, suggested) > EXACT_ROWS:
            found.append(suggested)
        if len(found) == MOST_FILTERS:
            break
    return found


def _filter_on(name: str, values: list[Any], total: int) -> dict[str, Any] | None:
    """Return a filter on a field by what a sample of `total` objects has in it; None where nothing fits.

    >>> _filter_on("kind", ["lamp", "lamp", "chair"], 4)
    {'term': {'field': ['kind'], 'value': 'lamp'}}
    >>> _filter_on("price", [1, 2, 3, 4], 4)
    {'range': {'field': ['price'], 'value': {'lt': 3}}}
    """
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(set(numbers)) > 2:
        return {"range": {"field": [name], "value": {"lt": statistics.median_high(numbers)}}}
    scalars = [value for each in values for value in (each if isinstance(each, list) else [each])]
    frequent = Counter(value for value in scalars if isinstance(value, str | bool) and len(str(value)) < _LONGEST_VALUE)
    fitting = [value for value, times in frequent.most_common() if _LEAST_SHARE <= times / total <= _MOST_SHARE]
    return {"term": {"field": [name], "value": fitting[0]}} if fitting else None
