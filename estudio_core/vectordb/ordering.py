"""In which order a search returns objects.

Two ways to the same answer:

- exact: distances of all objects that match, ordered by (distance, id). Taken for small collections and for filters
  that leave few objects; there an index would be slower, and it would be less than exact.
- by index: pgvector's iterative scan hands out parts in nearly sorted order, each part once, and the same sequence
  whatever the page. It is cut into blocks at fixed places (32, 64, 128, ... rows), each block is sorted by
  (distance, id), and an object stands where it is first met. A page is a slice of that one order: pages are disjoint,
  and complete, because what the index did not hand out follows at the end in exact order.

A query may be far from all that its filter leaves. The index then meets that at random places of its graph, and what it
hands out first is not the nearest: at 20 thousand vectors of 384 dimensions in 40 clusters, and filters of 2 to 30
clusters that the query is in none of, the first 32 rows held 0.71 to 0.86 of the ten nearest, 0.1 at the worst; the
first 512 held 0.98 to 1.00, 0.9 at the worst. So it is looked at first how many of what is near the query the filter
leaves (`reach`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from psycopg import sql

from estudio_core.vectordb import field_indexes
from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.filter_sql import filter_sql
from estudio_core.vectordb.filters import Filter, field_path
from estudio_core.vectordb.index_build import searched_rows
from estudio_core.vectordb.statements import Statements

EXACT_ROWS = 2000
"""Up to so many matching objects, or rows of the whole collection, are compared one by one: some milliseconds."""
FIRST_BLOCK = 32
"""Rows of the first block; each further one doubles what was read so far."""
FAR_BLOCK = 512
"""Rows of the first block where the query is far from what its filter leaves."""
EXACT_FAR_ROWS = 5_000
"""Up to so many matching objects are compared one by one then: as fast as so long a scan, and exact."""
SHARE_SAMPLE, NEAR_SAMPLE, MOST_NEAR = 500, 8, 1_000
"""Objects by which the share is estimated that a filter leaves; how many of those near the query it would leave by that
share, if it had nothing to do with the query; and how many are looked at for that, at most."""


@dataclass(frozen=True)
class SortBy:
    """Order by a payload field, texts before numbers, objects without it last; then by id."""

    field: str
    descending: bool = False


class Row(NamedTuple):
    """A row that stands for a result: its id in the collection and the id that the searcher sees."""

    stored_id: str
    result_id: str


@dataclass(frozen=True)
class Request:
    """What is searched for; `vector` is None where nothing is compared."""

    collection: Collection
    vector: Any
    filter: Filter | None
    user_id: str | None
    max_distance: float | None
    text: str | None = None
    """What the words are read from; None where they do not count."""
    weight: float = 1.0
    """Of the words' score beside the similarity."""
    binds: dict[str, Any] = field(default_factory=dict)

    def values(self, **more: Any) -> dict[str, Any]:
        """Return all bound values of a statement."""
        return {
            "q": self.vector,
            "u": self.user_id,
            "far": self.max_distance,
            "text": self.text,
            "weight": self.weight,
            **self.binds,
            **more,
        }

    @property
    def distance(self) -> sql.Composable:
        """Distance of part `p`."""
        return sql.SQL("(p.embedding {} %(q)s)").format(self.collection.distance_operator)

    @property
    def compared(self) -> sql.SQL:
        """Condition of the parts `p` that are compared."""
        return sql.SQL("p.is_average" if self.collection.averages else "NOT p.is_average")

    @property
    def visible(self) -> sql.Composable:
        """Rows (object_id, result_id, payload) of all objects that match, as the user sees them."""
        shared = sql.SQL(
            'SELECT o.object_id, o.object_id COLLATE "C" AS result_id, o.payload FROM {} o'
            " WHERE o.user_id IS NULL AND {} AND {}"
        ).format(
            self.collection.objects, self.matches(sql.SQL("o.payload"), by_index=True), self.not_replaced(sql.SQL("o"))
        )
        return shared if self.user_id is None else sql.SQL("{} UNION ALL {}").format(shared, self.personal)

    @property
    def personal(self) -> sql.Composable:
        """Rows (object_id, result_id, payload) of the user's own objects that match and whose originals are there."""
        payload = sql.SQL("COALESCE(o.payload, b.payload, '{}'::jsonb)")
        return sql.SQL(
            'SELECT o.object_id, o.original_id COLLATE "C" AS result_id, {payload} AS payload FROM {objects} o'
            " JOIN {objects} b ON b.object_id = o.original_id WHERE o.user_id = %(u)s AND {matches}"
        ).format(payload=payload, objects=self.collection.objects, matches=self.matches(payload))

    def not_replaced(self, table: sql.SQL) -> sql.Composable:
        """Condition that the user has no row of his own in place of this one."""
        if self.user_id is None:
            return sql.SQL("true")
        return sql.SQL(
            "NOT EXISTS (SELECT 1 FROM {} u WHERE u.user_id = %(u)s AND u.original_id = {}.object_id)"
        ).format(self.collection.objects, table)

    def matches(self, payload: sql.Composable, *, by_index: bool = False) -> sql.Composable:
        """Condition of the filter on `payload`; `by_index`: rows are to be found by it, not only looked at."""
        if self.filter is None:
            return sql.SQL("true")
        info = self.collection.index_info
        return filter_sql(self.filter, payload, self.binds, info if by_index else info.times_alone)


