"""Checks of a built collection before anybody searches in it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from estudio_core.errors import VerificationError
from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.index_build import index_is_valid
from estudio_core.vectordb.payload_filters import drawn_filters
from estudio_core.vectordb.releases import (
    DEFAULT_ACTOR,
    Release,
    add_stats,
    get_release,
    record_event,
    require_state,
    set_state,
)
from estudio_core.vectordb.search import SearchHit, search

MINIMUM_RECALL = 0.95
"""Share of the 10 truly nearest objects that the index has to find, on average over the sample."""
EF_SEARCH_STEPS = (100, 150, 200, 300, 400, 600, 800, 1000)
"""Breadths that are tried above the configured one; 1000 is pgvector's limit."""
RECALL_S = 10.0
"""Seconds in which the recall of a collection that serves already is measured again, for other queries: of large ones,
where an exact search takes long, with fewer of them, one at least."""
FILTERED_QUERIES = 20
"""Of the sample, compared under each filter: all are compared with all that match, one by one."""
_SAME_DISTANCE = 1e-6  # objects as near as the tenth are as good as it


@dataclass(frozen=True)
class VerificationReport:
    """What was measured: objects and their stored dimension, recall@10 at the breadth chosen.

    `filtered_recall_at_10` is the lowest of those under filters drawn from the payload; 1 where each leaves so few
    objects that all are compared.
    """

    objects: int
    dimensions: int
    recall_at_10: float
    ef_search: int
    queries: int
    filtered_recall_at_10: float = 1.0


def verify_release(
    conn: psycopg.Connection,
    release: Release,
    sample_vectors: NDArray[np.floating[Any]] | Sequence[Sequence[float]],
    expected_objects: int | None,
    *,
    minimum_recall: float = MINIMUM_RECALL,
    actor: str = DEFAULT_ACTOR,
) -> VerificationReport:
    """Check counts, dimension, index and recall; store the report and the breadth; set the release to `verified`.

    Args:
        conn: Connection.
        release: A built release; a verified one is checked again.
        sample_vectors: Query vectors, [queries, dimensions], at least one unless the collection is empty.
        expected_objects: Objects that were loaded. Writes that came in through the change log since the release was
            started may make up a difference. None: the collection is that of the live release; nothing is counted.
        minimum_recall: Recall@10 against exact search that the index has to reach.
        actor: For the audit trail.

    Raises:
        VerificationError: a check failed; the release stays as it was and cannot be switched to.
        ReleaseError: the release is not built.
    """
    with conn.transaction():
        current = require_state(conn, release, ("built", "verified"))
    collection = Collection(current.collection_id, current.index_info)
    with conn.transaction():
        if not collection.exists(conn) or not index_is_valid(conn, collection):
            raise VerificationError(
                f"Release {current.release_id} has no collection with a valid index. Build it again."
            )
    if expected_objects is None:
        objects = int(current.stats.get("objects", 0))
    else:
        objects = _checked_objects(conn, current, collection, expected_objects)
    samples = np.asarray(sample_vectors, dtype=np.float32).reshape(-1, current.index_info.dimensions)
    if objects and not len(samples):
        raise VerificationError(f"Release {current.release_id}: no sample vectors are given to measure recall with.")
    nearest = _nearest(conn, collection, samples, RECALL_S if expected_objects is None else math.inf)
    samples = samples[: len(nearest)]
    ef_search, recall, filtered = _breadth(conn, current, collection, samples, nearest, minimum_recall)
    report = VerificationReport(objects, current.index_info.dimensions, recall, ef_search, len(samples), filtered)
    with conn.transaction():
        add_stats(conn, current, asdict(report))
        verified = set_state(conn, get_release(conn, current.release_id), "verified", ("built", "verified"))
        record_event(conn, verified, "verified", actor, asdict(report))
    return report


def recall_at_10(conn: psycopg.Connection, collection: Collection, samples: NDArray[np.floating[Any]]) -> float:
    """Return the share of the 10 truly nearest objects that the index finds, at the breadth that searches use.

    Args:
        conn: Connection.
        collection: A collection that is searched.
        samples: Query vectors, [queries, dimensions], at least one.
    """
    nearest = [search(conn, collection, vector, exact=True) for vector in samples]
    return _share_found(conn, collection, samples, nearest, None)


