"""Searches of concurrent clients, by vectors and by words and vectors, against a nearest-neighbour statement by hand.

Every client is a process of its own with its own connection, as web workers are: threads of one process would wait for
Python's lock, and what is measured would be that. All clients run one contender at a time, then the next, for several
rounds, each sending its next search when the last one has been answered.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import psycopg
from pgvector import Vector

from benchmarks.index.generated import Vectors, generated_release, query_texts, query_vectors, true_distances
from benchmarks.index.timing import median, percentiles_ms
from estudio_core import database
from estudio_core.deadline import Deadline
from estudio_core.vectordb.collection import register_vectors
from estudio_core.vectordb.hits import SearchHit
from estudio_core.vectordb.releases import Release, live_release
from estudio_core.vectordb.search import search
from estudio_core.vectordb.search_session import search_connection
from estudio_core.vectordb.serving import Serving, answer, read
from estudio_core.vectordb.statements import run

BARE, OURS, WHOLE = "bare statement", "Estudio, search", "Estudio, pointer and search"
BOTH = "Estudio, words and vectors"
CONTENDERS = (BARE, OURS, WHOLE, BOTH)
LIMIT = 10
QUERIES = 500
"""Vectors that are searched for, again and again in another order for each client."""
RECALL_QUERIES = 200
SUM_QUERIES = 50
"""Of them, those whose sum is computed for all objects."""
WARM_UP = 20
PATIENCE_S = 3600.0
"""Of a session that compares all objects with many queries."""
_SAME_DISTANCE = 1e-6
_START_TIMEOUT_S = 180.0

Find = Callable[[Any, str], list[tuple[str, float]]]
"""From a query's vector and text to (id, distance) of what is found."""


def measure_search(
    size: int, clients: int, *, dimensions: int = 384, rounds: int = 3, round_s: float = 3.0
) -> dict[str, Any]:
    """Search a generated collection of `size` vectors with `clients` clients.

    Returns:
        By contender: p50 and p99 of all rounds' latencies and of each round, queries/s, recall@10 on a sample.
    """
    release = generated_release(size, dimensions)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(clients)
    answers = context.Queue()
    arguments = (release.plugin, dimensions, rounds, round_s, barrier, answers)
    workers = [context.Process(target=_client, args=(number, *arguments), daemon=True) for number in range(clients)]
    for worker in workers:
        worker.start()
    try:
        found = [_answer(answers, workers, rounds * round_s * len(CONTENDERS)) for _ in workers]
    finally:
        for worker in workers:
            worker.join(10)
            worker.kill()
    by_round = {
        name: [[latency for client in found for latency in client[name][number]] for number in range(rounds)]
        for name in CONTENDERS
    }
    recall = measured_recall(release, size, dimensions)
    contenders = {
        name: {
            **percentiles_ms([latency for latencies in of_rounds for latency in latencies]),
            "rounds": [percentiles_ms(latencies) for latencies in of_rounds],
            "queries_per_s": median([len(latencies) for latencies in of_rounds]) / round_s,
            "recall_at_10": recall[name],
        }
        for name, of_rounds in by_round.items()
    }
    return {"size": size, "clients": clients, "ef_search": _breadth(release), "contenders": contenders}


def measured_recall(release: Release, size: int, dimensions: int) -> dict[str, float]:
    """Return recall@10 of each contender against comparing all vectors; of equally far ones either is right."""
    queries = query_vectors(RECALL_QUERIES, dimensions, seed=3)
    far = true_distances(size, dimensions, queries) + _SAME_DISTANCE
    shares: dict[str, float] = {}
    with ExitStack() as stack:
        contenders = _contenders(stack, release.plugin)
        for name, find in contenders.items():
            if name == BOTH:
                continue  # what it finds is not what is nearest
            hits = [find(vector, "") for vector in queries]
            near = [sum(distance <= limit for _, distance in found) for found, limit in zip(hits, far, strict=True)]
            shares[name] = float(np.mean(near)) / LIMIT
        shares[BOTH] = _share_of_the_sum(release, queries[:SUM_QUERIES], contenders[BOTH])
    return shares


