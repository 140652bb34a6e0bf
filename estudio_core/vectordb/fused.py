"""The order of a search by words, alone or with vectors: similarity + weight x BM25, best first, equal scores by id.

Where few objects match, all of them are compared: the order is the sum's own. Elsewhere the objects of a page come from
two lanes, and what cannot reach it is never looked at:

- near: the objects that the vector index hands out first, each with the score of its words;
- far: objects that it would hand out later only, found by their words. None of them is nearer than the last of the
  near ones. So its words need a score of `least`: from there up to the last place of the page. The most that each word
  weighs anywhere tells which sets of words a text must hold to get there, and the index of words finds those texts.
  It is the idea of MaxScore (Turtle and Flood, "Query Evaluation: Strategies and Optimizations", 1995), with a
  threshold that the vectors set. Common words lift few objects so high; in large collections they are not asked to
  (`COMMON`), so that a search is bounded.

The first places come from the first `breadth` rows of the vector index, later ones from more (`HEADS`), each settled
before the next: there is one order, and its pages are disjoint. Behind them it is that of the vectors, so that they are
complete.

By words alone, the texts with the rarest word of the query set the threshold, and the order is exact.
"""

from __future__ import annotations

from psycopg import sql

from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.ordering import FAR_BLOCK, FIRST_BLOCK, Request, Row, index_rows, scan
from estudio_core.vectordb.statements import Statements

HEADS = ((1, 10), (2, 40), (8, 200))
"""How many times the breadth of the index scan is looked at for how many first places."""
MOST_WORDS = 32
"""Words of a query that count, the rarest; of longer ones the others would change little."""
ENUMERATED = 8
"""Words of which sets are formed; 2^8 sets take half a millisecond."""
COMMON = 3_000
"""Texts that hold a word which brings far objects onto a page; words in more, and sets of such words alone, do not. To
read where they are takes longer than all else."""
LOOKED_AT, COMPARED = 2_000, 200
"""Texts with enough of the words whose score is computed, the shortest first, where words weigh most; and those of them
whose vectors are compared, the best by words."""
SAMPLE = 5_000
"""Texts with the rarest word that set the threshold of an order by words alone."""

_BY_INDEXES = b"SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = on"
"""What makes the planner take the vector index and the index of words."""
_AS_USUAL = b"SET LOCAL enable_seqscan = on; SET LOCAL enable_sort = on"


async def fused_rows(
    at: Statements, request: Request, limit: int, offset: int, breadth: int, block: int = FIRST_BLOCK
) -> list[Row]:
    """Return a slice of the order by vectors and words, as far as the vector index hands out objects.

    Args:
        at: Connection.
        request: What is searched for.
        limit: Most rows.
        offset: Rows of the order to leave out first.
        breadth: Rows of the vector index that are looked at first.
        block: As of `ordering.index_rows`; so many are, where that is more.
    """
    await at.execute(_BY_INDEXES)
    ordered: dict[str, Row] = {}
    for times, places in HEADS:
        statement = _head(request)
        rows = await at.rows(statement, request.values(scanned=max(times * breadth, block), places=places))
        if block == FAR_BLOCK and (not rows or rows[0][2] < block):
            await at.execute(_AS_USUAL)
            return await exact_fused_rows(at, request, limit, offset)
        for row in [Row(*row[:2]) for row in rows]:
            if len(ordered) < places:
                ordered.setdefault(row.stored_id, row)
        if len(ordered) >= offset + limit:
            break
    found = list(ordered.values())
    if len(found) < offset + limit:
        behind = await index_rows(at, request, offset + limit + len(found), 0, block)
        found += [row for row in behind if row.stored_id not in ordered]
    return found[offset : offset + limit]


async def exact_fused_rows(at: Statements, request: Request, limit: int, offset: int) -> list[Row]:
    """Compare all objects that match, and return a slice by (score, id)."""
    statement = sql.SQL("WITH {} {}").format(asked(request.collection), exact_fused_select(request))
    return [Row(*row) for row in await at.rows(statement, request.values(limit=limit, offset=offset))]


