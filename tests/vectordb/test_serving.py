"""Which release answers: the one that is live in the snapshot of the search, without reading the pointer first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import psycopg
import pytest

from estudio_core.errors import DatabaseUnavailableError, NothingLiveError, ReleaseMovedError
from estudio_core.vectordb import serving as serving_module
from estudio_core.vectordb.hits import SearchHit
from estudio_core.vectordb.index_build import build_index
from estudio_core.vectordb.index_info import SearchIndexInfo
from estudio_core.vectordb.objects import IndexedObject
from estudio_core.vectordb.releases import Release, mark_built, start_release
from estudio_core.vectordb.search import search
from estudio_core.vectordb.search_session import search_connection
from estudio_core.vectordb.serving import REMEMBERED_S, Serving, answer, read
from estudio_core.vectordb.statements import run
from estudio_core.vectordb.switching import rollback, switch
from estudio_core.vectordb.verification import verify_release

VECTOR = [1, 0, 0]


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_module, "_remembered", {})


def answered(plugin: str, find: Callable[[Serving], list[SearchHit]]) -> tuple[Release, list[SearchHit]]:
    """Return what is live and what `find` finds in it, as a blocking search does."""

    async def reading(name: str) -> Serving:
        return serving_module.read(name)

    async def finding(serving: Serving) -> list[SearchHit]:
        return find(serving)

    return run(answer(plugin, finding, reading))


def released(conn: psycopg.Connection, run_id: str) -> Release:
    """Make a release live whose 60 objects say which one it is."""
    release = start_release(conn, "shop", "shop_v1", "1", SearchIndexInfo(dimensions=3), run_id)
    vectors = np.random.default_rng(1).standard_normal((60, 1, 3)).astype(np.float32)
    items = [IndexedObject(str(number), {"run": run_id}, "h", vector) for number, vector in enumerate(vectors)]
    release.collection.copy_objects(conn, items)
    build_index(conn, release.collection)
    release = mark_built(conn, release)
    verify_release(conn, release, vectors[:5, 0], 60)
    return switch(conn, release, embed_nothing)


def embed_nothing(*_: object) -> list[IndexedObject]:
    return []


def found(serving: Serving, **how: object) -> list[SearchHit]:
    with search_connection() as session:
        return search(session, serving.release.collection, VECTOR, while_live=serving, **how)  # type: ignore[arg-type]


def runs(hits: list[SearchHit]) -> set[str]:
    return {hit.payload["run"] for hit in hits}


@pytest.mark.parametrize("how", [{"by_index": True}, {}, {"exact": True}, {"sort_by": "run", "max_distance": 1.0}])
def test_a_search_finds_nothing_in_a_release_that_is_not_live_any_more(
    conn: psycopg.Connection, how: dict[str, object]
) -> None:
    released(conn, "first")
    first = read("shop")
    assert runs(found(first, **how)) == {"first"}
    released(conn, "second")
    with pytest.raises(ReleaseMovedError, match="Release 1 of 'shop' is not live any more"):
        found(first, **how)
    rollback(conn, "shop", embed_nothing)
    with pytest.raises(ReleaseMovedError):
        found(first, **how)  # live again, but not since that pointer was read: what was written meanwhile is unknown
    assert runs(found(read("shop"), **how)) == {"first"}


def test_every_answer_comes_from_what_is_live_then(conn: psycopg.Connection) -> None:
    with pytest.raises(NothingLiveError):
        answered("shop", found)
    for run_id in ("first", "second", "third"):
        release = released(conn, run_id)
        for _ in range(2):
            answering, hits = answered("shop", lambda serving: found(serving, by_index=True))
            assert (answering.release_id, runs(hits)) == (release.release_id, {run_id})


def test_the_pointer_is_read_once_and_again_after_a_pause(
    conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    released(conn, "first")
    reads = []
    monkeypatch.setattr(serving_module, "read", lambda plugin: reads.append(plugin) or read(plugin))
    for _ in range(3):
        answered("shop", found)
    assert reads == ["shop"]
    serving, searched_at = serving_module._remembered["shop"]
    serving_module._remembered["shop"] = serving, searched_at - REMEMBERED_S - 1
    answered("shop", found)
    assert reads == ["shop", "shop"]


def test_an_error_of_the_live_release_is_raised_and_one_of_an_older_release_is_not(conn: psycopg.Connection) -> None:
    released(conn, "first")
    asked: list[int] = []

    def failing(serving: Serving) -> list[SearchHit]:
        asked.append(serving.release.release_id)
        if serving.release.release_id == 1:
            raise ReleaseMovedError("its model was unloaded")
        return found(serving)

    with pytest.raises(ReleaseMovedError, match="its model was unloaded"):
        answered("shop", failing)
    assert asked == [1]
    answered("shop", found)
    released(conn, "second")
    answering, _ = answered("shop", failing)
    assert (answering.release_id, asked) == (2, [1, 1, 2])


def test_a_database_that_is_away_is_not_asked_twice(conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    released(conn, "first")
    answered("shop", found)
    monkeypatch.setattr(serving_module, "read", lambda plugin: pytest.fail("the pointer was read"))

    def away(serving: Serving) -> list[SearchHit]:
        raise DatabaseUnavailableError("no connection within 15 s")

    with pytest.raises(DatabaseUnavailableError):
        answered("shop", away)
