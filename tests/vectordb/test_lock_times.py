"""What writers wait for: nothing slow happens while they do, and nothing grows with the change log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from estudio_core.errors import ConcurrentReleaseError
from estudio_core.vectordb import releases, switching
from estudio_core.vectordb.catching_up import catch_up, pending
from estudio_core.vectordb.change_log import ItemWrite, write
from estudio_core.vectordb.locks import lock_key
from estudio_core.vectordb.objects import IndexedObject
from estudio_core.vectordb.releases import Release, live_release
from estudio_core.vectordb.switching import retire_releases, rollback, switch
from tests.vectordb.test_releases import content, embed, live, put, verified


def writers_wait(conn: psycopg.Connection) -> bool:
    """Return whether a session has the switch lock of the shop alone."""
    key = lock_key("switch", "shop") % 2**64
    row = conn.execute(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted"
        " AND classid::bigint = %s AND objid::bigint = %s",
        (key >> 32, key % 2**32),
    ).fetchone()
    return row != (0,)


class Watched:
    """Embeds, and notes how many items at a time: `free` without and `locked` under the exclusive lock."""

    def __init__(self, watcher: psycopg.Connection) -> None:
        self.watcher = watcher
        self.free: list[int] = []
        self.locked: list[int] = []

    def __call__(self, release: Release, writes: Sequence[ItemWrite], stored: Mapping[str, str]) -> list[IndexedObject]:
        (self.locked if writers_wait(self.watcher) else self.free).append(len(writes))
        return embed(release, writes, stored)


def write_before_each_lock(
    monkeypatch: pytest.MonkeyPatch, writer: psycopg.Connection, rounds: int, items: int
) -> None:
    """Let `writer` write between catching up and the lock, in the first `rounds` rounds."""
    own_switch = switching.own_switch
    written = []

    def overtaken(conn: psycopg.Connection, plugin: str, timeout_s: float) -> None:
        if len(written) < rounds:
            written.append(plugin)
            put(writer, **{f"late-{len(written)}-{i}": "between" for i in range(items)})
        own_switch(conn, plugin, timeout_s)

    monkeypatch.setattr(switching, "own_switch", overtaken)


def test_a_write_between_catching_up_and_the_lock_is_embedded_without_the_lock(
    conn: psycopg.Connection, other: Callable[[], psycopg.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = live(conn, "one", {"a": "x"})
    second = verified(conn, "two", {"a": "x"})
    with other() as writer, other() as watcher:
        watched = Watched(watcher)
        write_before_each_lock(monkeypatch, writer, rounds=1, items=1)
        assert content(conn, switch(conn, second, watched)) == {"a": "x", "late-1-0": "between"}
        monkeypatch.undo()
        write_before_each_lock(monkeypatch, writer, rounds=2, items=20)
        assert len(content(conn, rollback(conn, "shop", watched))) == 41
    assert (watched.free, watched.locked) == ([1, 20, 20], [])
    assert live_release(conn, "shop") == releases.get_release(conn, first.release_id)


def test_a_deletion_between_catching_up_and_the_lock_needs_no_further_round(
    conn: psycopg.Connection, other: Callable[[], psycopg.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    live(conn, "one", {"a": "x", "b": "y"})
    second = verified(conn, "two", {"a": "x", "b": "y"})
    own_switch = switching.own_switch
    locks = []
    with other() as writer:

        def overtaken(conn: psycopg.Connection, plugin: str, timeout_s: float) -> None:
            locks.append(plugin)
            write(writer, "shop", [], ["b"], embed)
            own_switch(conn, plugin, timeout_s)

        monkeypatch.setattr(switching, "own_switch", overtaken)
        assert content(conn, switch(conn, second, embed)) == {"a": "x"}
    assert len(locks) == 1


def test_where_writes_never_pause_a_few_items_are_embedded_under_the_lock_after_others_were_without(
    conn: psycopg.Connection, other: Callable[[], psycopg.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    live(conn, "one", {"a": "x"})
    second = verified(conn, "two", {"a": "x"})
    with other() as writer, other() as watcher:
        watched = Watched(watcher)
        write_before_each_lock(monkeypatch, writer, rounds=100, items=3)
        assert len(content(conn, switch(conn, second, watched))) == 16
    assert (watched.free, watched.locked) == ([3, 3, 3, 3], [3])


def test_where_writes_come_faster_than_they_are_applied_nothing_is_switched(
    conn: psycopg.Connection, other: Callable[[], psycopg.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = live(conn, "one", {"a": "x"})
    second = verified(conn, "two", {"a": "x"})
    monkeypatch.setattr(switching, "EMBEDDED_UNDER_LOCK", (0, 2))
    with other() as writer, other() as watcher:
        watched = Watched(watcher)
        write_before_each_lock(monkeypatch, writer, rounds=2, items=3)
        with pytest.raises(ConcurrentReleaseError, match="lacks more than 2 items"):
            switch(conn, second, watched)
        assert (watched.free, watched.locked) == ([3], [])
        assert live_release(conn, "shop") == releases.get_release(conn, first.release_id)
        assert switch(conn, second, watched).state == "live"
    assert watched.locked == []


def test_a_clean_up_that_waits_for_a_reader_keeps_no_writer_waiting_and_is_finished_by_the_next(
    conn: psycopg.Connection, other: Callable[[], psycopg.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switching, "DROP_TIMEOUT_S", 1.5)
    old, *_ = [live(conn, run, {"a": "x"}) for run in ("one", "two", "three")]

    def clean_up() -> list[Release]:
        with other() as cleaner:
            return retire_releases(cleaner, "shop", keep=2)

    with other() as reader, ThreadPoolExecutor(1) as pool:
        with reader.transaction():
            reader.execute(psycopg.sql.SQL("SELECT FROM {}").format(old.collection.parts))
            cleaning = pool.submit(clean_up)
            while not waits_for_a_table(conn):
                assert not cleaning.done()
            conn.execute("SET lock_timeout = '200ms'")
            put(conn, b="meanwhile")
            assert cleaning.result() == []
        assert releases.get_release(conn, old.release_id).state == "retired"
        assert old.collection.exists(conn)
        assert [release.release_id for release in clean_up()] == [old.release_id]
    assert not old.collection.exists(conn)


def waits_for_a_table(conn: psycopg.Connection) -> bool:
    row = conn.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND NOT granted").fetchone()
    return row != (0,)


LOGGED = 20_000


def fill_the_log(conn: psycopg.Connection) -> None:
    conn.execute(
        "INSERT INTO estudio.change_log (plugin, op, object_id, data, payload)"
        " SELECT 'shop', 'upsert', 'old-' || n, '\"x\"', '{}' FROM generate_series(1, %s) n",
        (LOGGED,),
    )
    conn.execute("ANALYZE estudio.change_log")


def entries_read(conn: psycopg.Connection) -> int:
    """Return how many rows of the change log the open transaction has read, by scan or through an index."""
    row = conn.execute(
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables"
        " WHERE schemaname = 'estudio' AND relname = 'change_log'"
    ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("deletes", [[], ["a"]])
def test_a_write_reads_what_it_concerns_and_not_the_log(conn: psycopg.Connection, deletes: list[str]) -> None:
    live(conn, "one", {"a": "x"})
    write(conn, "shop", [ItemWrite("ana-a", "mine", None, "ana", "a")], [], embed)
    fill_the_log(conn)
    with conn.transaction():
        write(conn, "shop", [ItemWrite("b", "new")], deletes, embed)
        assert entries_read(conn) < 20


def test_what_a_release_lacks_is_found_without_reading_the_log(conn: psycopg.Connection) -> None:
    first = live(conn, "one", {"a": "x"})
    write(conn, "shop", [ItemWrite("ana-a", "mine", None, "ana", "a")], [], embed)
    fill_the_log(conn)
    second = verified(conn, "two", {"a": "x"})
    put(conn, b="new")
    with conn.transaction():
        assert [entry.object_id for entry in pending(conn, second)] == ["ana-a", "b"]
        assert entries_read(conn) < 20
    catch_up(conn, switch(conn, second, embed), embed)
    conn.execute("ANALYZE estudio.change_log")
    put(conn, c="newer")
    with conn.transaction():
        assert [entry.object_id for entry in pending(conn, first)] == ["c"]
        assert entries_read(conn) < 30


def test_entries_that_are_applied_already_are_not_sent_again(conn: psycopg.Connection) -> None:
    live(conn, "one", {"a": "x"})
    second = verified(conn, "two", {"a": "x"})
    put(conn, b="new")
    put(conn, c="new")
    first_entry, second_entry = pending(conn, second)
    assert pending(conn, second, {first_entry.seq}) == [second_entry]
