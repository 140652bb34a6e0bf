"""A query far from all that its filter leaves finds the nearest of that, as often as the index promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from estudio_core import database
from estudio_core.lexical.settings import Bm25Settings
from estudio_core.vectordb import ordering
from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.index_build import build_index
from estudio_core.vectordb.index_info import SearchIndexInfo
from estudio_core.vectordb.objects import IndexedObject
from estudio_core.vectordb.payload_filters import drawn_filters
from estudio_core.vectordb.search import search
from tests.database_templates import DatabaseTemplates

OBJECTS, DIMENSIONS, CLUSTERS = 12_000, 64, 30
COLLECTION = Collection("clusters", SearchIndexInfo(dimensions=DIMENSIONS, lexical=Bm25Settings()))


@pytest.fixture(scope="module")
def drawn() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A vector of each object, and its cluster."""
    rng = np.random.default_rng(5)
    of = rng.integers(0, CLUSTERS, OBJECTS)
    vectors = (rng.normal(size=(CLUSTERS, DIMENSIONS))[of] + 0.6 * rng.normal(size=(OBJECTS, DIMENSIONS))).astype("f4")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors, of


@pytest.fixture
def database_template(
    database_templates: DatabaseTemplates, drawn: tuple[NDArray[np.float32], NDArray[np.int64]]
) -> str:
    """A database with the indexed collection, made once."""
    vectors, of = drawn

    def fill(url: str) -> None:
        database.migrate(url)
        with database.connect(url, autocommit=True) as conn:
            COLLECTION.create(conn)
            COLLECTION.copy_objects(
                conn,
                (
                    IndexedObject(
                        f"{i:05}", {"c": int(of[i]), "half": "ab"[int(of[i]) % 2], "x": i % 7}, "h", vectors[i : i + 1],
                        text=f"word{i % 50} cluster{of[i]}",
                    )
                    for i in range(OBJECTS)
                ),
            )  # fmt: skip
            build_index(conn, COLLECTION)

    return database_templates.made("clusters", fill)