async def is_small(at: Statements, request: Request) -> bool:
    """Return whether comparing one by one is cheap: few rows at all, or few that match the filter."""
    if await _estimated_rows(at, request.collection.parts) <= EXACT_ROWS:  # -1: never analysed, thus not indexed either
        return True
    if request.filter is None:
        return False
    [(few,)] = await at.rows(
        sql.SQL("SELECT count(*) FROM (SELECT 1 FROM ({}) v LIMIT %(few)s) w").format(request.visible),
        request.values(few=EXACT_ROWS + 1),
    )
    return int(few) <= EXACT_ROWS


async def reach(at: Statements, request: Request) -> int:
    """Return how many rows of the index the first block takes; 0 where comparing one by one is as cheap and is exact.

    The same for all pages of a search.
    """
    if request.filter is None:
        return FIRST_BLOCK
    total = float(await _estimated_rows(at, request.collection.objects))
    [sampled] = await at.rows(
        sql.SQL(
            "SELECT count(*), count(*) FILTER (WHERE {}) FROM {} o TABLESAMPLE SYSTEM (%(percent)s) REPEATABLE (0)"
            " WHERE o.user_id IS NULL"
        ).format(request.matches(sql.SQL("o.payload")), request.collection.objects),
        request.values(percent=min(100.0, 100.0 * SHARE_SAMPLE / max(total, 1.0))),
    )
    share = (sampled[1] + 1) / (sampled[0] + 1)
    looked_at = min(MOST_NEAR, int(NEAR_SAMPLE / share) + 1)
    [near] = await at.rows(
        sql.SQL(
            "WITH near AS MATERIALIZED (SELECT p.object_id FROM {parts} p WHERE {searched} ORDER BY {distance}"
            " LIMIT %(near)s) SELECT count(DISTINCT object_id), count(DISTINCT object_id) FILTER (WHERE {matches})"
            " FROM near JOIN {objects} o USING (object_id)"
        ).format(
            parts=request.collection.parts,
            searched=searched_rows(request.collection, sql.SQL("p.")),
            distance=request.distance,
            matches=request.matches(sql.SQL("o.payload")),
            objects=request.collection.objects,
        ),
        request.values(near=looked_at),
    )
    if near[1] >= near[0] * share / 2:
        return FIRST_BLOCK
    return 0 if share * total <= EXACT_FAR_ROWS else FAR_BLOCK


async def _estimated_rows(at: Statements, table: sql.Identifier) -> float:
    name = table.as_string(at.connection)
    [(estimate,)] = await at.rows(b"SELECT reltuples FROM pg_class WHERE oid = %s::regclass", (name,))
    return float(estimate)


async def exact_rows(
    at: Statements, request: Request, limit: int, offset: int, without: tuple[str, ...] = ()
) -> list[Row]:
    """Compare all objects that match, except the stored ids `without`, and return a slice by (distance, id)."""
    statement = exact_select(request)  # before its values: it adds those of the filter
    values = request.values(limit=limit, offset=offset, without=list(without))
    return [Row(*row) for row in await at.rows(statement, values)]


