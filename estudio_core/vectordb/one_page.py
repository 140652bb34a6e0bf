"""A page with filters, personal rows, sorting, or words alone, in one round trip.

What `search` does in several statements, one after the other, this does in one where the page lies near the front: it
looks how many objects match, how many of what is near the query the filter leaves, goes the way that `ordering` would
go then, and fetches payloads and distances of what it found. The order is the same; where the way leads further than
one statement goes, it says so, and the several statements follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql

from estudio_core.errors import ConfigurationError
from estudio_core.vectordb.first_page import shape_of
from estudio_core.vectordb.fused import (
    EITHER_SCORE,
    HEADS,
    asked,
    exact_fused_select,
    head_ctes,
    worded,
    worded_parts,
)
from estudio_core.vectordb.hits import SearchHit, nearest_part
from estudio_core.vectordb.index_build import searched_rows
from estudio_core.vectordb.ordering import (
    EXACT_FAR_ROWS,
    EXACT_ROWS,
    FAR_BLOCK,
    FIRST_BLOCK,
    MOST_NEAR,
    NEAR_SAMPLE,
    SHARE_SAMPLE,
    Request,
    SortBy,
    exact_select,
    personal_distances,
    scan,
    sorted_select,
)
from estudio_core.vectordb.serving import Serving
from estudio_core.vectordb.statements import Statements

MAX_SCAN_TUPLES = 40_000
"""Rows that one index scan looks at before the rest is searched exactly. Fixed, so that all pages see one order."""
SCAN_MEMORY_MULTIPLIER = 16
"""Of work_mem: room for what an iterative scan keeps (16 x 4 MB by default)."""

_COMMON = {
    "plan_cache_mode": "force_custom_plan",
    "jit": "off",
    "enable_seqscan": "on",
    "enable_sort": "on",
    "enable_bitmapscan": "on",
}
_BY_INDEX = {
    **_COMMON,
    # An order by distance then comes from the vector index; whatever else is ordered is sorted all the same.
    "enable_sort": "off",
    "max_parallel_workers_per_gather": "0",
    "hnsw.iterative_scan": "relaxed_order",
    "hnsw.max_scan_tuples": str(MAX_SCAN_TUPLES),
    "hnsw.scan_mem_multiplier": str(SCAN_MEMORY_MULTIPLIER),
}
_BY_WORDS = {**_COMMON, "enable_seqscan": "off", "enable_sort": "off"}


@dataclass(frozen=True)
class _Way:
    """A statement to be: CTEs, and the rows (object_id, result_id) of the page in their order.

    Attributes:
        ctes: Put behind `live`; each ends with a comma.
        page: The page.
        settings: Of the transaction.
        found: An expression that is true where the page is what it should be; None: it always is.
    """

    ctes: sql.Composable
    page: sql.Composable
    settings: dict[str, str]
    found: sql.Composable | None = None


async def one_page(
    at: Statements,
    request: Request,
    order: SortBy | None,
    limit: int,
    offset: int,
    breadth: int,
    *,
    exact: bool,
    while_live: Serving | None,
) -> list[SearchHit] | None:
    """Return the hits of a page; None where it lies beyond what one statement finds.

    Args:
        at: Idle connection in autocommit mode.
        request: What is searched for.
        order: The field to sort by; None: by score.
        limit: Most objects to return.
        offset: Objects of the order to leave out first.
        breadth: Rows of the vector index that are looked at first.
        exact: Compare all objects.
        while_live: Find nothing unless this may answer.

    Raises:
        ReleaseMovedError: `while_live` may not answer any more.
        ConfigurationError: words alone are asked for, and the collection has none.
    """
    shape = await shape_of(at, request.collection)
    if request.text is not None and not shape.words:
        request = without_words(request, sorted_too=order is not None)
    more: dict[str, Any] = {"limit": limit, "offset": offset, "places": limit + offset}
    small = exact or not shape.large
    if order is not None:
        way = _Way(sql.SQL(""), sorted_select(request, order), _COMMON)
    elif request.vector is None:
        ctes, page = worded_parts(request)
        way = _Way(sql.SQL("{},").format(ctes), page, _BY_WORDS)
    elif small and request.text is None:
        way = _Way(sql.SQL(""), exact_select(request), _COMMON)
        more["without"] = []
    elif small:
        way = _Way(sql.SQL("{},").format(asked(request.collection)), exact_fused_select(request), _COMMON)
    elif not 0 < limit + offset <= (FIRST_BLOCK if request.text is None else HEADS[0][1]):
        return None
    else:
        way = _by_index(request)
        more |= {
            "total": shape.objects,
            "percent": min(100.0, 100.0 * SHARE_SAMPLE / max(shape.objects, 1.0)),
            "breadth": HEADS[0][0] * breadth,
        }
    statement = sql.SQL(
        "WITH live AS MATERIALIZED (SELECT {live} AS ok), {ctes} page AS MATERIALIZED"
        " (SELECT q.*, row_number() OVER () AS place FROM (SELECT f.object_id, f.result_id FROM ({page}) f"
        " WHERE (SELECT ok FROM live)) q)"
        " SELECT l.ok, {found}, h.* FROM live l LEFT JOIN LATERAL ({hits} FROM page v {joined}) h"
        " (result_id, distance, payload, part, personal, score, place) ON true ORDER BY h.place"
    ).format(
        live=sql.SQL("true" if while_live is None else while_live.condition),
        ctes=way.ctes,
        page=way.page,
        found=way.found or sql.SQL("true"),
        hits=hit_columns(request, sql.SQL(", v.place")),
        joined=hit_joins(request),
    )
    values = request.values(**more, **({} if while_live is None else while_live.values))
    rows = await at.at_once(_set(way.settings, breadth), statement, values)
    if not rows[0][0]:
        assert while_live is not None
        raise while_live.gone()
    if not rows[0][1]:
        return None
    hits = hits_of(request, [row[2:-1] for row in rows if row[-1] is not None])
    if order is not None or request.text is not None:
        return hits
    return sorted(hits, key=lambda hit: (hit.distance, hit.object_id))


def without_words(request: Request, *, sorted_too: bool) -> Request:
    """Return the request by vectors alone, for a collection that has no words.

    Raises:
        ConfigurationError: there is nothing else to order by.
    """
    if request.vector is None and not sorted_too:
        raise ConfigurationError(
            f"Collection {request.collection.collection_id!r} has no words: it was built by a version without them, or "
            "its index is not built yet. Release again, or search by vectors."
        )
    return replace(request, text=None)


def hit_columns(request: Request, further: sql.SQL = sql.SQL("")) -> sql.Composable:  # noqa: B008 (immutable)
    """Return SELECT of what is shown of rows `v` (object_id, result_id), joined by `hit_joins`."""
    score: sql.Composable = sql.SQL("NULL::float8") if request.text is None else EITHER_SCORE
    return sql.SQL(
        "SELECT v.result_id, n.distance, COALESCE(o.payload, r.payload, '{{}}'), n.part, o.user_id IS NOT NULL, {}{}"
    ).format(score, further)


def hit_joins(request: Request) -> sql.Composable:
    """Return the joins that `hit_columns` reads."""
    nearest: sql.Composable = sql.SQL("(SELECT NULL::int AS part, 'NaN'::float8 AS distance)")
    return sql.SQL(
        "JOIN {objects} o ON o.object_id = v.object_id LEFT JOIN {objects} r ON r.object_id = o.original_id"
        " {worded} CROSS JOIN {nearest} n"
    ).format(
        objects=request.collection.objects,
        worded=sql.SQL("") if request.text is None else worded(request.collection),
        nearest=nearest if request.vector is None else nearest_part(request, sql.SQL("v.object_id")),
    )


def hits_of(request: Request, rows: Sequence[Sequence[Any]]) -> list[SearchHit]:
    """Return the hits that rows of `hit_columns` are."""
    averages = request.collection.averages
    return [
        SearchHit(
            object_id,
            distance,
            payload,
            None if averages else part,
            personal,
            None if score is None else score / request.weight,
        )
        for object_id, distance, payload, part, personal, score in rows
    ]


def _set(settings: dict[str, str], breadth: int) -> tuple[bytes, tuple[str, ...]]:
    """Return the statement that sets up a transaction, and its values."""
    named = {**settings, "hnsw.ef_search": str(breadth)}
    statement = "SELECT " + ", ".join("set_config(%s, %s, true)" for _ in named)
    return statement.encode(), tuple(each for pair in named.items() for each in pair)


def _by_index(request: Request) -> _Way:
    """Return the way by the vector index, for a page within its first block, or among few objects that match."""
    decide = _decision(request)
    scanned = scan(
        request,
        also=sql.SQL("(SELECT ok FROM live) AND (SELECT block > 0 FROM way)"),
        most=sql.SQL(
            "(SELECT block FROM way)" if request.text is None else "(SELECT greatest(block, %(breadth)s) FROM way)"
        ),
    )
    # Among the first block's rows, or all of the few that match. Whoever has fewer is not at the end of the order.
    full = sql.SQL(
        "(SELECT CASE WHEN block = 0 THEN (SELECT yes FROM small) ELSE"
        " (SELECT count(*) FROM scanned) >= block AND (SELECT count(*) FROM ordered) >= %(places)s END FROM way)"
    )
    if request.text is None:
        ctes = sql.SQL(
            "{decide}, scanned AS MATERIALIZED ({scanned}), ordered AS MATERIALIZED (SELECT x.* FROM ("
            'SELECT s.object_id, s.object_id COLLATE "C" AS result_id, min(s.distance) AS distance FROM scanned s'
            " GROUP BY s.object_id {personal}) x WHERE %(far)s::float8 IS NULL OR x.distance <= %(far)s::float8),"
            " compared AS MATERIALIZED (SELECT f.object_id, f.result_id, min({distance}) AS distance FROM few f"
            " JOIN {parts} p ON p.object_id = f.object_id WHERE (SELECT yes FROM small) AND {compared}"
            " GROUP BY f.object_id, f.result_id"
            " HAVING %(far)s::float8 IS NULL OR min({distance}) <= %(far)s::float8),"
        ).format(
            decide=decide,
            scanned=scanned,
            personal=_personal(request),
            distance=request.distance,
            parts=request.collection.parts,
            compared=request.compared,
        )
        page = sql.SQL(
            "SELECT object_id, result_id FROM (SELECT * FROM compared UNION ALL SELECT * FROM ordered) u"
            " ORDER BY u.distance, u.result_id LIMIT %(limit)s OFFSET %(offset)s"
        )
        return _Way(ctes, page, _BY_INDEX, full)
    ctes = sql.SQL(
        "{decide}, {head}, ordered AS MATERIALIZED (SELECT object_id, result_id, words - distance AS score FROM head),"
        " compared AS MATERIALIZED (SELECT v.object_id, v.result_id, {score} - n.distance AS score FROM few v {worded}"
        " CROSS JOIN LATERAL (SELECT min({distance}) AS distance FROM {parts} p"
        " WHERE p.object_id = v.object_id AND {compared}) AS n WHERE (SELECT yes FROM small)"
        " AND (%(far)s::float8 IS NULL OR n.distance <= %(far)s::float8)),"
    ).format(
        decide=decide,
        head=head_ctes(request, scanned),
        score=EITHER_SCORE,
        worded=worded(request.collection),
        distance=request.distance,
        parts=request.collection.parts,
        compared=request.compared,
    )
    page = sql.SQL(
        "SELECT object_id, result_id FROM (SELECT * FROM compared"
        " UNION ALL SELECT * FROM ordered WHERE NOT (SELECT yes FROM small)) u"
        " ORDER BY u.score DESC, u.result_id LIMIT %(limit)s OFFSET %(offset)s"
    )
    return _Way(ctes, page, _BY_INDEX, full)


def _decision(request: Request) -> sql.Composable:
    """Return the CTEs up to `way` (block), as `ordering.is_small` and `reach` say; 0: not by the index."""
    if request.filter is None:
        return sql.SQL(
            "few AS MATERIALIZED (SELECT NULL::text AS object_id, NULL::text AS result_id WHERE false),"
            " small AS MATERIALIZED (SELECT false AS yes), way AS MATERIALIZED (SELECT {} AS block)"
        ).format(sql.Literal(FIRST_BLOCK))
    return sql.SQL(
        "few AS MATERIALIZED (SELECT v.object_id, v.result_id FROM ({visible}) v WHERE (SELECT ok FROM live)"
        " LIMIT {few}),"
        " small AS MATERIALIZED (SELECT count(*) < {few} AS yes FROM few),"
        " sampled AS MATERIALIZED (SELECT (count(*) FILTER (WHERE {matches}) + 1)::float8 / (count(*) + 1) AS share"
        " FROM {objects} o TABLESAMPLE SYSTEM (%(percent)s) REPEATABLE (0)"
        " WHERE o.user_id IS NULL AND NOT (SELECT yes FROM small)),"
        " around AS MATERIALIZED (SELECT p.object_id FROM {parts} p WHERE {searched} AND NOT (SELECT yes FROM small)"
        " ORDER BY {distance} LIMIT (SELECT least({most_near}, floor({near} / share)::int + 1) FROM sampled)),"
        # Each looked up by itself: joined, they would be put in order by an index of all objects.
        " met AS MATERIALIZED (SELECT count(*) AS seen, count(*) FILTER (WHERE a.fits) AS fit FROM (SELECT"
        " (SELECT {matches} FROM {objects} o WHERE o.object_id = r.object_id) AS fits"
        " FROM around r GROUP BY r.object_id) a),"
        " way AS MATERIALIZED (SELECT CASE WHEN small.yes THEN 0 WHEN met.fit >= met.seen * share / 2 THEN {first}"
        " WHEN share * %(total)s::float8 <= {exact_far} THEN 0 ELSE {far_block} END AS block"
        " FROM small, sampled, met)"
    ).format(
        visible=request.visible,
        few=sql.Literal(EXACT_ROWS + 1),
        matches=request.matches(sql.SQL("o.payload")),
        objects=request.collection.objects,
        parts=request.collection.parts,
        searched=searched_rows(request.collection, sql.SQL("p.")),
        distance=request.distance,
        most_near=sql.Literal(MOST_NEAR),
        near=sql.Literal(float(NEAR_SAMPLE)),
        first=sql.Literal(FIRST_BLOCK),
        exact_far=sql.Literal(EXACT_FAR_ROWS),
        far_block=sql.Literal(FAR_BLOCK),
    )


def _personal(request: Request) -> sql.Composable:
    """Return a UNION of the user's own objects that stand within what was scanned; there are few."""
    if request.user_id is None:
        return sql.SQL("")
    return sql.SQL(
        "UNION ALL SELECT m.object_id, m.result_id, m.distance FROM ({}) m"
        " WHERE m.distance <= (SELECT max(distance) FROM scanned)"
    ).format(personal_distances(request))