def exact_fused_select(request: Request) -> sql.Composed:
    """Return the statement of `exact_fused_rows`, which follows the CTEs of `asked`."""
    return sql.SQL(
        "SELECT v.object_id, v.result_id FROM ({visible}) v {worded}"
        " CROSS JOIN LATERAL (SELECT min({distance}) AS distance FROM {parts} p"
        " WHERE p.object_id = v.object_id AND {compared}) AS n WHERE {near_enough}"
        " ORDER BY {score} - n.distance DESC, v.result_id LIMIT %(limit)s OFFSET %(offset)s"
    ).format(
        visible=request.visible,
        worded=worded(request.collection),
        distance=request.distance,
        parts=request.collection.parts,
        compared=request.compared,
        near_enough=_near_enough(sql.SQL("n.distance")),
        score=EITHER_SCORE,
    )


async def worded_rows(at: Statements, request: Request, limit: int, offset: int) -> list[Row]:
    """Return a slice of the objects that hold a word of the query, by (score of their words, id)."""
    await at.execute(_BY_INDEXES)
    statement = sql.SQL("WITH {} {}").format(*worded_parts(request))
    values = request.values(limit=limit, offset=offset, places=limit + offset)
    return [Row(*row) for row in await at.rows(statement, values)]


def worded_parts(request: Request) -> tuple[sql.Composable, sql.Composable]:
    """Return the CTEs and the statement of `worded_rows`."""
    ctes = sql.SQL(
        "{asked}, sample AS MATERIALIZED (SELECT {score} AS words FROM {found} AND {rarest} LIMIT {most}),"
        " bound AS MATERIALIZED (SELECT {least} AS least), {needed}"
    ).format(
        asked=asked(request.collection),
        score=SCORE,
        found=_found(request),
        rarest=sql.SQL("w.document @@ (SELECT {} FROM asked ORDER BY idf DESC, word LIMIT 1)::tsquery").format(_QUOTED),
        most=sql.Literal(SAMPLE),
        least=_least(sql.SQL("SELECT words FROM sample")),
        needed=_needed(None),
    )
    select = sql.SQL(
        "SELECT x.object_id, x.result_id"
        ' FROM (SELECT w.object_id, w.object_id COLLATE "C" AS result_id, {score} AS words FROM {found} AND {reaching}'
        " {personal}) x WHERE x.words > 0 ORDER BY x.words DESC, x.result_id LIMIT %(limit)s OFFSET %(offset)s"
    ).format(
        score=SCORE,
        found=_found(request),
        reaching=_REACHING,
        personal=_personal(request, sql.SQL("SELECT v.object_id, v.result_id, {}").format(EITHER_SCORE)),
    )
    return ctes, select


def head_ctes(request: Request, scanned: sql.Composable) -> sql.Composable:
    """Return the CTEs up to `head` (object_id, result_id, distance, words), the objects of both lanes.

    Bound values: `text`, `weight`, `places`, and those of the request.

    Args:
        request: What is searched for.
        scanned: Statement of rows (object_id, distance) of the vector index, the nearest first.
    """
    return sql.SQL(
        "{asked}, scanned AS MATERIALIZED ({scanned}),"
        ' near AS MATERIALIZED (SELECT s.object_id, s.object_id COLLATE "C" AS result_id, s.distance, {score} AS words'
        " FROM (SELECT object_id, min(distance) AS distance FROM scanned GROUP BY object_id) s"
        " LEFT JOIN {words} w ON w.object_id = s.object_id WHERE {near_enough} {personal}),"
        " bound AS MATERIALIZED (SELECT {least} + (SELECT max(distance) FROM scanned) AS least),"
        " {needed}, found AS MATERIALIZED (SELECT f.object_id, f.words FROM (SELECT w.object_id, {score} AS words"
        " FROM {found} AND {reaching} AND EXISTS (SELECT FROM scanned) LIMIT {looked_at}) AS f"
        " WHERE f.words >= (SELECT coalesce(least, 0) FROM bound)"
        " AND f.object_id NOT IN (SELECT object_id FROM scanned) ORDER BY f.words DESC, f.object_id LIMIT {compared}),"
        ' far AS MATERIALIZED (SELECT f.object_id, f.object_id COLLATE "C" AS result_id, n.distance, f.words'
        " FROM found f CROSS JOIN LATERAL (SELECT min({distance}) AS distance FROM {parts} p"
        " WHERE p.object_id = f.object_id AND {compared_parts}) AS n WHERE {far_enough}),"
        " head AS (SELECT * FROM near UNION ALL SELECT * FROM far)"
    ).format(
        asked=asked(request.collection),
        scanned=scanned,
        score=SCORE,
        words=request.collection.words,
        near_enough=_near_enough(sql.SQL("s.distance")),
        personal=_personal(
            request,
            sql.SQL("SELECT v.object_id, v.result_id, n.distance, {}").format(EITHER_SCORE),
        ),
        least=_least(sql.SQL("SELECT words - distance FROM near")),
        needed=_needed(COMMON),
        found=_found(request),
        reaching=_REACHING,
        distance=request.distance,
        parts=request.collection.parts,
        compared_parts=request.compared,
        looked_at=sql.Literal(LOOKED_AT),
        compared=sql.Literal(COMPARED),
        far_enough=_near_enough(sql.SQL("n.distance")),
    )


