"""Search sessions: the same answers as on any connection, whatever the search asks for and whatever a pooler does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

from estudio_core.vectordb import first_page as first_page_module
from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.index_build import build_index
from estudio_core.vectordb.index_info import MetricAggregationType, SearchIndexInfo
from estudio_core.vectordb.objects import IndexedObject
from estudio_core.vectordb.search import search
from estudio_core.vectordb.search_session import SETTINGS, is_search_session, search_connection

EAST = [1, 0, 0, 0, 0, 0]
SEARCHES: dict[str, dict[str, Any]] = {
    "first page": {"by_index": True},
    "narrow": {"by_index": True, "ef_search": 50},
    "later page": {"by_index": True, "offset": 40},
    "filter": {"filter": {"term": {"colour": "red"}}},
    "exact": {"exact": True, "limit": 30},
    "sorted": {"sort_by": "n", "max_distance": 0.8},
    "hybrid": {"text": "lamp"},
    "personal": {"user_id": "ann", "by_index": True},
}


@pytest.fixture(params=list(MetricAggregationType))
def collection(conn: psycopg.Connection, request: pytest.FixtureRequest) -> Collection:
    made = Collection("shop_1", SearchIndexInfo(dimensions=6, metric_aggregation_type=request.param))
    made.create(conn)
    made.copy_objects(conn, [item(number) for number in range(120)])
    build_index(conn, made)
    return made


@pytest.fixture
def session(estudio_home: object) -> Iterator[psycopg.Connection]:
    with search_connection() as borrowed:
        yield borrowed


def item(number: int, parts: int = 1) -> IndexedObject:
    vectors = np.random.default_rng(number).standard_normal((parts, 6)).astype(np.float32)
    colour = "red" if number % 3 else "blue"
    return IndexedObject(str(number), {"n": number, "colour": colour}, "h", vectors, text=f"a {colour} lamp")


def shown(conn: psycopg.Connection, names: list[str]) -> list[str]:
    return [conn.execute(f"SHOW {name}").fetchone()[0] for name in names]  # type: ignore[index]


@pytest.mark.parametrize("way", SEARCHES)
def test_it_answers_as_any_other_connection_and_keeps_its_settings(
    conn: psycopg.Connection, session: psycopg.Connection, collection: Collection, way: str
) -> None:
    before = shown(session, list(SETTINGS))
    assert before == list(SETTINGS.values())
    for vector in np.random.default_rng(4).standard_normal((3, 6)):
        found = search(session, collection, vector, **SEARCHES[way])
        assert found == search(conn, collection, vector, **SEARCHES[way])
        assert found
    assert shown(session, list(SETTINGS)) == before
    assert not is_search_session(conn)


def test_a_first_page_is_one_statement(
    session: psycopg.Connection, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    search(session, collection, EAST, by_index=True)
    execute, sent = session.execute, []

    def noted(statement: Any, *args: Any, **how: Any) -> Any:
        sent.append(statement)
        return execute(statement, *args, **how)

    monkeypatch.setattr(session, "execute", noted)
    search(session, collection, EAST, by_index=True)
    assert len(sent) == 1


def test_each_search_has_the_breadth_that_it_asks_for(session: psycopg.Connection, collection: Collection) -> None:
    for breadth in (50, 400, 50):
        search(session, collection, EAST, by_index=True, ef_search=breadth)
        assert shown(session, ["hnsw.ef_search"]) == [str(breadth)]


@pytest.mark.parametrize("collection", [MetricAggregationType.MIN], indirect=True)
def test_an_object_of_several_parts_is_found_by_its_nearest_one_from_its_first_moment_on(
    conn: psycopg.Connection, session: psycopg.Connection, collection: Collection
) -> None:
    search(session, collection, EAST, by_index=True)
    assert not first_page_module._shapes[collection].several
    far, near = [-1, 0, 0, 0, 0, 0], EAST
    collection.upsert_objects(conn, [IndexedObject("new", {}, "h", np.array([far, near], np.float32))])
    best = search(session, collection, EAST, by_index=True)[0]
    assert (best.object_id, best.part, round(best.distance, 6)) == ("new", 1, 0)
    assert first_page_module._shapes[collection].several
    assert search(session, collection, EAST, by_index=True) == search(conn, collection, EAST, exact=True)


@pytest.mark.parametrize("collection", [MetricAggregationType.MIN], indirect=True)
def test_a_collection_without_the_index_of_parts_is_taken_to_have_several(
    conn: psycopg.Connection, session: psycopg.Connection, collection: Collection
) -> None:
    conn.execute(f'DROP INDEX estudio."{collection.name("several")}"'.encode())
    assert search(session, collection, EAST, by_index=True) == search(conn, collection, EAST, exact=True)
    assert first_page_module._shapes[collection].several
