"""Releases over one collection: another model encodes queries, and items stay where they are."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest

from estudio_core.errors import ReleaseError
from estudio_core.vectordb.catching_up import pending, prune
from estudio_core.vectordb.releases import (
    ItemModel,
    Release,
    fail_release,
    get_release,
    live_release,
    start_release,
)
from estudio_core.vectordb.switching import retire_releases, rollback, switch
from estudio_core.vectordb.verification import verify_release

from .test_releases import INFO, content, embed, live, put, vector


def over(conn: psycopg.Connection, run: str) -> Release:
    """Return a verified release of another query model over the collection that is live."""
    serving = live_release(conn, "shop")
    assert serving is not None
    items = ItemModel(serving.item_model_name, serving.item_model_version)
    release = start_release(conn, "shop", f"shop_{run}", run, INFO, run, items=items, over=serving)
    verify_release(conn, release, np.vstack([vector("a question", release.model_name)]), None)
    return get_release(conn, release.release_id)


def test_it_takes_the_live_collection_as_it_is(conn: psycopg.Connection) -> None:
    first = live(conn, "one", {"a": "x", "b": "y"})
    put(conn, c="z")
    second = switch(conn, over(conn, "two"), embed)
    assert (second.collection_id, second.built_by) == (first.collection_id, first.release_id)
    assert (second.model_name, second.item_model_name, second.models) == (
        "shop_two", "shop_one", ("shop_two", "shop_one"),
    )  # fmt: skip
    assert content(conn, second) == {"a": "x", "b": "y", "c": "z"}
    assert second.stats["objects"] == first.stats["objects"]
    assert second.stats["queries"] == 1
    tables = conn.execute("SELECT count(*) FROM pg_tables WHERE tablename LIKE 'c\\_shop\\_%\\_objects'").fetchone()
    assert tables == (1,)


def test_writes_of_either_release_are_in_both_and_are_applied_once(conn: psycopg.Connection) -> None:
    first = live(conn, "one", {"a": "x"})
    second = switch(conn, over(conn, "two"), embed)
    put(conn, a="newer", b="y")

    def never(*_: object) -> list[object]:
        raise AssertionError("the collection has every write already")

    assert pending(conn, first) == []
    back = rollback(conn, "shop", never)  # type: ignore[arg-type]
    assert back.release_id == first.release_id
    assert content(conn, back) == {"a": "newer", "b": "y"}
    again = rollback(conn, "shop", never)  # type: ignore[arg-type]
    assert (again.release_id, again.model_name) == (second.release_id, "shop_two")


def test_the_log_is_kept_for_no_collection_that_has_it(conn: psycopg.Connection) -> None:
    live(conn, "one", {"a": "x"})
    switch(conn, over(conn, "two"), embed)
    put(conn, a="newer", b="y")
    assert prune(conn, "shop") == 2


def test_both_lack_what_was_written_while_another_collection_was_live(conn: psycopg.Connection) -> None:
    first = live(conn, "one", {"a": "x"})
    second = switch(conn, over(conn, "two"), embed)
    put(conn, b="y")
    live(conn, "three", {"a": "x", "b": "y"})
    put(conn, a="newer")
    assert [[e.object_id for e in pending(conn, release)] for release in (first, second)] == [["a"], ["a"]]
    assert prune(conn, "shop") == 1  # of b, which the collection got while it was live
    back = rollback(conn, "shop", embed, second)
    assert content(conn, back) == {"a": "newer", "b": "y"}
    assert pending(conn, first) == []
    row = conn.execute("SELECT count(DISTINCT applied_seq) FROM estudio.deployments WHERE run_id <> 'three'").fetchone()
    assert row == (1,)


def test_a_collection_is_dropped_with_the_last_release_that_names_it(conn: psycopg.Connection) -> None:
    first = live(conn, "one", {"a": "x"})
    for run in ("two", "three"):
        switch(conn, over(conn, run), embed)
    assert retire_releases(conn, "shop", 2) == []
    assert get_release(conn, first.release_id).state == "retired"
    assert first.collection.exists(conn)
    for run in ("four", "five"):
        live(conn, run, {"a": "x"})
    assert [r.built_by for r in retire_releases(conn, "shop", 2)] == [first.release_id]
    assert not first.collection.exists(conn)


def test_one_that_failed_drops_nothing_and_begins_again_over_what_is_live(conn: psycopg.Connection) -> None:
    first = live(conn, "one", {"a": "x"})
    second = over(conn, "two")
    fail_release(conn, second, "no reason")
    assert retire_releases(conn, "shop", 2) == []
    assert content(conn, first) == {"a": "x"}
    again = over(conn, "two")
    assert (again.release_id, again.state, content(conn, again)) == (second.release_id, "verified", {"a": "x"})
    fail_release(conn, again, "no reason")
    live(conn, "three", {"a": "x"})
    with pytest.raises(ReleaseError, match="is not live any more"):
        start_release(conn, "shop", "shop_two", "two", INFO, "two", items=ItemModel("shop_one", "one"))


def test_vectors_of_another_model_are_not_taken_for_those_of_the_items(conn: psycopg.Connection) -> None:
    serving = live(conn, "one", {"a": "x"})
    with pytest.raises(ReleaseError, match="holds vectors of another model than 'shop_two'"):
        start_release(conn, "shop", "shop_two", "two", INFO, "run", over=serving)


def test_code_that_knows_one_model_only_is_refused_from_the_first_release_of_two_on(conn: psycopg.Connection) -> None:
    serves_from = "SELECT serves_from FROM estudio.alembic_version"
    conn.execute("UPDATE estudio.alembic_version SET serves_from = '0001'")  # as if the tables served all code
    live(conn, "one", {"a": "x"})
    assert conn.execute(serves_from).fetchone() == ("0001",)
    over(conn, "two")
    assert conn.execute(serves_from).fetchone() == ("0003",)
