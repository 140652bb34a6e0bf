"""The first page in one round trip: the same answer as the longer way, and nothing left behind on the connection."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest

from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.first_page import first_page
from estudio_core.vectordb.index_build import build_index
from estudio_core.vectordb.index_info import MetricAggregationType, SearchIndexInfo
from estudio_core.vectordb.objects import IndexedObject
from estudio_core.vectordb.ordering import FIRST_BLOCK
from estudio_core.vectordb.search import search

SETTINGS = ("hnsw.ef_search", "hnsw.iterative_scan", "enable_seqscan", "enable_sort", "jit")


@pytest.fixture(params=list(MetricAggregationType))
def collection(conn: psycopg.Connection, request: pytest.FixtureRequest) -> Collection:
    info = SearchIndexInfo(dimensions=6, metric_aggregation_type=request.param)
    made = Collection("shop_1", info)
    rng = np.random.default_rng(3)
    made.create(conn)
    made.copy_objects(
        conn,
        [
            IndexedObject(
                str(number),
                {"n": number},
                "h",
                rng.standard_normal((1 + number % 3, 6)).astype(np.float32),
                text=f"a lamp of size{number % 7}",
            )
            for number in range(120)
        ],
    )
    build_index(conn, made)
    return made


@pytest.mark.parametrize(
    ("limit", "offset", "far", "text"),
    [
        (10, 0, None, None),
        (5, 10, None, None),
        (8, 0, 0.6, None),
        (31, 0, None, None),
        (10, 0, None, "lamp size3"),
        (4, 6, None, "size3 size5"),
        (8, 0, 0.6, "size3"),
        (10, 0, None, "words that nothing holds"),
    ],
)
def test_it_answers_as_the_longer_way_does(
    conn: psycopg.Connection, collection: Collection, limit: int, offset: int, far: float | None, text: str | None
) -> None:
    asked = {"limit": limit, "offset": offset, "max_distance": far, "by_index": True, "text": text}
    for vector in np.random.default_rng(4).standard_normal((5, 6)):
        found = search(conn, collection, vector, **asked)
        with conn.transaction():
            assert found == search(conn, collection, vector, **asked)
        assert found


def test_it_is_the_way_that_first_pages_go(
    conn: psycopg.Connection, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []

    async def noted(*args: object, **how: object) -> object:
        answers.append(await first_page(*args, **how))  # type: ignore[arg-type]
        return answers[-1]

    monkeypatch.setattr("estudio_core.vectordb.search.first_page", noted)
    hits = search(conn, collection, [1, 0, 0, 0, 0, 0], by_index=True)
    assert answers == [hits]
    search(conn, collection, [1, 0, 0, 0, 0, 0], by_index=True, offset=FIRST_BLOCK)
    search(conn, collection, [1, 0, 0, 0, 0, 0])
    assert answers[1:] == [None, None], "a later page, and a collection small enough to compare all of it"
    narrow = search(conn, collection, [1, 0, 0, 0, 0, 0], by_index=True, ef_search=FIRST_BLOCK - 1)
    assert answers[3:] == [None], "a scan that would have to go on to fill the block"
    assert len(narrow) == 10
    fused = search(conn, collection, [1, 0, 0, 0, 0, 0], by_index=True, text="lamp size3")
    assert answers[4:] == [fused]
    search(conn, collection, [1, 0, 0, 0, 0, 0], by_index=True, text="lamp size3", limit=11)
    assert answers[5:] == [None], "beyond the first places of words and vectors"


def test_a_block_that_is_not_full_is_not_taken_for_the_order(conn: psycopg.Connection, collection: Collection) -> None:
    """Deleted rows leave the index's answer short; what an iterative scan finds beyond it belongs to the page."""
    collection.delete_objects(conn, [str(number) for number in range(110)])
    hits = search(conn, collection, [1, 0, 0, 0, 0, 0], by_index=True)
    assert sorted(hit.object_id for hit in hits) == [str(number) for number in range(110, 120)]
    assert hits == search(conn, collection, [1, 0, 0, 0, 0, 0], exact=True)


def test_settings_of_a_search_end_with_it_also_when_it_fails(conn: psycopg.Connection, collection: Collection) -> None:
    def settings() -> list[str]:
        return [conn.execute(f"SHOW {name}").fetchone()[0] for name in SETTINGS]  # type: ignore[index]

    search(conn, collection, [1, 0, 0, 0, 0, 0], by_index=True)
    before = settings()
    assert before[2:] == ["on", "on", "on"]
    search(conn, collection, [1, 0, 0, 0, 0, 0], by_index=True, ef_search=77)
    assert settings() == before
    collection.drop(conn)
    with pytest.raises(psycopg.errors.UndefinedTable):
        search(conn, collection, [1, 0, 0, 0, 0, 0], by_index=True)
    assert settings() == before
