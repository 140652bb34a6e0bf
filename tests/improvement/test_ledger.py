"""Moved vectors in a live collection: nothing else of an object changes, and personal rows of the application stay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest

from estudio_core import database
from estudio_core.improvement import ledger
from estudio_core.improvement.ledger import MovedObject
from estudio_core.vectordb.objects import IndexedObject
from estudio_core.vectordb.releases import Release
from estudio_core.vectordb.search import find_by_ids, search
from tests.vectordb.test_releases import live

BASE, MOVED = np.eye(8)[:2], np.eye(8)[2:4]


@pytest.fixture
def conn(estudio_home: Path) -> Iterator[psycopg.Connection]:
    with database.connect(autocommit=True) as connection:
        yield connection


@pytest.fixture
def release(conn: psycopg.Connection) -> Release:
    made = live(conn, "one", {"a": "x", "b": "y"})
    made.collection.upsert_objects(
        conn, [IndexedObject("a", {"price": 3}, "h", BASE, text="red lamp", source_hash="row of a")]
    )
    return made


def test_a_moved_object_keeps_its_words_its_payload_and_the_row_that_it_comes_from(
    conn: psycopg.Connection, release: Release
) -> None:
    (first, _) = search(conn, release.collection, BASE[0], text="lamp")
    words = first.words
    assert words

    def check(vectors: np.ndarray) -> None:
        (stored,) = find_by_ids(conn, release.collection, ["a"], with_vectors=True)
        assert stored.vectors is not None
        assert (stored.vectors == vectors).all()
        assert (stored.payload, stored.content_hash) == ({"price": 3}, "h")
        assert release.collection.source_hashes(conn, ["a"]) == {"a": "row of a"}
        (first, _) = search(conn, release.collection, vectors[0], text="lamp")
        assert (first.object_id, first.words) == ("a", words)

    check(BASE)
    with conn.transaction():
        assert ledger.apply(conn, release, [MovedObject("a", None, "h", BASE, MOVED)]) == 1
    check(MOVED)
    with conn.transaction():
        assert ledger.take_back(conn, release) == 1
    check(BASE)


def test_a_personal_row_of_the_application_is_not_moved(conn: psycopg.Connection, release: Release) -> None:
    release.collection.upsert_objects(conn, [IndexedObject("own", {"mine": True}, "h", BASE, "ann", "a")])
    moved = [MovedObject("a", user, "h", BASE, MOVED) for user in ("ann", "bob")]
    with conn.transaction():
        assert ledger.apply(conn, release, moved) == 1
    (stored,) = find_by_ids(conn, release.collection, ["a"], user_id="ann")
    assert (stored.object_id, stored.payload) == ("own", {"mine": True})
    (stored,) = find_by_ids(conn, release.collection, ["a"], user_id="bob")
    assert stored.object_id == "a\x1fbob"
    with conn.transaction():
        assert ledger.take_back(conn, release) == 1
    assert [find_by_ids(conn, release.collection, ["a"], user_id=u)[0].object_id for u in ("ann", "bob")] == [
        "own",
        "a",
    ]