def exact_select(request: Request) -> sql.Composed:
    """Return the statement of `exact_rows`; its values are `limit`, `offset`, `without`, and those of the request."""
    return sql.SQL(
        "SELECT v.object_id, v.result_id FROM ({visible}) v JOIN {parts} p ON p.object_id = v.object_id"
        " WHERE {compared} AND v.object_id <> ALL(%(without)s::text[]) GROUP BY v.object_id, v.result_id"
        " HAVING %(far)s::float8 IS NULL OR min({distance}) <= %(far)s::float8"
        " ORDER BY min({distance}), v.result_id LIMIT %(limit)s OFFSET %(offset)s"
    ).format(
        visible=request.visible,
        parts=request.collection.parts,
        compared=request.compared,
        distance=request.distance,
    )


async def sorted_rows(at: Statements, request: Request, sort: SortBy | None, limit: int, offset: int) -> list[Row]:
    """Return a slice of all objects that match and are near enough, ordered by a payload field or by id."""
    statement = sorted_select(request, sort)
    values = request.values(limit=limit, offset=offset, places=limit + offset)
    return [Row(*row) for row in await at.rows(statement, values)]


def sorted_select(request: Request, sort: SortBy | None) -> sql.Composed:
    """Return the statement of `sorted_rows`; its values are `limit`, `offset`, their sum `places`, and the request's.

    Of a field that has an index, the order is read there.
    """
    near: sql.Composable = sql.SQL("true")
    if request.max_distance is not None:
        near = sql.SQL("(SELECT min({}) FROM {} p WHERE p.object_id = v.object_id AND {}) <= %(far)s::float8").format(
            request.distance, request.collection.parts, request.compared
        )
    indexed = None if sort is None else request.collection.index_info.field_of(field_path(sort.field, "sort_by").path)
    if sort is not None and sort.descending and indexed is not None:
        # Backwards, the index begins with what has nothing to sort by, which comes last.
        return sql.SQL(
            "SELECT s.object_id, s.result_id FROM ("
            "(SELECT v.object_id, v.result_id, {key} AS key FROM ({visible}) v WHERE {near} AND {key} IS NOT NULL"
            " ORDER BY {key} DESC, v.result_id LIMIT %(places)s)"
            " UNION ALL (SELECT v.object_id, v.result_id, NULL FROM ({visible}) v WHERE {near} AND {key} IS NULL"
            " ORDER BY v.result_id LIMIT %(places)s)"
            ") s ORDER BY s.key DESC NULLS LAST, s.result_id LIMIT %(limit)s OFFSET %(offset)s"
        ).format(key=field_indexes.key(indexed[1], sql.SQL("v.payload")), visible=request.visible, near=near)
    order: sql.Composable = sql.SQL("")
    if sort is not None and indexed is not None:
        order = sql.SQL("{} ASC NULLS LAST, ").format(field_indexes.key(indexed[1], sql.SQL("v.payload")))
    elif sort is not None:
        direction = sql.SQL("DESC" if sort.descending else "ASC")
        request.binds["sort_path"] = list(field_path(sort.field, "sort_by").path)
        order = sql.SQL("NULLIF(v.payload #> %(sort_path)s::text[], 'null') {} NULLS LAST, ").format(direction)
    return sql.SQL(
        "SELECT v.object_id, v.result_id FROM ({}) v WHERE {} ORDER BY {} v.result_id LIMIT %(limit)s OFFSET %(offset)s"
    ).format(request.visible, near, order)


