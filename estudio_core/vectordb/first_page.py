"""The first page of a search without conditions, in one round trip where searches follow each other.

What `ordering.index_rows` does in several statements where a page lies in its first block, and `fused.fused_rows` where
it lies in its first places, this does in one: the same rows of the index, the same order, the same hits. A search
session has the settings already; elsewhere they are sent together with the statement. On a collection of 20 thousand
vectors the several round trips took 2.5 times as long as a bare nearest-neighbour statement.

Most collections hold one part of each object. While that is so, and a small index tells, a row of the scan is an
object, and the statement need not look for further parts. Where very many further parts are being written, or were just
deleted, looking into that index takes about a millisecond.

The scan is not iterative: an iterative one finds the same first `ef_search` rows, but keeps what it passed by for a
continuation that this page does not need: the bare statement took 1.1 to 1.4 times as long with it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, LiteralString

from psycopg import sql

from estudio_core.database import SCHEMA
from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.fused import HEADS, head_ctes
from estudio_core.vectordb.hits import SearchHit, nearest_part
from estudio_core.vectordb.index_build import searched_rows
from estudio_core.vectordb.ordering import EXACT_ROWS, FIRST_BLOCK, Request
from estudio_core.vectordb.search_session import BREADTH, SETTINGS, is_search_session, set_breadth
from estudio_core.vectordb.serving import Serving
from estudio_core.vectordb.statements import Statements

SHAPE_S = 5.0
"""What is known of a collection's shape is asked anew after this time."""
_SETTINGS = (
    "SELECT set_config(%s, %s, true)"
    + "".join(f", set_config('{name}', '{value}', true)" for name, value in SETTINGS.items())
).encode()


@dataclass(frozen=True)
class Shape:
    """What decides on the statement.

    Attributes:
        large: More rows than are compared one by one, by the server's own estimate, which it renews now and then.
        several: An object may have several parts. If not, the statement itself makes sure that this is still so.
        words: It has words to search for.
        objects: Rows of objects, by the same estimate.
        seen: By `time.monotonic()`.
    """

    large: bool
    several: bool
    words: bool
    objects: float
    seen: float


_shapes: dict[Collection, Shape] = {}


async def first_page(
    at: Statements,
    request: Request,
    limit: int,
    offset: int,
    ef_search: int,
    *,
    by_index: bool,
    while_live: Serving | None = None,
) -> list[SearchHit] | None:
    """Return the hits of a page within the first block of the index's order; None where this way does not lead there.

    That is so for pages further back, for filters and personal rows, for collections that are compared exactly, for a
    breadth below the block's, where the block is not full or holds too few objects that are near enough, and where
    `while_live` is not live any more.

    Args:
        at: Idle connection in autocommit mode.
        request: What is searched for.
        limit: Most objects to return.
        offset: Objects of the order to leave out first.
        ef_search: Breadth of the scan.
        by_index: Use the index whatever the size of the collection.
        while_live: Find nothing unless this is what is live.
    """
    wanted = limit + offset
    most = FIRST_BLOCK if request.text is None else HEADS[0][1]
    if not 0 < limit <= wanted <= most <= ef_search or request.filter is not None or request.user_id is not None:
        return None
    collection = request.collection
    shape = await shape_of(at, collection)
    if not (shape.large or by_index):
        return None
    values = {"q": request.vector, "limit": limit, "offset": offset}
    condition = None if while_live is None else while_live.condition
    if while_live is not None:
        values |= while_live.values
    if request.text is not None:
        return await _fused_page(at, request, values, ef_search, condition=condition) if shape.words else None
    rows = await _rows(at, _statement(collection, condition, shape.several), values, ef_search)
    if not rows and not (shape.several or collection.averages) and (await shape_of(at, collection, anew=True)).several:
        # An object of several parts has been written since.
        rows = await _rows(at, _statement(collection, condition, True), values, ef_search)
    if not rows:
        return None
    *_, met_at, scanned = zip(*rows, strict=True)
    if scanned[0] < FIRST_BLOCK or (request.max_distance is not None and max(met_at) > request.max_distance):
        return None
    hits = _hits(collection, rows)
    return hits if len(hits) == limit else None


async def _fused_page(
    at: Statements, request: Request, values: dict[str, Any], ef_search: int, *, condition: LiteralString | None
) -> list[SearchHit] | None:
    values = request.values(**values, scanned=HEADS[0][0] * ef_search, places=HEADS[0][1])
    rows = await _rows(at, _fused_statement(request.collection, condition), values, ef_search)
    averages = request.collection.averages
    hits = [
        SearchHit(object_id, distance, payload, None if averages else part, words=words / request.weight)
        for object_id, distance, part, payload, words in rows
    ]
    return hits if len(hits) == values["limit"] else None


async def shape_of(at: Statements, collection: Collection, *, anew: bool = False) -> Shape:
    """Return the shape of a collection as it was at most `SHAPE_S` ago."""
    known = _shapes.get(collection)
    if anew or known is None or time.monotonic() - known.seen > SHAPE_S:
        statement = sql.SQL(
            "SELECT (SELECT reltuples FROM pg_class WHERE oid = %s::regclass), to_regclass(%s) IS NULL OR {},"
            " to_regclass(%s) IS NOT NULL, (SELECT reltuples FROM pg_class WHERE oid = %s::regclass)"
        ).format(_exists_several(collection))
        index = sql.Identifier(SCHEMA, collection.name("several"))
        connection = at.connection
        names = (
            table.as_string(connection) for table in (collection.parts, index, collection.words, collection.objects)
        )
        [row] = await at.rows(statement, tuple(names))
        several = row[1] and not collection.averages
        known = _shapes[collection] = Shape(row[0] > EXACT_ROWS, several, row[2], row[3], time.monotonic())
    return known


