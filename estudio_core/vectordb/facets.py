"""What objects have in a field of their payload, counted: for facets beside results, and for how many match at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.filters import Field, Filter, Scalar, parse_filter
from estudio_core.vectordb.ordering import Request

MOST_VALUES = 1_000
"""Values of one facet."""
SAMPLE_OBJECTS = 500
_LONGEST_VALUE = 500
"""Characters of a text that is a value to choose; longer ones are prose, which nobody chooses from a list."""


@dataclass(frozen=True)
class ValueCounts:
    """Values of a field with the objects that have them, most frequent first, and how many such pairs are left."""

    values: tuple[tuple[Scalar, int], ...]
    others: int


@dataclass(frozen=True)
class NumberStats:
    """Numbers of a field over all objects; None where there is no number."""

    count: int
    min: float | Decimal | None
    max: float | Decimal | None
    sum: float | Decimal


@dataclass(frozen=True)
class PayloadField:
    """A field that objects have: what it holds mostly (`text`, `number`, `truth`), and how it may be offered."""

    name: str
    kind: str
    share: float
    """Of the objects that were looked at, those that have it."""
    distinct: int
    prose: bool
    """Whether texts of it are mostly different ones."""


@dataclass(frozen=True)
class Subset:
    """Which objects are counted: those that match as a user sees them, or of these the ones with given ids."""

    filter: Filter | None = None
    user_id: str | None = None
    object_ids: Sequence[str] | None = None

    def rows(self, collection: Collection) -> tuple[sql.Composable, dict[str, Any]]:
        """Return a FROM item `v` (object_id, result_id, payload), and its values."""
        request = Request(collection, None, self.filter, self.user_id, None)
        of: sql.Composable = sql.SQL("({})").format(request.visible)
        more: dict[str, Any] = {}
        if self.object_ids is not None:
            # By the key where it is the result's id too; a user's own rows have others.
            column = sql.SQL("v.object_id" if self.user_id is None else "v.result_id")
            of = sql.SQL("(SELECT * FROM ({}) v WHERE {} = ANY(%(ids)s::text[]))").format(request.visible, column)
            more["ids"] = list(self.object_ids)
        return sql.SQL("{} v").format(of), request.values(**more)


def subset(
    filter: Mapping[str, Any] | Filter | None = None,
    user_id: str | None = None,
    object_ids: Sequence[str] | None = None,
) -> Subset:
    """Return the subset of a filter in its JSON form. Raises: as `parse_filter`."""
    return Subset(None if filter is None else parse_filter(filter), user_id, object_ids)


def count_up_to(conn: psycopg.Connection, collection: Collection, of: Subset, most: int | None) -> int:
    """Return how many objects there are, and `most` where there are more; None: all are counted."""
    rows, values = of.rows(collection)
    limit = sql.SQL("") if most is None else sql.SQL("LIMIT %(most)s")
    row = conn.execute(
        sql.SQL("SELECT count(*) FROM (SELECT 1 FROM {} {}) w").format(rows, limit), {**values, "most": most}
    ).fetchone()
    assert row is not None
    return int(row[0])


def value_counts(
    conn: psycopg.Connection, collection: Collection, field: Field, of: Subset, size: int, *, by_value: bool = False
) -> ValueCounts:
    """Return the values that objects have in a field, or in its list; each object counts once for each.

    Args:
        conn: Connection.
        collection: The collection.
        field: The field.
        of: Which objects.
        size: Most values.
        by_value: Order by value in place of the count.
    """
    rows, values = of.rows(collection)
    found = conn.execute(
        sql.SQL("WITH elements AS ({}) {}").format(_elements(rows), _counted(by_value)),
        {**values, "path": field.jsonpath, "size": size},
    ).fetchall()
    return _value_counts([row[:3] for row in found])


def values_and_numbers(
    conn: psycopg.Connection, collection: Collection, field: Field, of: Subset, size: int, *, by_value: bool = False
) -> tuple[ValueCounts, NumberStats]:
    """Return what `value_counts` and `number_stats` do, from one look at the objects."""
    rows, values = of.rows(collection)
    found = conn.execute(
        sql.SQL(
            "WITH elements AS MATERIALIZED ({elements}), counted AS ({counted}) SELECT c.value, c.found, c.total, s.*"
            " FROM (SELECT {stats} FROM (SELECT {number} AS n FROM elements e) numbers) s LEFT JOIN counted c ON true"
            " ORDER BY {order}"
        ).format(
            elements=_elements(rows),
            counted=_counted(by_value),
            stats=_STATS,
            number=_AS_NUMBER,
            order=_ORDER[by_value],
        ),
        {**values, "path": field.jsonpath, "size": size},
    ).fetchall()
    return _value_counts([row[:3] for row in found if row[1] is not None]), _number_stats(found[0][3:])


def _elements(rows: sql.Composable) -> sql.Composable:
    """Return a statement for the values in a field of these rows, those of its list one by one."""
    return sql.SQL(
        "SELECT v.object_id, e.value FROM {} CROSS JOIN LATERAL"
        " jsonb_path_query(coalesce(v.payload, '{{}}'), %(path)s::jsonpath) AS e (value)"
    ).format(rows)


def _counted(by_value: bool) -> sql.Composable:
    """Return a statement for the commonest values of `elements`, how many objects have each, and all pairs."""
    return sql.SQL(
        "SELECT value, found, sum(found) OVER () AS total FROM (SELECT value, count(*) AS found FROM ("
        " SELECT DISTINCT e.object_id, e.value FROM elements e"
        " WHERE jsonb_typeof(e.value) IN ('string', 'number', 'boolean')"
        " AND length(e.value #>> '{{}}') <= {longest}) AS each GROUP BY value) AS several"
        " ORDER BY {order} LIMIT %(size)s"
    ).format(longest=sql.Literal(_LONGEST_VALUE), order=_ORDER[by_value])


def _value_counts(rows: Sequence[Any]) -> ValueCounts:
    total = int(rows[0][2]) if rows else 0
    return ValueCounts(tuple((value, count) for value, count, _ in rows), total - sum(row[1] for row in rows))


def number_stats(conn: psycopg.Connection, collection: Collection, field: Field, of: Subset) -> NumberStats:
    """Return what the numbers of a field come to."""
    rows, values = of.rows(collection)
    row = conn.execute(
        sql.SQL("SELECT {} FROM {}").format(_STATS, _numbers(rows)), {**values, "path": field.jsonpath}
    ).fetchone()
    assert row is not None
    return _number_stats(row)


def _number_stats(row: Sequence[Any]) -> NumberStats:
    return NumberStats(int(row[0]), _number(row[1]), _number(row[2]), _number(row[3]) or 0)


def range_counts(
    conn: psycopg.Connection,
    collection: Collection,
    field: Field,
    of: Subset,
    ranges: Sequence[tuple[float | Decimal | None, float | Decimal | None]],
) -> list[int]:
    """Return how many objects have a number of the field in each range: from its first bound, below its second."""
    rows, values = of.rows(collection)
    counted = []
    for place, (low, high) in enumerate(ranges):
        conditions = [sql.SQL("n IS NOT NULL")]
        if low is not None:
            conditions.append(sql.SQL("n >= {}::numeric").format(sql.Placeholder(f"low{place}")))  # type: ignore[arg-type]
        if high is not None:
            conditions.append(sql.SQL("n < {}::numeric").format(sql.Placeholder(f"high{place}")))  # type: ignore[arg-type]
        values |= {f"low{place}": low, f"high{place}": high}
        counted.append(sql.SQL("count(DISTINCT object_id) FILTER (WHERE {})").format(sql.SQL(" AND ").join(conditions)))
    row = conn.execute(
        sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(counted), _numbers(rows)),
        {**values, "path": field.jsonpath},
    ).fetchone()
    assert row is not None
    return [int(each) for each in row]


def payload_fields(conn: psycopg.Connection, collection: Collection, of: Subset) -> list[PayloadField]:
    """Return the fields that a sample of objects has, by how many have them; the same objects give the same fields."""
    rows, values = of.rows(collection)
    found = conn.execute(
        sql.SQL(
            "WITH sample AS (SELECT v.object_id, v.payload FROM {rows} ORDER BY md5(v.object_id)"
            " LIMIT {most}), each AS (SELECT s.object_id, f.key, jsonb_typeof(e.value) AS kind, e.value"
            " FROM sample s CROSS JOIN LATERAL jsonb_each(coalesce(s.payload, '{{}}')) f"
            " CROSS JOIN LATERAL jsonb_path_query(f.value, '$[*]') AS e (value)"
            " WHERE jsonb_typeof(e.value) IN ('string', 'number', 'boolean'))"
            " SELECT key, mode() WITHIN GROUP (ORDER BY kind), count(DISTINCT object_id)::float8,"
            " count(DISTINCT value), count(*)::float8, avg(length(value #>> '{{}}')),"
            " (SELECT count(*) FROM sample)::float8 FROM each GROUP BY key ORDER BY 3 DESC, 1"
        ).format(rows=rows, most=sql.Literal(SAMPLE_OBJECTS)),
        values,
    ).fetchall()
    kinds = {"string": "text", "number": "number", "boolean": "truth"}
    return [
        PayloadField(
            name,
            kinds[kind],
            having / max(total, 1),
            distinct,
            kind == "string" and ((distinct > count / 2 and distinct > 20) or float(length) > 60),
        )
        for name, kind, having, distinct, count, length, total in found
        if name
    ]


_ORDER = {True: sql.SQL("value, found DESC"), False: sql.SQL("found DESC, value")}
"""Of values, by whether they go by value."""
_STATS = sql.SQL("count(n), min(n), max(n), coalesce(sum(n), 0)")
_AS_NUMBER = sql.SQL("CASE WHEN jsonb_typeof(e.value) = 'number' THEN (e.value #>> '{}')::numeric END")


def _numbers(rows: sql.Composable) -> sql.Composable:
    return sql.SQL("(SELECT e.object_id, {} AS n FROM ({}) e) AS numbers").format(_AS_NUMBER, _elements(rows))


def _number(value: Decimal | None) -> float | Decimal | None:
    """Return a number as the payload's JSON gives it: a float where that says the same."""
    if value is None:
        return None
    if value == value.to_integral_value() and abs(value) < 2**53:
        return int(value)
    near = float(value)
    return near if Decimal(repr(near)) == value else value
