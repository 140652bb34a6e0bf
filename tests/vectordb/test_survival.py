"""What survives: writes overtaken by releases, personal rows, locks of killed builders."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import psycopg
import pytest

from estudio_core.errors import ModelError
from estudio_core.vectordb.catching_up import catch_up, pending, prune
from estudio_core.vectordb.change_log import ItemWrite, write
from estudio_core.vectordb.locks import build_lock
from estudio_core.vectordb.objects import IndexedObject
from estudio_core.vectordb.releases import Release, start_release
from estudio_core.vectordb.switching import retire_releases, rollback, switch
from tests.vectordb.test_releases import INFO, content, embed, live, verified

HOLD_THE_BUILD_LOCK = """
from estudio_core import database
from estudio_core.vectordb.locks import build_lock
with database.connect(autocommit=True) as connection, build_lock(connection, "shop"):
    print("held", flush=True)
    connection.execute("SELECT pg_sleep(120)")
"""


def test_a_builder_killed_in_a_long_statement_gives_its_lock_back_within_seconds(conn: psycopg.Connection) -> None:
    builder = subprocess.Popen([sys.executable, "-c", HOLD_THE_BUILD_LOCK], stdout=subprocess.PIPE, text=True)
    assert builder.stdout is not None
    try:
        assert builder.stdout.readline() == "held\n"
    finally:
        builder.kill()
        builder.wait()
    deadline = time.monotonic() + 20
    while True:
        held = conn.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone()
        if held == (0,):
            break
        assert time.monotonic() < deadline, "the lock of a dead builder is still held"
        time.sleep(0.1)
    with build_lock(conn, "shop"):
        pass


@pytest.mark.parametrize("error", [None, ModelError("its entry is removed")])
def test_a_write_whose_release_was_cleaned_up_while_it_was_embedded_goes_to_the_live_one(
    conn: psycopg.Connection, other: Callable[[], psycopg.Connection], error: Exception | None
) -> None:
    live(conn, "one", {"a": "x"})
    seen: list[str] = []

    def slow(release: Release, writes: Sequence[ItemWrite], stored: Mapping[str, str]) -> list[IndexedObject]:
        seen.append(release.model_name)
        if len(seen) == 1:
            with other() as releaser:
                live(releaser, "two", {"a": "x"})
                live(releaser, "three", {"a": "x"})
                retire_releases(releaser, "shop", keep=2)
            if error is not None:
                raise error
        return embed(release, writes, stored)

    write(conn, "shop", [ItemWrite("b", "new")], [], slow)
    assert seen == ["shop_one", "shop_three"]
    assert content(conn, rollback(conn, "shop", embed)) == {"a": "x", "b": "new"}


def test_a_model_that_cannot_be_used_fails_a_write(conn: psycopg.Connection) -> None:
    live(conn, "one", {"a": "x"})

    def broken(*_: object) -> list[IndexedObject]:
        raise ModelError("damaged")

    with pytest.raises(ModelError, match="damaged"):
        write(conn, "shop", [ItemWrite("b", "new")], [], broken)


def test_a_personal_row_is_in_every_later_release_until_it_or_its_original_is_deleted(conn: psycopg.Connection) -> None:
    live(conn, "one", {"a": "x", "b": "y", "c": "z"})
    for original in ("a", "b", "c"):
        write(conn, "shop", [ItemWrite(f"ana-{original}", "mine", None, "ana", original)], [], embed)
    for run in ("two", "three"):
        release = live(conn, run, {"a": "x", "b": "y", "c": "z"})
        retire_releases(conn, "shop", keep=2)
        assert content(conn, release) == {
            "a": "x",
            "b": "y",
            "c": "z",
            **dict.fromkeys(("ana-a", "ana-b", "ana-c"), "mine"),
        }
    write(conn, "shop", [ItemWrite("ana-c", "newer", None, "ana", "c")], ["ana-a"], embed)
    write(conn, "shop", [], ["b"], embed)
    for run in ("four", "five"):
        release = live(conn, run, {"a": "x", "c": "z"})
        retire_releases(conn, "shop", keep=2)
        assert content(conn, release) == {"a": "x", "c": "z", "ana-c": "newer"}
    retire_releases(conn, "shop", keep=2)
    assert conn.execute("SELECT object_id, op FROM estudio.change_log").fetchall() == [("ana-c", "upsert")]


def test_a_personal_row_deleted_during_a_build_stays_deleted(conn: psycopg.Connection) -> None:
    live(conn, "one", {"a": "x", "b": "y"})
    for original in ("a", "b"):
        write(conn, "shop", [ItemWrite(f"ana-{original}", "mine", None, "ana", original)], [], embed)
    retire_releases(conn, "shop", keep=2)
    release = start_release(conn, "shop", "shop_two", "two", INFO, "two")
    write(conn, "shop", [], ["ana-a"], embed)
    release = verified(conn, "two", {"a": "x", "b": "y"})
    write(conn, "shop", [], ["b"], embed)
    assert content(conn, switch(conn, release, embed)) == {"a": "x"}


def test_an_original_that_is_deleted_and_written_again_during_a_build_has_lost_its_personal_rows(
    conn: psycopg.Connection,
) -> None:
    live(conn, "one", {"a": "x"})
    write(conn, "shop", [ItemWrite("ana-a", "mine", None, "ana", "a")], [], embed)
    release = verified(conn, "two", {"a": "x"})
    catch_up(conn, release, embed)
    assert content(conn, release) == {"a": "x", "ana-a": "mine"}
    write(conn, "shop", [], ["a"], embed)
    write(conn, "shop", [ItemWrite("a", "again")], [], embed)
    assert content(conn, switch(conn, release, embed)) == {"a": "again"}
    assert content(conn, rollback(conn, "shop", embed)) == {"a": "again"}


def test_a_personal_row_that_stands_for_another_object_by_now_stays(conn: psycopg.Connection) -> None:
    live(conn, "one", {"a": "x", "b": "y"})
    for original in ("a", "b"):
        write(conn, "shop", [ItemWrite("ana", "mine", None, "ana", original)], [], embed)
    write(conn, "shop", [], ["a"], embed)
    assert content(conn, live(conn, "two", {"b": "y"})) == {"b": "y", "ana": "mine"}


def test_a_batch_that_writes_a_personal_row_and_deletes_its_original_leaves_neither(conn: psycopg.Connection) -> None:
    release = live(conn, "one", {"a": "x", "b": "y"})
    write(conn, "shop", [ItemWrite("ana-a", "mine", None, "ana", "a")], ["a"], embed)
    assert content(conn, release) == {"b": "y"}
    assert content(conn, live(conn, "two", {"b": "y"})) == {"b": "y"}


def test_a_last_write_in_an_old_transaction_is_not_undone_by_the_one_before_it(
    conn: psycopg.Connection, other: Callable[[], psycopg.Connection]
) -> None:
    """The marks cover the last entry, of an older transaction, and not the entry before it."""
    live(conn, "one", {"a": "x"})
    release = verified(conn, "two", {"a": "x"})
    with other() as old, other() as between:
        old.execute("BEGIN")
        old.execute("SELECT pg_current_xact_id()")
        between.execute("BEGIN")
        between.execute("SELECT pg_current_xact_id()")  # runs on: the mark cannot pass it
        write(conn, "shop", [ItemWrite("a", "first")], [], embed)
        write(old, "shop", [ItemWrite("a", "last")], [], embed)
        old.execute("COMMIT")
        catch_up(conn, release, embed)  # a process that has died since
        prune(conn, "shop")
        assert pending(conn, release) == []
        assert content(conn, switch(conn, release, embed)) == {"a": "last"}
        between.execute("COMMIT")
    catch_up(conn, rollback(conn, "shop", embed), embed)
    prune(conn, "shop")
    assert conn.execute("SELECT count(*) FROM estudio.change_log").fetchone() == (0,)