@pytest.fixture
def clusters(
    drawn: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> tuple[Collection, NDArray[np.float32], NDArray[np.int64]]:
    return COLLECTION, *drawn


@pytest.mark.parametrize("text", [None, "word7"])
def test_the_nearest_are_found_however_few_of_what_is_near_the_filter_leaves(
    conn: psycopg.Connection, clusters: tuple[Collection, NDArray[np.float32], NDArray[np.int64]], text: str | None
) -> None:
    collection, vectors, of = clusters
    rng = np.random.default_rng(6)
    for kept in (2, 6, 10, 20, 29):
        shares = []
        for query in vectors[rng.choice(np.flatnonzero(of >= kept), 12)]:
            filter = {"range": {"c": {"lt": kept}}}
            exact, found = (
                search(conn, collection, query, filter=filter, text=text, exact=each) for each in (True, False)
            )
            shares.append(len({hit.object_id for hit in exact} & {hit.object_id for hit in found}) / len(exact))
        assert np.mean(shares) >= 0.95, kept
        assert min(shares) >= 0.7, kept


def test_pages_of_a_far_query_are_disjoint_and_complete(
    conn: psycopg.Connection, clusters: tuple[Collection, NDArray[np.float32], NDArray[np.int64]]
) -> None:
    collection, vectors, of = clusters
    filter = {"range": {"c": {"gt": 0, "lt": 20}}}
    pages = [
        search(conn, collection, vectors[of == 0][0], filter=filter, limit=1_000, offset=offset)
        for offset in range(0, OBJECTS, 1_000)
    ]
    ids = [hit.object_id for page in pages for hit in page]
    assert len(ids) == len(set(ids)) == int(((of > 0) & (of < 20)).sum())


def test_how_far_the_index_is_followed_depends_on_what_is_near(
    conn: psycopg.Connection, clusters: tuple[Collection, NDArray[np.float32], NDArray[np.int64]]
) -> None:
    from pgvector import Vector

    from estudio_core.vectordb.filters import parse_filter
    from estudio_core.vectordb.statements import Blocking, run

    collection, vectors, of = clusters
    register = search(conn, collection, vectors[0], limit=1)
    assert register

    def reach(cluster: int, filter: dict[str, object] | None) -> int:
        parsed = None if filter is None else parse_filter(filter)
        query = Vector(vectors[of == cluster][0])
        return run(ordering.reach(Blocking(conn), ordering.Request(collection, query, parsed, None, None)))

    assert reach(0, None) == ordering.FIRST_BLOCK
    assert reach(0, {"range": {"x": {"lt": 3}}}) == ordering.FIRST_BLOCK, "has nothing to do with what is near"
    assert reach(0, {"range": {"c": {"lt": 20}}}) == ordering.FIRST_BLOCK, "leaves what is near"
    assert reach(25, {"range": {"c": {"lt": 20}}}) == ordering.FAR_BLOCK
    assert reach(25, {"range": {"c": {"lt": 8}}}) == 0, "few enough to compare all"


def test_filters_are_drawn_from_the_payload(
    conn: psycopg.Connection, clusters: tuple[Collection, NDArray[np.float32], NDArray[np.int64]]
) -> None:
    collection, _, _ = clusters
    on_number, on_text, on_seven = drawn_filters(conn, collection)
    assert on_number["range"]["field"] == ["c"]
    assert 10 < on_number["range"]["value"]["lt"] < 20
    assert on_text["term"]["value"] in "ab"
    assert on_seven["range"]["field"] == ["x"]


AWAY: dict[str, Callable[[int], dict[str, Any]]] = {
    "all but what is near": lambda c: {"bool": {"must_not": [{"term": {"c": c}}]}},
    "the other half": lambda c: {"term": {"half": "ab"[(c + 1) % 2]}},
    "two others, or some of all": lambda c: {
        "bool": {"should": [{"terms": {"c": [(c + 1) % CLUSTERS, (c + 9) % CLUSTERS]}}, {"term": {"x": 3}}]}
    },
    "a few far ones": lambda c: {"bool": {"must": [{"term": {"c": (c + 5) % CLUSTERS}}, {"term": {"x": 3}}]}},
    "most": lambda c: {"bool": {"must_not": [{"term": {"c": (c + 1) % CLUSTERS}}]}},
    "none": lambda c: {"term": {"c": CLUSTERS}},
}


def test_the_nearest_are_found_with_personal_rows_and_words_and_after_most_rows_are_gone(
    conn: psycopg.Connection, clusters: tuple[Collection, NDArray[np.float32], NDArray[np.int64]]
) -> None:
    collection, vectors, of = clusters
    rng = np.random.default_rng(7)
    moved = rng.permutation(OBJECTS)[:2_000]
    collection.upsert_objects(
        conn,
        [
            IndexedObject(f"own {i}", None, "h", vectors[[(i + 1) % OBJECTS]], user_id="u", original_id=f"{i:05}")
            for i in moved
        ],
    )
    queries = rng.choice(OBJECTS, 4)

    def check(user_id: str | None, text: str | None) -> None:
        for name, filter in AWAY.items():
            shares = []
            for i in queries:
                given = {"filter": filter(int(of[i])), "user_id": user_id, "text": text}
                exact, found = (search(conn, collection, vectors[i], exact=each, **given) for each in (True, False))
                assert len(found) == len(exact), (name, user_id, text)
                same = {hit.object_id for hit in exact} & {hit.object_id for hit in found}
                shares.append(len(same) / len(exact) if exact else 1.0)
            assert np.mean(shares) >= 0.95, (name, user_id, text, shares)
            assert len(exact) == (0 if name == "none" else 10)

    for user_id, text in ((None, None), ("u", None), ("u", "word7 cluster3")):
        check(user_id, text)
    gone = [f"{i:05}" for i in range(OBJECTS) if i % 7 != 3]
    collection.delete_objects(conn, gone)
    for user_id in (None, "u"):
        check(user_id, None)
