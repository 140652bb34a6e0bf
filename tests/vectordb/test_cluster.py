"""Nothing is lost when the database moves, the log stays short, and a switch holds nobody up for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psycopg
import pytest

from estudio_core.errors import ConcurrentReleaseError, ReleaseError
from estudio_core.vectordb.change_log import ItemWrite, write
from estudio_core.vectordb.cluster import settle_cluster, settle_for_write
from estudio_core.vectordb.locks import SWITCH_TRY_S, lock_objects, share_switch
from estudio_core.vectordb.releases import get_release, mark_built, start_release
from estudio_core.vectordb.switching import keep_log_short, rollback, switch
from tests.vectordb.test_releases import INFO, content, embed, live, verified


def moved(conn: psycopg.Connection) -> None:
    """Make it look as after a restore into a cluster where transactions have far lower numbers."""
    conn.execute("UPDATE estudio.cluster SET identifier = 'another'")
    conn.execute("UPDATE estudio.deployments SET applied_xid = '99999999999'")
    conn.execute("UPDATE estudio.change_log SET xid = '88888888888'")


def test_what_is_written_after_a_move_is_there_after_a_rollback(conn: psycopg.Connection) -> None:
    live(conn, "one", {"a": "x"})
    live(conn, "two", {"a": "x"})
    write(conn, "shop", [ItemWrite("a", "before")], [], embed)
    moved(conn)
    write(conn, "shop", [ItemWrite("b", "after")], [], embed)
    assert keep_log_short(conn, "shop", embed) == 2, "both are in both collections now"
    write(conn, "shop", [ItemWrite("c", "later")], [], embed)
    assert content(conn, rollback(conn, "shop", embed)) == {"a": "before", "b": "after", "c": "later"}
    assert not settle_cluster(conn)


@pytest.mark.parametrize("search_path", ["public", "estudio, public"])  # a login of the schema's name has the second
def test_a_sequence_that_did_not_move_along_gives_no_number_twice(conn: psycopg.Connection, search_path: str) -> None:
    live(conn, "one", {"a": "x"})
    for number in range(5):
        write(conn, "shop", [ItemWrite("a", f"x{number}")], [], embed)
    live(conn, "two", {"a": "x4"})
    moved(conn)
    conn.execute("DELETE FROM estudio.change_log")  # what is left of it says nothing of the marks
    conn.execute("SELECT setval('estudio.change_log_seq_seq', 1, false)")
    conn.execute("SELECT set_config('search_path', %s, false)", (search_path,))
    settle_cluster(conn)
    conn.execute("SELECT set_config('search_path', 'public', false)")
    write(conn, "shop", [ItemWrite("b", "new")], [], embed)
    assert content(conn, rollback(conn, "shop", embed)) == {"a": "x4", "b": "new"}


def test_what_a_caller_took_back_is_settled_again(conn: psycopg.Connection) -> None:
    live(conn, "one", {"a": "x"})
    moved(conn)
    conn.execute("SELECT setval('estudio.change_log_seq_seq', 1, false)")
    with conn.transaction(force_rollback=True):
        settle_for_write(conn)
    settle_for_write(conn)
    assert conn.execute("SELECT count(*) FROM estudio.cluster WHERE identifier = 'another'").fetchone() == (0,)
    [(last,)] = conn.execute("SELECT last_value FROM estudio.change_log_seq_seq").fetchall()
    assert last >= conn.execute("SELECT max(applied_seq) FROM estudio.deployments").fetchone()[0]  # type: ignore[index]


def test_a_build_under_way_fails_aloud(conn: psycopg.Connection) -> None:
    live(conn, "one", {"a": "x"})
    building = start_release(conn, "shop", "shop_two", "two", INFO, "two")
    moved(conn)
    with pytest.raises(ReleaseError, match="moved to another cluster"):
        mark_built(conn, building)
    ready = verified(conn, "three", {"a": "x"})
    moved(conn)
    with pytest.raises(ReleaseError, match="moved to another cluster"):
        switch(conn, ready, embed)
    assert get_release(conn, building.release_id).state == "failed"


def test_the_log_of_an_item_that_changes_often_is_short(conn: psycopg.Connection) -> None:
    live(conn, "one", {"a": "x"})
    live(conn, "two", {"a": "x"})
    for number in range(60):
        write(conn, "shop", [ItemWrite("a", f"price {number}")], [], embed)
    assert keep_log_short(conn, "shop", embed) == 60
    assert conn.execute("SELECT count(*) FROM estudio.change_log").fetchone() == (0,)
    assert content(conn, rollback(conn, "shop", embed)) == {"a": "price 59"}


def test_a_switch_that_meets_an_open_transaction_keeps_writers_waiting_for_moments_only(
    conn: psycopg.Connection, other: Callable[[], psycopg.Connection]
) -> None:
    live(conn, "one", {"a": "x"})
    ready = verified(conn, "two", {"a": "x"})
    failed: list[Exception] = []

    def switching() -> None:
        with other() as second:
            try:
                switch(second, ready, embed, lock_timeout_s=2.5)
            except ConcurrentReleaseError as error:
                failed.append(error)

    waits = []
    with other() as holder, holder.transaction():
        share_switch(holder, "shop")
        thread = threading.Thread(target=switching)
        thread.start()
        while thread.is_alive():
            began = time.monotonic()
            write(conn, "shop", [ItemWrite("b", "new")], [], embed)
            waits.append(time.monotonic() - began)
        thread.join()
    assert failed
    assert len(waits) > 5
    assert sorted(waits)[len(waits) // 2] < SWITCH_TRY_S
    assert max(waits) < 5 * SWITCH_TRY_S + 0.5
    assert content(conn, switch(conn, ready, embed)) == {"a": "x", "b": "new"}


def test_a_batch_leaves_most_locks_of_objects_to_others(conn: psycopg.Connection) -> None:
    with conn.transaction():
        lock_objects(conn, "shop", [str(number) for number in range(128)])
        row = conn.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone()
    assert row is not None
    assert 110 < row[0] <= 128
