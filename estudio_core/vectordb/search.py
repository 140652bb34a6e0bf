"""Search a collection: whole objects, in a stable order, filtered inside the scan.

How the order comes about, and why pages are disjoint and complete, stands in `ordering`. Pages near the front are one
round trip: the one that nearly every search asks for, without conditions, by `first_page`; those with filters, personal
rows, sorting or words alone by `one_page`. What searches is written once, for blocking connections and for event loops
(`statements`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.pq import TransactionStatus

from estudio_core import telemetry
from estudio_core.errors import ConfigurationError, DataError, DimensionError, shown
from estudio_core.ids import id_list
from estudio_core.lexical.settings import Fusion
from estudio_core.vectordb.collection import Collection, register_vectors
from estudio_core.vectordb.facets import count_up_to, subset
from estudio_core.vectordb.filters import Filter, field_path, parse_filter
from estudio_core.vectordb.first_page import first_page, shape_of
from estudio_core.vectordb.fused import SCORE, asked, exact_fused_rows, fused_rows, worded_rows
from estudio_core.vectordb.hits import SearchHit
from estudio_core.vectordb.objects import encodable
from estudio_core.vectordb.one_page import (
    MAX_SCAN_TUPLES,
    SCAN_MEMORY_MULTIPLIER,
    hit_columns,
    hit_joins,
    hits_of,
    one_page,
    without_words,
)
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
from estudio_core.vectordb.statements import Blocking, Statements, is_idle, run
from estudio_core.vectordb.words import has_words

QUERY_LIMIT = 10_000
"""Characters of a query that are read, of its words and by its encoder: what comes from strangers has a bound."""
LONGEST_NAME = 200
"""Characters of the name of a plugin: those that there are have 40 at most, and messages say what was given."""
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
    register_vectors(conn)
    return run(
        search_at(
            Blocking(conn),
            collection,
            vector,
            limit=limit,
            offset=offset,
            max_distance=max_distance,
            filter=filter,
            sort_by=sort_by,
            user_id=user_id,
            text=text,
            weight=weight,
            ef_search=ef_search,
            exact=exact,
            by_index=by_index,
            while_live=while_live,
        )
    )


async def search_at(
    at: Statements,
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
    """Do what `search` does, on a connection of either kind that knows pgvector's types."""
    check_page(limit, offset)
    for given, what in ((user_id, "user_id"), (text, "text")):
        if given is not None:
            check_given(given, what)
    check_distance(max_distance)
    if vector is None and ((text is None and sort_by is None) or max_distance is not None):
        raise ConfigurationError("Without a vector there is no distance: give a text, or sort_by, and no max_distance.")
    breadth = ef_search or collection.ef_search or collection.index_info.hnsw.ef_search
    if not 1 <= breadth <= 1000:
        raise ConfigurationError(f"ef_search is {breadth}; pgvector takes 1 to 1000.")
    order = sort_order(sort_by)
    text = None if text is None else text[:QUERY_LIMIT]
    if vector is not None and (weight == 0 or sort_by is not None or collection.index_info.lexical is None):
        text = None
    request = Request(
        collection,
        None if vector is None else _query_vector(collection, vector),
        None if filter is None else parse_filter(filter),
        user_id,
        max_distance,
        text,
        1.0 if vector is None else Fusion().weight if weight is None else weight,
    )
    telemetry.note("estudio.candidates", breadth)
    idle = is_idle(at)
    if idle and at.connection.autocommit:
        if vector is not None and sort_by is None and not exact:
            page = await first_page(at, request, limit, offset, breadth, by_index=by_index, while_live=while_live)
            if page is not None:
                return page
        if not by_index:
            page = await one_page(at, request, order, limit, offset, breadth, exact=exact, while_live=while_live)
            if page is not None:
                return page
    # Nothing is written. In a caller's transaction, rolling back to here takes back the settings of this search and
    # nothing else; one of its own is committed, because psycopg forgets its prepared statements at a rollback.
    async with at.transaction(force_rollback=not idle):
        await _settings(at, breadth, own_snapshot=idle)
        if while_live is not None:
            await while_live.require(at)
        if request.text is not None and not (await shape_of(at, collection, anew=True)).words:
            request = without_words(request, sorted_too=sort_by is not None)
        if order is not None:
            return await _hits(at, request, await sorted_rows(at, request, order, limit, offset))
        while True:
            rows = await _rows(at, request, limit, offset, breadth, exact=exact, by_index=by_index)
            hits = await _hits(at, request, rows)
            # Inside a caller's transaction each statement sees its own moment: an object may go between two of them.
            if len(hits) == len(rows):
                break
    return hits if request.text is not None else sorted(hits, key=lambda hit: (hit.distance, hit.object_id))