def _exists_several(collection: Collection) -> sql.Composable:
    return sql.SQL("EXISTS (SELECT FROM {} x WHERE x.part > 0)").format(collection.parts)


async def _rows(at: Statements, statement: bytes, values: dict[str, Any], ef_search: int) -> list[tuple[Any, ...]]:
    """Run the statement with its settings, which on a search session are there already."""
    if is_search_session(at.connection):
        await set_breadth(at, ef_search)
        return await at.rows(statement, values, prepare=True)
    return await at.at_once((_SETTINGS, (BREADTH, str(ef_search))), statement, values)


def _hits(collection: Collection, rows: list[tuple[Any, ...]]) -> list[SearchHit]:
    """Return one hit for each object, with its nearest part, by (distance, id)."""
    rows.sort(key=itemgetter(1, 0, 2))
    payloads = {row[0]: row[3] for row in rows if row[2] == 0}
    averages = collection.averages
    nearest: dict[str, SearchHit] = {}
    for object_id, distance, part, *_ in rows:
        if object_id not in nearest:
            nearest[object_id] = SearchHit(object_id, distance, payloads[object_id], None if averages else part)
    return list(nearest.values())


@lru_cache(maxsize=64)
def _statement(collection: Collection, condition: LiteralString | None, several: bool) -> bytes:
    """Return the statement: all parts of the page's objects, in any order; one of each object has its payload.

    Behind them the distance at which the scan met the object, and how many rows it met in all. Without
    `several` every object is one row of the scan, and nothing is found where that is not so.
    """
    request = Request(collection, None, None, None, None)
    conditions = [searched_rows(collection, sql.SQL("p."))]
    if condition is not None:
        conditions.append(sql.SQL(condition))
    if not several and not collection.averages:
        conditions.append(sql.SQL("NOT {}").format(_exists_several(collection)))
    scan = sql.SQL(
        "SELECT p.object_id, {distance} AS distance FROM {parts} p WHERE {conditions} ORDER BY {distance} LIMIT {block}"
    ).format(
        distance=request.distance,
        parts=collection.parts,
        conditions=sql.SQL(" AND ").join(conditions),
        block=sql.Literal(FIRST_BLOCK),
    )
    page = _PAGE_OF_ROWS if not several else _PAGE_OF_OBJECTS
    return page.format(
        scan=scan,
        objects=collection.objects,
        parts=collection.parts,
        distance=request.distance,
        compared=request.compared,
    ).as_bytes(None)


@lru_cache(maxsize=64)
def _fused_statement(collection: Collection, condition: LiteralString | None) -> bytes:
    """Return the statement of the page's objects in the order of words and vectors, each with its nearest part."""
    request = Request(collection, None, None, None, None)
    scanned = sql.SQL(
        "SELECT p.object_id, {distance} AS distance FROM {parts} p WHERE {conditions}"
        " ORDER BY {distance} LIMIT %(scanned)s"
    ).format(
        distance=request.distance,
        parts=collection.parts,
        conditions=sql.SQL(" AND ").join([searched_rows(collection, sql.SQL("p.")), sql.SQL(condition or "true")]),
    )
    return (
        sql.SQL(
            "WITH {ctes} SELECT w.object_id, n.distance, n.part, o.payload, w.words"
            " FROM (SELECT object_id, result_id, words, words - distance AS score FROM head"
            " ORDER BY words - distance DESC, result_id LIMIT %(limit)s OFFSET %(offset)s) w"
            " JOIN {objects} o ON o.object_id = w.object_id CROSS JOIN {nearest} n ORDER BY w.score DESC, w.result_id"
        )
        .format(
            ctes=head_ctes(request, scanned),
            objects=collection.objects,
            nearest=nearest_part(request, sql.SQL("w.object_id")),
        )
        .as_bytes(None)
    )


_PAGE_OF_ROWS = sql.SQL(
    "SELECT w.object_id, w.distance, 0, o.payload, w.distance, w.scanned"
    " FROM (SELECT s.object_id, s.distance, (count(*) OVER ())::int AS scanned FROM ({scan}) s"
    ' ORDER BY s.distance, s.object_id COLLATE "C" LIMIT %(limit)s OFFSET %(offset)s) w'
    " JOIN {objects} o ON o.object_id = w.object_id"
)
_PAGE_OF_OBJECTS = sql.SQL(
    "SELECT w.object_id, {distance}, p.part, CASE WHEN p.part = 0 THEN o.payload END, w.met_at, w.scanned"
    " FROM (SELECT s.object_id, min(s.distance) AS met_at, (sum(count(*)) OVER ())::int AS scanned FROM ({scan}) s"
    ' GROUP BY s.object_id ORDER BY min(s.distance), s.object_id COLLATE "C" LIMIT %(limit)s OFFSET %(offset)s) w'
    " JOIN {objects} o ON o.object_id = w.object_id"
    " JOIN {parts} p ON p.object_id = w.object_id AND {compared}"
)
