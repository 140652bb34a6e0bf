"""Search a collection: whole objects, in a stable order, filtered inside the scan.

How the order comes about, and why pages are disjoint and complete, stands in `ordering`. The page that nearly every
search asks for, the first without conditions, is one round trip (`first_page`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.pq import TransactionStatus

from estudio_core.errors import ConfigurationError, DataError, DimensionError, shown
from estudio_core.ids import id_list
from estudio_core.lexical.settings import Fusion
from estudio_core.vectordb.collection import Collection, register_vectors
from estudio_core.vectordb.filters import Filter, field_path, parse_filter
from estudio_core.vectordb.first_page import first_page
from estudio_core.vectordb.fused import EITHER_SCORE, SCORE, asked, exact_fused_rows, fused_rows, worded, worded_rows
from estudio_core.vectordb.hits import SearchHit, nearest_part
from estudio_core.vectordb.objects import encodable
from estudio_core.vectordb.ordering import (
    FAR_BLOCK,
    Request,
    Row,
    SortBy,
    exact_rows,
    index_rows,
    is_small,
    reach,
    sorted_rows,
)
from estudio_core.vectordb.search_session import PLANNER_AS_USUAL, is_search_session
from estudio_core.vectordb.serving import Serving
from estudio_core.vectordb.words import has_words

QUERY_LIMIT = 10_000
"""Characters of a query that are read, of its words and by its encoder: what comes from strangers has a bound."""
MAX_SCAN_TUPLES = 40_000
"""Rows that one index scan looks at before the rest is searched exactly. Fixed, so that all pages see one order."""
SCAN_MEMORY_MULTIPLIER = 16
"""Of work_mem: room for what an iterative scan keeps (16 x 4 MB by default)."""
_OWN_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;"

__all__ = ["SearchHit", "SortBy", "StoredObject", "count", "find_by_filter", "find_by_ids", "search", "word_scores"]


@dataclass(frozen=True)
class StoredObject:
    """One row of a collection as it is stored; `vectors` [parts, dim] only where they were asked for.

    A personal row without a payload of its own shows its original's; one whose original is gone is not found.
    """

    object_id: str
    payload: dict[str, Any]
    content_hash: str
    user_id: str | None
    original_id: str | None
    vectors: NDArray[np.float32] | None = None


def search(
    conn: psycopg.Connection,
    collection: Collection,
    vector: NDArray[np.floating[Any]] | Sequence[float] | None,
    *,
    limit: int = 10,
    offset: int = 0,
    max_distance: float | None = None,
    filter: Mapping[str, Any] | Filter | None = None,
    sort_by: SortBy | str | None = None,
    user_id: str | None = None,
    text: str | None = None,
    weight: float | None = None,
    ef_search: int | None = None,
    exact: bool = False,
    by_index: bool = False,
    while_live: Serving | None = None,
) -> list[SearchHit]:
    """Return the objects that answer `vector` and `text` best, exactly `limit` of them where that many match.

    With a vector alone they are ordered by distance; with a text alone by BM25 of its words, and only objects that hold
    one are found; with both by similarity + weight x BM25. A collection that has no words is searched by vectors alone.
    With neither, `sort_by` alone orders all that match.

    Args:
        conn: Connection; settings of the search are undone at its end. Fastest is one of `search_session`, which
            keeps its own.
        collection: What to search.
        vector: Query vector, [dimensions]; None: words alone are searched for, if a text is given.
        limit: Most objects to return.
        offset: Objects of the order to leave out first.
        max_distance: Objects farther than this are left out.
        filter: Condition on the payload, see `filters`.
        sort_by: Order by this payload field instead of by distance.
        user_id: Whose personal rows take the place of the originals.
        text: Words to search for; its first `QUERY_LIMIT` characters are read.
        weight: Of BM25 beside the similarity; None: the default of `Fusion`. 0: the text does not count.
        ef_search: Breadth of the index scan, 1 to 1000; by default the collection's.
        exact: Compare all objects, whatever their number.
        by_index: Use the index even where comparing all objects is cheaper; this is what verification measures.
        while_live: Search only if this is what is live; give the collection of its release.

    Raises:
        ReleaseMovedError: `while_live` is not live any more.
        ConfigurationError: an argument is out of range, or the filter is wrong.
        DimensionError: the vector does not fit the collection.
        DataError: the vector is zero or not finite.
    """
    _check_page(limit, offset)
    for given, what in ((user_id, "user_id"), (text, "text")):
        if given is not None:
            check_given(given, what)
    check_distance(max_distance)
    if vector is None and ((text is None and sort_by is None) or max_distance is not None):
        raise ConfigurationError("Without a vector there is no distance: give a text, or sort_by, and no max_distance.")
    breadth = ef_search or collection.ef_search or collection.index_info.hnsw.ef_search
    if not 1 <= breadth <= 1000:
        raise ConfigurationError(f"ef_search is {breadth}; pgvector takes 1 to 1000.")
    order = _sort(sort_by)
    text = None if text is None else text[:QUERY_LIMIT]
    if vector is not None and (weight == 0 or sort_by is not None or collection.index_info.lexical is None):
        text = None
    register_vectors(conn)
    request = Request(
        collection,
        None if vector is None else _query_vector(collection, vector),
        None if filter is None else parse_filter(filter),
        user_id,
        max_distance,
        text,
        1.0 if vector is None else Fusion().weight if weight is None else weight,
    )
    idle = conn.pgconn.transaction_status == TransactionStatus.IDLE
    if idle and conn.autocommit and vector is not None and sort_by is None and not exact:
        page = first_page(conn, request, limit, offset, breadth, by_index=by_index, while_live=while_live)
        if page is not None:
            return page
    # Nothing is written. In a caller's transaction, rolling back to here takes back the settings of this search and
    # nothing else; one of its own is committed, because psycopg forgets its prepared statements at a rollback.
    with conn.transaction(force_rollback=not idle):
        _settings(conn, breadth, own_snapshot=idle)
        if while_live is not None:
            while_live.require(conn)
        if request.text is not None and not has_words(conn, collection):
            if vector is None and sort_by is None:
                raise ConfigurationError(
                    f"Collection {collection.collection_id!r} has no words: it was built by a version without them, or "
                    "its index is not built yet. Release again, or search by vectors."
                )
            request = replace(request, text=None)
        if sort_by is not None:
            return _hits(conn, request, sorted_rows(conn, request, order, limit, offset))
        while True:
            rows = _rows(conn, request, limit, offset, breadth, exact=exact, by_index=by_index)
            hits = _hits(conn, request, rows)
            # Inside a caller's transaction each statement sees its own moment: an object may go between two of them.
            if len(hits) == len(rows):
                break
    return hits if request.text is not None else sorted(hits, key=lambda hit: (hit.distance, hit.object_id))


def _rows(
    conn: psycopg.Connection, request: Request, limit: int, offset: int, breadth: int, *, exact: bool, by_index: bool
) -> list[Row]:
    """Return a slice of the order that the request asks for."""
    if request.vector is None:
        return worded_rows(conn, request, limit, offset)
    block = 0 if exact or (is_small(conn, request) and not by_index) else reach(conn, request)
    if by_index and not exact:
        block = block or FAR_BLOCK
    if request.text is None:
        if block:
            return index_rows(conn, request, limit, offset, block)
        return exact_rows(conn, request, limit, offset)
    if block:
        return fused_rows(conn, request, limit, offset, breadth, block)
    return exact_fused_rows(conn, request, limit, offset)


def word_scores(
    conn: psycopg.Connection, collection: Collection, text: str, object_ids: Sequence[str]
) -> dict[str, float]:
    """Return BM25 of the words of `text` in those of these objects that hold one, as a search gives it."""
    check_given(text, "text")
    if collection.index_info.lexical is None or not has_words(conn, collection):
        return {}
    request = Request(collection, None, None, None, None, text)
    statement = sql.SQL(
        "WITH {} SELECT w.object_id, {} FROM {} w WHERE w.object_id = ANY(%(ids)s) AND NOT w.personal"
    ).format(asked(collection), SCORE, collection.words)
    rows = conn.execute(statement, request.values(ids=list(object_ids)))
    return {object_id: score for object_id, score in rows if score > 0}


def count(
    conn: psycopg.Connection,
    collection: Collection,
    filter: Mapping[str, Any] | Filter | None = None,
    user_id: str | None = None,
) -> int:
    """Return how many objects match, as this user sees them."""
    request = Request(collection, None, None if filter is None else parse_filter(filter), user_id, None)
    row = conn.execute(sql.SQL("SELECT count(*) FROM ({}) v").format(request.visible), request.values()).fetchone()
    assert row is not None
    return int(row[0])


def find_by_ids(
    conn: psycopg.Connection,
    collection: Collection,
    object_ids: Sequence[str],
    *,
    user_id: str | None = None,
    with_vectors: bool = False,
) -> list[StoredObject]:
    """Return these objects in the order given; missing ones are left out.

    With `user_id`, a personal row of that user is returned in place of its original.
    """
    wanted = dict.fromkeys(id_list(object_ids, "object_ids"))
    ids = [object_id for object_id in wanted if "\x00" not in object_id and encodable(object_id)]
    register_vectors(conn)
    rows = conn.execute(
        sql.SQL(
            "SELECT COALESCE((SELECT u.object_id FROM {objects} u"
            " WHERE u.user_id = %(u)s AND u.original_id = w.id), w.id)"
            " FROM unnest(%(ids)s::text[]) WITH ORDINALITY AS w (id, place) ORDER BY w.place"
        ).format(objects=collection.objects),
        {"ids": ids, "u": user_id},
    )
    return _stored(conn, collection, [row[0] for row in rows], with_vectors=with_vectors)


def find_by_filter(
    conn: psycopg.Connection,
    collection: Collection,
    filter: Mapping[str, Any] | Filter | None = None,
    *,
    limit: int = 10,
    offset: int = 0,
    sort_by: SortBy | str | None = None,
    user_id: str | None = None,
) -> list[StoredObject]:
    """Return objects that match, ordered by a payload field or by id, as this user sees them; nothing is compared."""
    _check_page(limit, offset)
    request = Request(collection, None, None if filter is None else parse_filter(filter), user_id, None)
    idle = conn.info.transaction_status == TransactionStatus.IDLE
    with conn.transaction():
        if idle:
            conn.execute(_OWN_SNAPSHOT)
        while True:
            rows = sorted_rows(conn, request, _sort(sort_by), limit, offset)
            found = _stored(conn, collection, [row.stored_id for row in rows], with_vectors=False)
            # As in `search`: inside a caller's transaction an object may go between two statements.
            if len(found) == len(rows):
                return found


def _stored(
    conn: psycopg.Connection, collection: Collection, stored_ids: list[str], *, with_vectors: bool
) -> list[StoredObject]:
    """Fetch rows by their ids in the collection, in the order given; missing ones are left out."""
    vectors: sql.Composable = sql.SQL("NULL")
    if with_vectors:
        vectors = sql.SQL(
            "(SELECT array_agg(p.embedding ORDER BY p.part) FROM {} p"
            " WHERE p.object_id = o.object_id AND NOT p.is_average)"
        ).format(collection.parts)
    rows = conn.execute(
        sql.SQL(
            "SELECT o.object_id, COALESCE(o.payload, b.payload, '{{}}'), o.content_hash, o.user_id, o.original_id,"
            " {vectors}"
            " FROM unnest(%s::text[]) WITH ORDINALITY AS w (id, place) JOIN {objects} o ON o.object_id = w.id"
            " LEFT JOIN {objects} b ON b.object_id = o.original_id"
            " WHERE o.original_id IS NULL OR b.object_id IS NOT NULL ORDER BY w.place"
        ).format(vectors=vectors, objects=collection.objects),
        (stored_ids,),
    )
    return [
        StoredObject(object_id, payload, content_hash, user_id, original_id, None if parts is None else _matrix(parts))
        for object_id, payload, content_hash, user_id, original_id, parts in rows
    ]


def check_given(given: Any, what: str) -> None:
    """Refuse what is no text, or none that PostgreSQL has.

    Raises:
        ConfigurationError: it is not.
    """
    if not isinstance(given, str):
        raise ConfigurationError(f"{what} is a text; given {shown(given)}.")
    if "\x00" in given or not encodable(given):
        raise ConfigurationError(f"{what} holds the character NUL or half of a surrogate pair: {shown(given)}.")


def _check_page(limit: int, offset: int) -> None:
    for name, given in (("limit", limit), ("offset", offset)):
        if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < 2**31:
            raise ConfigurationError(f"limit and offset are counts below 2**31; given {name}={shown(given)}.")


def check_distance(max_distance: float | None) -> None:
    """Refuse what is no number.

    Raises:
        ConfigurationError: it is not.
    """
    if max_distance is None:
        return
    with suppress(OverflowError):
        if isinstance(max_distance, int | float | np.number) and not (
            isinstance(max_distance, bool) or np.isnan(float(max_distance))
        ):
            return
    raise ConfigurationError(f"max_distance is a number; given {shown(max_distance)}.")


def _query_vector(collection: Collection, vector: Any) -> Any:
    from pgvector import HalfVector, Vector

    array = np.asarray(vector, dtype=np.float32)
    if array.shape != (collection.index_info.dimensions,):
        raise DimensionError(
            f"The query vector has shape {array.shape}; collection {collection.collection_id!r} compares vectors of "
            f"shape ({collection.index_info.dimensions},). Encode the query with the model of the same release."
        )
    with np.errstate(over="ignore"):
        square = array @ array
    # It tells of nearly all vectors in one pass; it may overflow or vanish where the numbers do not.
    if not 0.0 < square < np.inf and not (np.isfinite(array).all() and array.any()):
        raise DataError("The query vector is zero or not finite; it has no distance to anything.")
    return HalfVector(array) if collection.vector_type == "halfvec" else Vector(array)


def _matrix(vectors: Sequence[Any]) -> NDArray[np.float32]:
    return np.stack([vector.to_numpy().astype(np.float32) for vector in vectors])


def _sort(given: SortBy | str | None) -> SortBy | None:
    sort = SortBy(given) if isinstance(given, str) else given
    if sort is not None:
        if not isinstance(sort, SortBy) or not isinstance(sort.field, str):
            raise ConfigurationError(f"sort_by is the name of a payload field, or a SortBy; given {shown(given)}.")
        field_path(sort.field, "sort_by")
    return sort


def _settings(conn: psycopg.Connection, ef_search: int, *, own_snapshot: bool) -> None:
    """Set up this transaction: one snapshot where it is ours alone, the index scan, and plans that use it."""
    isolation = sql.SQL(_OWN_SNAPSHOT if own_snapshot else "")
    planner = sql.SQL(PLANNER_AS_USUAL if is_search_session(conn) else "")
    conn.execute(
        sql.SQL(
            "{}{} SET LOCAL hnsw.ef_search = {}; SET LOCAL hnsw.iterative_scan = relaxed_order;"
            " SET LOCAL hnsw.max_scan_tuples = {}; SET LOCAL hnsw.scan_mem_multiplier = {}; SET LOCAL jit = off"
        ).format(
            isolation,
            planner,
            sql.Literal(ef_search),
            sql.Literal(MAX_SCAN_TUPLES),
            sql.Literal(SCAN_MEMORY_MULTIPLIER),
        )
    )


def _hits(conn: psycopg.Connection, request: Request, rows: Sequence[Row]) -> list[SearchHit]:
    """Fetch payload, distance, nearest part and words of these rows, in their order."""
    if not rows:
        return []
    collection = request.collection
    words: tuple[sql.Composable, ...] = (sql.SQL(""), sql.SQL("NULL::float8"), sql.SQL(""))
    if request.text is not None:
        words = (sql.SQL("WITH {}").format(asked(collection)), EITHER_SCORE, worded(collection))
    nearest = sql.SQL("(SELECT NULL::int AS part, 'NaN'::float8 AS distance)")
    found = conn.execute(
        sql.SQL(
            "{asked} SELECT v.result_id, n.distance, COALESCE(o.payload, r.payload, '{{}}'), n.part,"
            " o.user_id IS NOT NULL, {score}"
            " FROM unnest(%(stored)s::text[], %(result)s::text[]) WITH ORDINALITY AS v (object_id, result_id, place)"
            " JOIN {objects} o ON o.object_id = v.object_id LEFT JOIN {objects} r ON r.object_id = o.original_id"
            " {worded} CROSS JOIN {nearest} n ORDER BY v.place"
        ).format(
            asked=words[0],
            score=words[1],
            objects=collection.objects,
            worded=words[2],
            nearest=nearest if request.vector is None else nearest_part(request, sql.SQL("v.object_id")),
        ),
        request.values(stored=[row.stored_id for row in rows], result=[row.result_id for row in rows]),
    )
    return [
        SearchHit(
            object_id,
            distance,
            payload,
            None if collection.averages else part,
            personal,
            None if score is None else score / request.weight,
        )
        for object_id, distance, payload, part, personal, score in found
    ]
