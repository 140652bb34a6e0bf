"""Full-text search, and its order fused with that of the vectors.

Reciprocal rank fusion (Cormack, Clarke, Büttcher: "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
Learning Methods", SIGIR 2009): an object's score is the sum of 1 / (60 + its place) over the orders in which it has a
place. Only places count, so that a distance and a text rank need no common scale.

The first `FUSED_DEPTH` objects of either order are fused, whatever the page; behind them the vectors' order goes on.
So there is one order, and its pages are disjoint and complete.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import psycopg
from psycopg import sql

from estudio_core.vectordb.ordering import Request, Row

FUSED_DEPTH = 200
"""Objects of each order that are fused: places beyond weigh little (1/260 against 1/61 for the first)."""
RANK_CONSTANT = 60
"""Of the paper: how little the very first places stand out."""

VectorOrder = Callable[[int, int], list[Row]]
"""From limit and offset to a slice of the order by distance."""


def hybrid_rows(
    conn: psycopg.Connection, request: Request, text: str, by_distance: VectorOrder, limit: int, offset: int
) -> list[tuple[Row, float]]:
    """Return a slice of the fused order, with scores (0 behind the fused objects)."""
    # The words first: an index scan leaves the planner without the bitmap scan that they need.
    worded = text_rows(conn, request, text, FUSED_DEPTH)
    near = by_distance(FUSED_DEPTH, 0)
    fused = reciprocal_rank_fusion(near, worded)
    page = fused[offset : offset + limit]
    behind = offset + limit - len(fused)
    if len(page) < limit and behind > 0 and len(near) == FUSED_DEPTH:
        known = {row.stored_id for row in worded}
        rest = [row for row in by_distance(behind + len(worded), FUSED_DEPTH) if row.stored_id not in known]
        page += [(row, 0.0) for row in rest[max(0, offset - len(fused)) : behind]]
    return page


def reciprocal_rank_fusion(*orders: Sequence[Row]) -> list[tuple[Row, float]]:
    """Return all rows with their scores, best first, equal scores by id.

    >>> a, b, c = (Row(name, name) for name in "abc")
    >>> [(row.result_id, round(score, 4)) for row, score in reciprocal_rank_fusion([a, b], [b, c])]
    [('b', 0.0325), ('a', 0.0164), ('c', 0.0161)]
    """
    scores: dict[Row, float] = {}
    for order in orders:
        for place, row in enumerate(order, start=1):
            scores[row] = scores.get(row, 0.0) + 1 / (RANK_CONSTANT + place)
    return sorted(scores.items(), key=lambda scored: (-scored[1], scored[0].result_id))


def text_rows(conn: psycopg.Connection, request: Request, text: str, limit: int) -> list[Row]:
    """Return the objects that hold all words of `text`, the best first, then those that hold some of them."""
    config = sql.Literal(request.collection.index_info.text_config)
    every = sql.SQL("plainto_tsquery({}::regconfig, %(text)s::text)").format(config)
    # The text form of a query quotes its words; between them, and nowhere else, stands " & ".
    some = sql.SQL("replace({}::text, ' & ', ' | ')::tsquery").format(every)
    rows = _matching(conn, request, text, every, sql.SQL("true"), limit)
    if len(rows) < limit:
        lacking = sql.SQL("NOT d.document @@ {}").format(every)
        rows += _matching(conn, request, text, some, lacking, limit - len(rows))
    return rows


def _matching(
    conn: psycopg.Connection,
    request: Request,
    text: str,
    query: sql.Composable,
    condition: sql.Composable,
    limit: int,
) -> list[Row]:
    near: sql.Composable = sql.SQL("true")
    if request.max_distance is not None:
        near = sql.SQL("(SELECT min({}) FROM {} p WHERE p.object_id = d.object_id AND {}) <= %(far)s::float8").format(
            request.distance, request.collection.parts, request.compared
        )
    # ts_rank, normalised by 1 + the logarithm of the length: long texts hold more words for no merit of theirs.
    statement = sql.SQL(
        "SELECT d.object_id, d.result_id FROM ({documents}) d WHERE {condition} AND {near}"
        " ORDER BY ts_rank(d.document, {query}, 1) DESC, d.result_id LIMIT %(rows)s"
    ).format(documents=_documents(request, query), condition=condition, near=near, query=query)
    return [Row(*row) for row in conn.execute(statement, request.values(text=text, rows=limit))]


def _documents(request: Request, query: sql.Composable) -> sql.Composable:
    """Rows (object_id, result_id, document) of the objects that match query and filter, as the user sees them."""
    shared = sql.SQL(
        'SELECT o.object_id, o.object_id COLLATE "C" AS result_id, o.document FROM {} o'
        " WHERE o.user_id IS NULL AND o.document @@ {} AND {} AND {}"
    ).format(
        request.collection.objects, query, request.matches(sql.SQL("o.payload")), request.not_replaced(sql.SQL("o"))
    )
    if request.user_id is None:
        return shared
    # A personal row that was written without a text has its original's.
    document = sql.SQL("CASE WHEN o.body = '' THEN COALESCE(b.document, o.document) ELSE o.document END")
    personal = sql.SQL(
        'SELECT o.object_id, o.original_id COLLATE "C", {document} FROM {objects} o'
        " JOIN {objects} b ON b.object_id = o.original_id"
        " WHERE o.user_id = %(u)s AND {document} @@ {query} AND {matches}"
    ).format(
        document=document,
        objects=request.collection.objects,
        query=query,
        matches=request.matches(sql.SQL("COALESCE(o.payload, b.payload, '{}'::jsonb)")),
    )
    return sql.SQL("{} UNION ALL {}").format(shared, personal)
