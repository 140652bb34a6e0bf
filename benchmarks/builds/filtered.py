"""Searches with filters of 0.1 %, 1 % and 10 % of a large collection, beside the bare page: latency and recall."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.builds.catalog import BUCKETS, bucket
from benchmarks.index.generated import BATCH, Vectors, query_vectors, stored_vectors
from benchmarks.index.timing import percentiles_ms
from estudio_core.vectordb.releases import Release
from estudio_core.vectordb.search import search
from estudio_core.vectordb.search_session import search_connection

SHARES = {"none": BUCKETS, "10 %": BUCKETS // 10, "1 %": BUCKETS // 100, "0.1 %": 1}
"""Buckets that a filter lets through."""
QUERIES, ROUNDS, LIMIT = 200, 3, 10
_SAME_DISTANCE = 1e-6


def measure_filtered(release: Release, items: int) -> dict[str, Any]:
    """Return p50, p99 and recall@10 of a page by share of the items that its filter lets through."""
    dimensions = release.index_info.dimensions
    queries = query_vectors(QUERIES, dimensions, seed=11)
    far = _farthest(queries, items, dimensions)
    found: dict[str, Any] = {}
    for name, buckets in SHARES.items():
        given = None if buckets == BUCKETS else {"range": {"bucket": {"lt": buckets}}}
        latencies: list[float] = []
        near = 0
        for turn in range(ROUNDS):
            for number, vector in enumerate(queries):
                began = time.perf_counter()
                with search_connection() as session:  # each has its own deadline
                    hits = search(session, release.collection, vector, limit=LIMIT, filter=given)
                latencies.append(time.perf_counter() - began)
                if turn == 0:
                    assert all(bucket(int(hit.object_id)) < buckets for hit in hits)
                    near += sum(hit.distance <= far[name][number] + _SAME_DISTANCE for hit in hits)
        found[name] = {**percentiles_ms(latencies[QUERIES:]), "recall_at_10": near / (QUERIES * LIMIT)}
    return {"items": items, "pages": found}


def _farthest(queries: Vectors, items: int, dimensions: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return the distance of the tenth nearest of the items that each filter lets through, by comparing all."""
    best = {name: np.full((len(queries), LIMIT), np.inf) for name in SHARES}
    for first in range(0, items, BATCH):
        rows = stored_vectors(first // BATCH, dimensions)[: items - first]
        distances = 1 - queries.astype(np.float64) @ rows.astype(np.float64).T
        of_row = np.array([bucket(first + row) for row in range(len(rows))])
        for name, buckets in SHARES.items():
            both = np.concatenate([best[name], distances[:, of_row < buckets]], axis=1)
            best[name] = np.sort(np.partition(both, LIMIT - 1, axis=1)[:, :LIMIT], axis=1)
    return {name: distances[:, -1] for name, distances in best.items()}