async def index_rows(at: Statements, request: Request, limit: int, offset: int, block: int = FIRST_BLOCK) -> list[Row]:
    """Return a slice of the index's order, continued by exact order where the index hands out no more.

    Where it does not hand out a block of `FAR_BLOCK` rows, all is exact: what it has met by then may be anything.
    """
    # The order has to be the index's own whatever the planner thinks of a table, and of a page's place in it.
    await at.execute(b"SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off")
    personal = await _personal_distances(at, request)
    wanted = offset + limit
    rows = block
    statement = scan(request)
    ordered: list[Row] = []
    while True:
        while rows < wanted:
            rows *= 2
        scanned: list[Any] = await at.rows(statement, request.values(scanned=rows))
        if block == FAR_BLOCK and len(scanned) < block:
            break
        ordered, beyond = blocked(scanned, personal, request.max_distance, block)
        if len(ordered) >= wanted or beyond:
            return ordered[offset:wanted]
        if len(scanned) < rows:
            break
        rows *= 4
    await at.execute(b"SET LOCAL enable_seqscan = on; SET LOCAL enable_sort = on; SET LOCAL enable_bitmapscan = on")
    page = ordered[offset:wanted]
    known = tuple(row.stored_id for row in ordered)
    return page + await exact_rows(at, request, limit - len(page), max(0, offset - len(ordered)), known)


def scan(
    request: Request,
    also: sql.SQL = sql.SQL("true"),  # noqa: B008 (immutable)
    most: sql.SQL = sql.SQL("%(scanned)s"),  # noqa: B008
) -> sql.Composed:
    """Return the statement of (object_id, distance) of the first `most` parts that the index hands out, if `also`."""
    join: sql.Composable = sql.SQL("")
    if request.filter is not None:
        join = sql.SQL("JOIN {} o ON o.object_id = p.object_id").format(request.collection.objects)
    return sql.SQL(
        "SELECT p.object_id, {distance} AS distance FROM {parts} p {join} WHERE {searched} AND {matches}"
        " AND {not_replaced} AND {also} ORDER BY {distance} LIMIT {most}"
    ).format(
        distance=request.distance,
        parts=request.collection.parts,
        join=join,
        searched=searched_rows(request.collection, sql.SQL("p.")),
        matches=request.matches(sql.SQL("o.payload")),
        not_replaced=request.not_replaced(sql.SQL("p")),
        also=also,
        most=most,
    )


async def _personal_distances(at: Statements, request: Request) -> list[tuple[str, str, float]]:
    """Return (object_id, result_id, distance) of the user's own objects that match; there are few."""
    if request.user_id is None:
        return []
    return await at.rows(personal_distances(request), request.values())


def personal_distances(request: Request) -> sql.Composed:
    """Return a statement for object_id, result_id and distance of the user's own objects that match; there are few."""
    return sql.SQL(
        "SELECT v.object_id, v.result_id, min({distance}) AS distance FROM ({personal}) v"
        " JOIN {parts} p ON p.object_id = v.object_id WHERE {compared} GROUP BY v.object_id, v.result_id"
    ).format(
        distance=request.distance,
        personal=request.personal,
        parts=request.collection.parts,
        compared=request.compared,
    )


def blocked(
    scanned: list[tuple[str, float]],
    personal: list[tuple[str, str, float]],
    max_distance: float | None,
    block: int = FIRST_BLOCK,
) -> tuple[list[Row], bool]:
    """Order what the index handed out, in blocks; return the rows and whether all that follows is too far.

    A personal row stands in the first block that reaches as far as it.

    >>> rows, beyond = blocked([("b", 0.1), ("a", 0.1), ("b", 0.2)], [("a-ann", "c", 0.15)], None)
    >>> [row.result_id for row in rows], beyond
    (['a', 'b', 'c'], False)
    """
    ordered: list[Row] = []
    met: set[str] = set()
    waiting = [row for row in personal if max_distance is None or row[2] <= max_distance]
    start, end = 0, block
    beyond = False
    while start < len(scanned):
        rows = [(distance, stored, stored) for stored, distance in scanned[start:end]]
        far = max(distance for distance, _, _ in rows)
        beyond = max_distance is not None and min(rows)[0] > max_distance
        rows += [(distance, result, stored) for stored, result, distance in waiting if distance <= far]
        waiting = [row for row in waiting if row[2] > far]
        for distance, result, stored in sorted(rows):
            if stored not in met and (max_distance is None or distance <= max_distance):
                ordered.append(Row(stored, result))
            met.add(stored)
        start, end = end, 2 * end
    return ordered, beyond and not waiting