async def _rows(
    at: Statements, request: Request, limit: int, offset: int, breadth: int, *, exact: bool, by_index: bool
) -> list[Row]:
    """Return a slice of the order that the request asks for."""
    if request.vector is None:
        return await worded_rows(at, request, limit, offset)
    block = 0 if exact or (await is_small(at, request) and not by_index) else await reach(at, request)
    if by_index and not exact:
        block = block or FAR_BLOCK
    if request.text is None:
        if block:
            return await index_rows(at, request, limit, offset, block)
        return await exact_rows(at, request, limit, offset)
    if block:
        return await fused_rows(at, request, limit, offset, breadth, block)
    return await exact_fused_rows(at, request, limit, offset)


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
    return count_up_to(conn, collection, subset(filter, user_id), None)


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
    check_page(limit, offset)
    request = Request(collection, None, None if filter is None else parse_filter(filter), user_id, None)
    idle = conn.info.transaction_status == TransactionStatus.IDLE
    with conn.transaction():
        if idle:
            conn.execute(_OWN_SNAPSHOT)
        while True:
            rows = run(sorted_rows(Blocking(conn), request, sort_order(sort_by), limit, offset))
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


def check_given(given: Any, what: str, most: int | None = None) -> None:
    """Refuse what is no text, none that PostgreSQL has, or one of more than `most` characters.

    Raises:
        ConfigurationError: it is not.
    """
    if not isinstance(given, str):
        raise ConfigurationError(f"{what} is a text; given {shown(given)}.")
    if "\x00" in given or not encodable(given):
        raise ConfigurationError(f"{what} holds the character NUL or half of a surrogate pair: {shown(given)}.")
    if most is not None and len(given) > most:
        raise ConfigurationError(f"{what} has at most {most} characters; given {len(given):,}, {shown(given, 40)}.")


def check_page(limit: int, offset: int) -> None:
    """Refuse what is no count.

    Raises:
        ConfigurationError: it is not.
    """
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


def sort_order(given: SortBy | str | None) -> SortBy | None:
    """Read what `sort_by` may be.

    Raises:
        ConfigurationError: it is neither the name of a field nor a `SortBy`.
    """
    sort = SortBy(given) if isinstance(given, str) else given
    if sort is not None:
        if not isinstance(sort, SortBy) or not isinstance(sort.field, str):
            raise ConfigurationError(f"sort_by is the name of a payload field, or a SortBy; given {shown(given)}.")
        field_path(sort.field, "sort_by")
        if not isinstance(sort.descending, bool):
            raise ConfigurationError(f"descending is True or False; given {shown(sort.descending)}.")
    return sort


async def _settings(at: Statements, ef_search: int, *, own_snapshot: bool) -> None:
    """Set up this transaction: one snapshot where it is ours alone, the index scan, and plans that use it."""
    isolation = sql.SQL(_OWN_SNAPSHOT if own_snapshot else "")
    planner = sql.SQL(PLANNER_AS_USUAL if is_search_session(at.connection) else "")
    await at.execute(
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


async def _hits(at: Statements, request: Request, rows: Sequence[Row]) -> list[SearchHit]:
    """Fetch payload, distance, nearest part and words of these rows, in their order."""
    if not rows:
        return []
    statement = sql.SQL(
        "{ctes} {hits} FROM unnest(%(stored)s::text[], %(result)s::text[]) WITH ORDINALITY"
        " AS v (object_id, result_id, place) {joined} ORDER BY v.place"
    ).format(
        ctes=sql.SQL("WITH {}").format(asked(request.collection)) if request.text is not None else sql.SQL(""),
        hits=hit_columns(request),
        joined=hit_joins(request),
    )
    values = request.values(stored=[row.stored_id for row in rows], result=[row.result_id for row in rows])
    return hits_of(request, await at.rows(statement, values))