def _share_of_the_sum(release: Release, queries: Vectors, find: Find) -> float:
    """Return the share of the best by similarity + weight x BM25, of all objects compared, that `find` finds."""
    shares = []
    with search_connection("cheap", Deadline.after(PATIENCE_S)) as session:
        for vector, text in zip(queries, query_texts(RECALL_QUERIES, seed=3), strict=False):
            best = search(session, release.collection, vector, text=text, limit=LIMIT, exact=True)
            found = {object_id for object_id, _ in find(vector, text)}
            shares.append(len(found & {hit.object_id for hit in best}) / len(best))
    return float(np.mean(shares))


def _client(number: int, plugin: str, dimensions: int, rounds: int, round_s: float, barrier: Any, answers: Any) -> None:
    """Run all contenders, round by round, at the same moments as the other clients, and hand over the latencies."""
    try:
        order = np.random.default_rng(number).permutation(QUERIES)
        texts = query_texts(QUERIES)
        vectors = query_vectors(QUERIES, dimensions)
        queries = [(vectors[row], texts[row]) for row in order]
        latencies: dict[str, list[list[float]]] = {name: [] for name in CONTENDERS}
        with ExitStack() as stack:
            contenders = _contenders(stack, plugin)
            for find in contenders.values():
                for query in queries[:WARM_UP]:
                    find(*query)
            for turn in range(rounds):
                for name in CONTENDERS if turn % 2 == 0 else CONTENDERS[::-1]:
                    barrier.wait(_START_TIMEOUT_S)
                    latencies[name].append(_round(contenders[name], queries, round_s))
        answers.put(latencies)
    except BaseException as error:
        answers.put(f"{type(error).__name__}: {error}")
        raise


def _round(find: Find, queries: Sequence[tuple[Any, str]], round_s: float) -> list[float]:
    latencies = []
    end = time.perf_counter() + round_s
    at = 0
    while (began := time.perf_counter()) < end:
        find(*queries[at % len(queries)])
        latencies.append(time.perf_counter() - began)
        at += 1
    return latencies


def _contenders(stack: ExitStack, plugin: str) -> dict[str, Find]:
    connection = stack.enter_context(database.connect(autocommit=True))
    release = live_release(connection, plugin)
    assert release is not None

    def ours(vector: Any, text: str) -> list[tuple[str, float]]:
        with search_connection() as session:
            hits = search(session, release.collection, vector, limit=LIMIT)
        return [(hit.object_id, hit.distance) for hit in hits]

    def both(vector: Any, text: str) -> list[tuple[str, float]]:
        with search_connection() as session:
            hits = search(session, release.collection, vector, text=text, limit=LIMIT)
        return [(hit.object_id, hit.distance) for hit in hits]

    def whole(vector: Any, text: str) -> list[tuple[str, float]]:
        async def find(serving: Serving) -> list[SearchHit]:
            with search_connection() as session:
                return search(session, serving.release.collection, vector, limit=LIMIT, while_live=serving)

        async def read_now(name: str) -> Serving:
            return read(name)

        return [(hit.object_id, hit.distance) for hit in run(answer(plugin, find, read_now))[1]]

    return {BARE: by_hand(connection, release), OURS: ours, WHOLE: whole, BOTH: both}


def by_hand(connection: psycopg.Connection, release: Release) -> Find:
    """Return the search that one writes by hand: one prepared statement on a connection of its own."""
    register_vectors(connection)
    connection.execute(f"SET hnsw.ef_search = {_breadth(release)}")
    collection = release.collection
    statement = (
        f'SELECT p.object_id, p.embedding <=> %(q)s AS distance, o.payload FROM estudio."{collection.name("parts")}" p'
        f' JOIN estudio."{collection.name("objects")}" o USING (object_id) WHERE p.user_id IS NULL'
        f" ORDER BY p.embedding <=> %(q)s LIMIT {LIMIT}"
    )

    def bare(vector: Any, text: str) -> list[tuple[str, float]]:
        rows = connection.execute(statement, {"q": Vector(vector)}, prepare=True).fetchall()
        return [(object_id, distance) for object_id, distance, _ in rows]

    return bare


def _breadth(release: Release) -> int:
    return release.collection.ef_search or release.index_info.hnsw.ef_search


def _answer(answers: Any, workers: Sequence[Any], busy_s: float) -> dict[str, list[list[float]]]:
    found = answers.get(timeout=busy_s + 2 * _START_TIMEOUT_S)
    if isinstance(found, str):
        for worker in workers:
            worker.kill()
        raise RuntimeError(f"A client of the search benchmark failed: {found}")
    return found