def asked(collection: Collection) -> sql.Composable:
    """Return the CTEs `asked` (word, idf, most), times the weight, and `query`, the same as a sparse vector."""
    return sql.SQL(
        "asked AS MATERIALIZED (SELECT c.word, c.most, c.documents, %(weight)s::float8"
        " * ln(1 + (greatest(t.total - c.documents, 0) + 0.5) / (c.documents + 0.5))"
        " / ln(1 + (greatest(t.total, 1) - 0.5) / 1.5) AS idf"
        " FROM (SELECT t.word, sum(t.documents)::float8 AS documents, max(t.most)::float8 AS most"
        " FROM unnest(estudio.words({config}::regconfig, %(text)s::text)) AS a JOIN {terms} t ON t.word = a.lexeme"
        " GROUP BY t.word HAVING sum(t.documents) > 0) AS c,"
        " (SELECT sum(documents)::float8 AS total FROM {terms} WHERE word = '') AS t"
        " ORDER BY idf DESC, c.word LIMIT {most_words}),"
        " query AS MATERIALIZED (SELECT coalesce('{{' || string_agg(number || ':' || idf, ',') || '}}/1000000000',"
        " '{{}}/1000000000')::sparsevec AS weights"
        " FROM (SELECT estudio.word_number(word) AS number, sum(idf)::float4 AS idf FROM asked GROUP BY 1) AS n)"
    ).format(
        config=sql.Literal(collection.index_info.text_config),
        terms=collection.terms,
        most_words=sql.Literal(MOST_WORDS),
    )


def worded(collection: Collection) -> sql.Composable:
    """Return the joins of the words `w` of a visible object `v`, and of those `b` of the object that it stands for."""
    return sql.SQL(
        "LEFT JOIN {words} w ON w.object_id = v.object_id LEFT JOIN {words} b ON b.object_id = v.result_id"
    ).format(words=collection.words)


SCORE = sql.SQL("coalesce(-(w.weights <#> (SELECT weights FROM query)), 0)")
"""Of the words `w`, times the weight; 0 where an object has none."""
EITHER_SCORE = sql.SQL("coalesce(-(coalesce(w.weights, b.weights) <#> (SELECT weights FROM query)), 0)")
"""The same of `w`, or of `b` where there is no `w`: a personal row without a text takes its original's."""

_QUOTED = sql.SQL(r"'''' || replace(replace(word, '\', '\\'), '''', '''''') || ''''")
_REACHING = sql.SQL("w.document @@ (SELECT condition FROM needed)")


def _head(request: Request) -> sql.Composed:
    return sql.SQL(
        "WITH {} SELECT object_id, result_id, (SELECT count(*) FROM scanned) FROM head"
        " ORDER BY words - distance DESC, result_id LIMIT %(places)s"
    ).format(head_ctes(request, scan(request)))