def _share_found(
    conn: psycopg.Connection,
    collection: Collection,
    samples: NDArray[np.floating[Any]],
    nearest: list[list[SearchHit]],
    ef_search: int | None,
    filter: dict[str, Any] | None = None,
) -> float:
    """Return the mean share of `nearest` that the index finds; 1 where there is nothing to find.

    Under a filter it is the share that a search finds, which uses the index where that is cheaper.
    """
    shares = []
    for vector, truth in zip(samples, nearest, strict=True):
        if not truth:
            continue
        found = search(conn, collection, vector, ef_search=ef_search, by_index=filter is None, filter=filter)
        far = truth[-1].distance + _SAME_DISTANCE
        shares.append(sum(hit.distance <= far for hit in found) / len(truth))
    return float(np.mean(shares)) if shares else 1.0


def _checked_objects(conn: psycopg.Connection, release: Release, collection: Collection, expected: int) -> int:
    with conn.transaction():
        row = conn.execute(
            sql.SQL(
                "SELECT (SELECT count(*) FROM {objects} WHERE user_id IS NULL),"
                " (SELECT count(*) FROM {objects} o WHERE NOT EXISTS"
                " (SELECT 1 FROM {parts} p WHERE p.object_id = o.object_id AND p.is_average = %s)),"
                " (SELECT count(*) FROM {parts} WHERE vector_dims(embedding) <> %s)"
            ).format(objects=collection.objects, parts=collection.parts),
            (collection.averages, collection.index_info.dimensions),
        ).fetchone()
    assert row is not None
    objects, without_vector, wrong_dimension = row
    changed = int(release.stats.get("changed_objects", 0))
    if abs(objects - expected) > changed:
        raise VerificationError(
            f"Release {release.release_id} holds {objects} objects; {expected} were loaded and {changed} "
            "changed since. Build it again."
        )
    if without_vector or wrong_dimension:
        raise VerificationError(
            f"Release {release.release_id}: {without_vector} objects without a vector to search, "
            f"{wrong_dimension} vectors not of dimension {collection.index_info.dimensions}. Build it again."
        )
    return int(objects)


def _nearest(
    conn: psycopg.Connection, collection: Collection, samples: NDArray[np.float32], within_s: float
) -> list[list[SearchHit]]:
    """Return the truly nearest objects of the samples, of as many as are found within the seconds."""
    until = time.monotonic() + within_s
    nearest: list[list[SearchHit]] = []
    for vector in samples:
        nearest.append(search(conn, collection, vector, exact=True))
        if time.monotonic() > until:
            break
    return nearest


def _breadth(
    conn: psycopg.Connection,
    release: Release,
    collection: Collection,
    samples: NDArray[np.float32],
    nearest: list[list[SearchHit]],
    minimum_recall: float,
) -> tuple[int, float, float]:
    """Return the smallest `ef_search` that reaches the recall, with and without filters, and both."""
    configured = collection.index_info.hnsw.ef_search
    # Distances and not ids are compared: of two objects equally far either is right.
    few = samples[:: max(1, len(samples) // FILTERED_QUERIES)]
    filters = [
        (each, [search(conn, collection, vector, exact=True, filter=each) for vector in few])
        for each in drawn_filters(conn, collection)
    ]
    recall, filtered, worst = 0.0, 1.0, None
    for ef_search in [configured, *(step for step in EF_SEARCH_STEPS if step > configured)]:
        recall = _share_found(conn, collection, samples, nearest, ef_search)
        if recall < minimum_recall:
            continue
        shares = [_share_found(conn, collection, few, truth, ef_search, each) for each, truth in filters]
        filtered = min(shares, default=1.0)
        if filtered >= minimum_recall:
            return ef_search, recall, filtered
        worst = filters[shares.index(filtered)][0]
    under, found = ("", recall) if worst is None else (f" under the filter {worst}", filtered)
    raise VerificationError(
        f"Release {release.release_id}: the index finds {found:.3f} of the true 10 nearest{under} at ef_search=1000; "
        f"{minimum_recall} is needed. Raise m or ef_construction of the index and build it again."
    )