def _needed(common: int | None) -> sql.Composable:
    """Return the CTE `needed`, the condition of the texts whose words may reach `least`: a tsquery of sets of words.

    Args:
        common: Sets need a word that at most so many texts hold; None: none does.
    """
    return sql.SQL(
        # Each word with a bit; `short` is what these have to come to, those beyond the first taken for granted.
        "ranked AS MATERIALIZED (SELECT {quoted} AS word, {rare} AS rare, idf * most AS most,"
        " 1 << (row_number() OVER (ORDER BY idf * most DESC, word) - 1)::int AS bit FROM asked"
        " ORDER BY idf * most DESC, word LIMIT {enumerated}),"
        " b AS MATERIALIZED (SELECT coalesce(least, 0) * 0.99999 - (SELECT coalesce(sum(idf * most), 0) FROM asked)"
        " + (SELECT coalesce(sum(most), 0) FROM ranked) AS short FROM bound),"
        " needed AS MATERIALIZED (SELECT string_agg(condition, ' | ')::tsquery AS condition FROM ("
        "SELECT '(' || string_agg(r.word, ' & ') || ')' AS condition"
        " FROM generate_series(1, (SELECT coalesce(max(bit), 0) * 2 - 1 FROM ranked)) AS s (bits)"
        " JOIN ranked r ON s.bits & r.bit > 0 CROSS JOIN b"
        " GROUP BY s.bits, b.short HAVING bool_or(rare) AND sum(r.most) >= b.short"
        # Of sets that hold each other, the smallest that reach it.
        " AND coalesce(sum(r.most) - CASE WHEN count(*) FILTER (WHERE rare) = 1"
        " THEN min(r.most) FILTER (WHERE NOT rare) ELSE min(r.most) END < b.short, true)"
        # Where those beyond the first come to it by themselves, each of them will do.
        " UNION ALL SELECT {quoted} FROM asked, b WHERE {rare} AND b.short <= 0) AS c)"
    ).format(
        quoted=_QUOTED,
        rare=sql.SQL("true") if common is None else sql.SQL("documents <= {}").format(sql.Literal(common)),
        enumerated=sql.Literal(ENUMERATED),
    )


def _least(scores: sql.Composable) -> sql.Composable:
    """Return the score of the last place among `scores`; NULL where they are fewer."""
    return sql.SQL(
        "(SELECT s.score FROM ({}) AS s (score) ORDER BY s.score DESC OFFSET %(places)s - 1 LIMIT 1)"
    ).format(scores)


def _found(request: Request) -> sql.Composable:
    """Return the table of words `w`, everybody's, of objects that match, as a FROM with its WHERE."""
    join: sql.Composable = sql.SQL("")
    if request.filter is not None:
        join = sql.SQL("JOIN {} o ON o.object_id = w.object_id").format(request.collection.objects)
    return sql.SQL("{words} w {join} WHERE NOT w.personal AND {matches} AND {not_replaced}").format(
        words=request.collection.words,
        join=join,
        matches=request.matches(sql.SQL("o.payload")),
        not_replaced=request.not_replaced(sql.SQL("w")),
    )


def _personal(request: Request, select: sql.Composable) -> sql.Composable:
    """Return a UNION of the user's own objects `v`, with words and distance `n`; there are few."""
    if request.user_id is None:
        return sql.SQL("")
    nearest: sql.Composable = sql.SQL("")
    if request.vector is not None:
        nearest = sql.SQL(
            "CROSS JOIN LATERAL (SELECT min({distance}) AS distance FROM {parts} p"
            " WHERE p.object_id = v.object_id AND {compared}) AS n"
        ).format(distance=request.distance, parts=request.collection.parts, compared=request.compared)
    near = _near_enough(sql.SQL("n.distance")) if request.vector is not None else sql.SQL("true")
    return sql.SQL("UNION ALL {} FROM ({}) v {} {} WHERE {}").format(
        select, request.personal, worded(request.collection), nearest, near
    )


def _near_enough(distance: sql.Composable) -> sql.Composable:
    """Return the condition of `max_distance`."""
    return sql.SQL("(%(far)s::float8 IS NULL OR {} <= %(far)s::float8)").format(distance)
