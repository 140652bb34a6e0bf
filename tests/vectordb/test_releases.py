"""The release protocol: states, switch, rollback, change log, clean-up."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psycopg
import pytest

from estudio_core.errors import ConcurrentReleaseError, DimensionError, ItemError, ReleaseError, VerificationError
from estudio_core.vectordb import switching
from estudio_core.vectordb.catching_up import catch_up, pending
from estudio_core.vectordb.change_log import ItemWrite, write
from estudio_core.vectordb.index_build import build_index
from estudio_core.vectordb.index_info import SearchIndexInfo
from estudio_core.vectordb.locks import build_lock, own_switch
from estudio_core.vectordb.objects import IndexedObject, KeptObject
from estudio_core.vectordb.releases import (
    Release,
    fail_release,
    get_release,
    list_releases,
    live_release,
    mark_built,
    start_release,
)
from estudio_core.vectordb.search import find_by_ids, search
from estudio_core.vectordb.switching import retire_releases, rollback, switch
from estudio_core.vectordb.sync_state import IdDifference, id_difference, read_sync_state, save_sync_state
from estudio_core.vectordb.verification import verify_release

INFO = SearchIndexInfo(dimensions=8)


def vector(text: str, model: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(f"{model}:{text}".encode()).digest()[:4], "big")
    return np.random.default_rng(seed).normal(size=(1, 8)).astype(np.float32)


def embed(release: Release, writes: Sequence[ItemWrite], stored: Mapping[str, str]) -> list[IndexedObject]:
    return [
        IndexedObject(w.object_id, w.payload, str(w.data), vector(w.data, release.model_name), w.user_id, w.original_id)
        for w in writes
    ]


def built(conn: psycopg.Connection, run: str, source: dict[str, str]) -> Release:
    release = start_release(conn, "shop", f"shop_{run}", run, INFO, run)
    release.collection.copy_objects(conn, embed(release, [ItemWrite(key, text) for key, text in source.items()], {}))
    build_index(conn, release.collection)
    return mark_built(conn, release)


def verified(conn: psycopg.Connection, run: str, source: dict[str, str]) -> Release:
    release = built(conn, run, source)
    verify_release(conn, release, np.vstack([vector(t, release.model_name) for t in source.values()]), len(source))
    return get_release(conn, release.release_id)


def live(conn: psycopg.Connection, run: str, source: dict[str, str]) -> Release:
    return switch(conn, verified(conn, run, source), embed)


def content(conn: psycopg.Connection, release: Release) -> dict[str, str]:
    rows = conn.execute(
        psycopg.sql.SQL("SELECT object_id, content_hash FROM {}").format(release.collection.objects)
    ).fetchall()
    return dict(rows)


def put(conn: psycopg.Connection, **texts: str) -> None:
    write(conn, "shop", [ItemWrite(key, text) for key, text in texts.items()], [], embed)


def test_start_is_idempotent_by_run(conn: psycopg.Connection) -> None:
    first = start_release(conn, "shop", "shop_v1", "1", INFO, "run")
    assert start_release(conn, "shop", "shop_v1", "1", INFO, "run") == first
    with pytest.raises(ReleaseError, match="already started"):
        start_release(conn, "shop", "shop_v2", "2", INFO, "run")


def test_a_new_run_gives_up_an_unfinished_one_and_a_failed_one_begins_again_empty(conn: psycopg.Connection) -> None:
    first = built(conn, "one", {"a": "x"})
    start_release(conn, "shop", "shop_two", "2", INFO, "two")
    assert get_release(conn, first.release_id).state == "failed"
    again = start_release(conn, "shop", first.model_name, "one", INFO, "one")
    assert (again.release_id, again.state, content(conn, again)) == (first.release_id, "building", {})


def test_concurrent_builds_are_refused(conn: psycopg.Connection, other: Callable[[], psycopg.Connection]) -> None:
    with other() as second:
        with build_lock(conn, "shop", shared=True), build_lock(second, "shop", shared=True):
            pass
        with build_lock(second, "shop", shared=True):
            with pytest.raises(ConcurrentReleaseError), build_lock(conn, "shop"):
                pass
            with pytest.raises(ConcurrentReleaseError):
                start_release(conn, "shop", "shop_v1", "1", INFO, "run")
            with build_lock(conn, "books"):
                pass
        start_release(conn, "shop", "shop_v1", "1", INFO, "run")


def test_a_dead_builder_frees_its_lock(conn: psycopg.Connection, other: Callable[[], psycopg.Connection]) -> None:
    dying = other()
    lock = build_lock(dying, "shop")
    lock.__enter__()
    conn.execute("SELECT pg_terminate_backend(%s, 5000)", (dying.info.backend_pid,))
    with build_lock(conn, "shop"):
        pass


def test_switch_is_refused_unless_verified(conn: psycopg.Connection) -> None:
    serving = live(conn, "one", {"a": "x"})
    release = built(conn, "two", {"a": "x"})
    with pytest.raises(ReleaseError, match="is built"):
        switch(conn, release, embed)
    fail_release(conn, release, "the task was killed")
    with pytest.raises(ReleaseError, match="the task was killed"):
        switch(conn, release, embed)
    assert live_release(conn, "shop") == serving


def test_build_without_an_index_is_not_built(conn: psycopg.Connection) -> None:
    release = start_release(conn, "shop", "shop_v1", "1", INFO, "run")
    with pytest.raises(ReleaseError, match="no valid vector index"):
        mark_built(conn, release)


def test_switch_moves_model_and_collection_together_and_keeps_the_previous(conn: psycopg.Connection) -> None:
    first = live(conn, "one", {"a": "x"})
    second = live(conn, "two", {"a": "x"})
    serving = live_release(conn, "shop")
    assert serving is not None
    assert (serving.model_name, serving.collection_id) == (second.model_name, second.collection_id)
    assert get_release(conn, first.release_id).state == "previous"
    assert switch(conn, second, embed) == serving
    events = conn.execute("SELECT event FROM estudio.release_events WHERE release_id = %s ORDER BY event_id", (2,))
    assert [row[0] for row in events] == ["started", "built", "verified", "switched"]


def test_write_during_a_build_is_found_after_switch_and_after_rollback(conn: psycopg.Connection) -> None:
    first = live(conn, "one", {"a": "x", "b": "y"})
    second = verified(conn, "two", {"a": "x", "b": "y"})
    put(conn, a="x2", c="new")
    write(conn, "shop", [], ["b"], embed)
    assert content(conn, first) == {"a": "x2", "c": "new"}
    assert content(conn, second) == {"a": "x", "b": "y"}
    switch(conn, second, embed)
    assert content(conn, second) == {"a": "x2", "c": "new"}
    put(conn, d="after")
    write(conn, "shop", [], ["a"], embed)
    back = rollback(conn, "shop", embed)
    assert back.release_id == first.release_id
    assert content(conn, first) == {"c": "new", "d": "after"}
    assert np.allclose(
        find_by_ids(conn, first.collection, ["d"], with_vectors=True)[0].vectors, vector("after", first.model_name)
    )
    put(conn, e="later")
    forward = rollback(conn, "shop", embed)
    assert forward.release_id == second.release_id
    assert content(conn, second) == {"c": "new", "d": "after", "e": "later"}


def test_a_personal_row_gives_way_to_a_later_one_for_the_same_original_in_every_release(
    conn: psycopg.Connection,
) -> None:
    first = live(conn, "one", {"a": "x"})

    def mine(object_id: str, text: str) -> ItemWrite:
        return ItemWrite(object_id, text, None, "ann", "a")

    write(conn, "shop", [mine("p1", "one")], [], embed)
    second = live(conn, "two", {"a": "x"})
    write(conn, "shop", [], ["p1"], embed)
    write(conn, "shop", [mine("p2", "two")], [], embed)
    rollback(conn, "shop", embed)
    assert content(conn, first) == {"a": "x", "p2": "two"}
    write(conn, "shop", [mine("p0", "three")], [], embed)
    assert content(conn, first) == {"a": "x", "p0": "three"}
    rollback(conn, "shop", embed)
    assert content(conn, second) == {"a": "x", "p0": "three"}
    third = live(conn, "three", {"a": "x"})
    assert content(conn, third) == {"a": "x", "p0": "three"}
    with pytest.raises(ItemError, match="one user for the same original") as caught:
        write(conn, "shop", [mine("p3", "four"), mine("p4", "five")], [], embed)
    assert caught.value.item_ids == ["p3", "p4"]


def test_a_write_leaves_objects_that_are_not_as_expected_any_more(conn: psycopg.Connection) -> None:
    serving = live(conn, "one", {"a": "x", "b": "y", "c": "z"})
    known = serving.collection.source_hashes(conn, ["a", "b", "c", "d"])
    write(conn, "shop", [], ["b", "c"], embed)
    put(conn, d="new")
    late = [ItemWrite(object_id, "late") for object_id in ("a", "b", "d")]
    result = write(conn, "shop", late, ["c"], embed, known)
    assert (result.upserted, result.deleted, result.stale) == (1, 0, ("b", "c", "d"))
    assert content(conn, serving) == {"a": "late", "d": "new"}


def test_writes_before_anything_is_live_reach_the_first_release(conn: psycopg.Connection) -> None:
    release = built(conn, "one", {"a": "x"})
    put(conn, b="early")
    verify_release(conn, release, vector("x", release.model_name), 1)
    switch(conn, release, embed)
    assert content(conn, release) == {"a": "x", "b": "early"}


def test_a_slow_writer_is_neither_skipped_nor_waited_for(
    conn: psycopg.Connection, other: Callable[[], psycopg.Connection]
) -> None:
    live(conn, "one", {"a": "x"})
    release = verified(conn, "two", {"a": "x"})
    with other() as slow:
        with slow.transaction():
            put(slow, slow="first number, last commit")
            put(conn, fast="second number, first commit")
            catch_up(conn, release, embed)
            assert content(conn, release) == {"a": "x", "fast": "second number, first commit"}
            with pytest.raises(ConcurrentReleaseError):
                switch(conn, release, embed, lock_timeout_s=0.1)
        assert [r.run_id for r in list_releases(conn, "shop") if r.state == "live"] == ["one"]
        catch_up(conn, release, embed)
    assert content(conn, release)["slow"] == "first number, last commit"
    assert pending(conn, release) == []


def test_a_writer_that_began_before_the_release_is_not_lost(
    conn: psycopg.Connection, other: Callable[[], psycopg.Connection]
) -> None:
    live(conn, "one", {"a": "x"})
    with other() as slow:
        with slow.transaction():
            put(slow, slow="began first")
            put(conn, fast="committed before the release")
            release = built(conn, "two", {"a": "x", "fast": "committed before the release"})
        verify_release(conn, release, vector("x", release.model_name), 2)
        switch(conn, release, embed)
    assert content(conn, release)["slow"] == "began first"


def test_an_older_transaction_that_writes_after_the_switch_is_seen_by_a_rollback(
    conn: psycopg.Connection, other: Callable[[], psycopg.Connection]
) -> None:
    first = live(conn, "one", {"a": "x"})
    with other() as old:
        with old.transaction():
            old.execute("SELECT pg_current_xact_id()")
            live(conn, "two", {"a": "x"})
            put(old, late="low transaction number, high sequence number")
        rollback(conn, "shop", embed)
    assert "late" in content(conn, first)


def test_writers_of_one_object_leave_the_same_value_in_live_and_log(
    conn: psycopg.Connection, other: Callable[[], psycopg.Connection]
) -> None:
    first = live(conn, "one", {"a": "x"})
    second = verified(conn, "two", {"a": "x"})

    def work(number: int) -> None:
        with other() as own:
            for i in range(10):
                put(own, hot=f"{number}-{i}", **{f"w{number}": str(i)})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    expected = content(conn, first)
    switch(conn, second, embed)
    assert content(conn, second) == expected
    assert len(expected) == 6


def test_writers_of_one_object_wait_for_each_other_even_where_nothing_is_live(
    conn: psycopg.Connection, other: Callable[[], psycopg.Connection]
) -> None:
    with other() as slow, slow.transaction():
        put(slow, hot="1")
        conn.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            put(conn, hot="2")
    put(conn, hot="2")
    entries = conn.execute("SELECT data FROM estudio.change_log ORDER BY seq").fetchall()
    assert entries == [("1",), ("2",)]


def test_writes_go_on_during_switches_and_none_is_lost(
    conn: psycopg.Connection, other: Callable[[], psycopg.Connection]
) -> None:
    live(conn, "one", {"a": "x"})
    live(conn, "two", {"a": "x"})
    stop = threading.Event()
    acknowledged: dict[str, str] = {}

    def work() -> None:
        with other() as own:
            number = 0
            while not stop.is_set():
                key, text = f"k{number % 7}", str(number)
                put(own, **{key: text})
                acknowledged[key] = text
                number += 1

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(work)
        while not acknowledged and not writer.done():
            time.sleep(0.001)
        for _ in range(6):
            rollback(conn, "shop", embed)
        stop.set()
        writer.result()
    for release in list_releases(conn, "shop"):
        if release.state == "previous":
            rollback(conn, "shop", embed, release)
        assert content(conn, release) == {"a": "x", **acknowledged}


def test_concurrent_switches_follow_each_other(
    conn: psycopg.Connection, other: Callable[[], psycopg.Connection]
) -> None:
    live(conn, "one", {"a": "x"})
    release = verified(conn, "two", {"a": "x"})

    def go(_: int) -> int:
        with other() as own:
            return switch(own, release, embed).release_id

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(go, range(4))) == {release.release_id}
    events = conn.execute("SELECT count(*) FROM estudio.release_events WHERE event = 'switched'").fetchone()
    assert events == (2,)


def test_a_switch_that_fails_half_way_changes_nothing(conn: psycopg.Connection) -> None:
    first = live(conn, "one", {"a": "x"})
    release = verified(conn, "two", {"a": "x"})
    put(conn, b="new")

    def broken(*_: object) -> list[IndexedObject]:
        return []

    with pytest.raises(ItemError, match="'b'"):
        switch(conn, release, broken)
    assert live_release(conn, "shop") == get_release(conn, first.release_id)
    assert get_release(conn, release.release_id).state == "verified"
    assert switch(conn, release, embed).state == "live"
    assert "b" in content(conn, release)


def test_killed_switch_leaves_the_live_release_and_a_rerun_finishes(
    conn: psycopg.Connection, other: Callable[[], psycopg.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = live(conn, "one", {"a": "x"})
    release = verified(conn, "two", {"a": "x"})
    dying = other()

    def killed(*_: object) -> None:
        conn.execute("SELECT pg_terminate_backend(%s, 5000)", (dying.info.backend_pid,))
        dying.execute("SELECT 1")

    with monkeypatch.context() as patch:
        patch.setattr(switching, "record_event", killed)  # the last statement of the switch
        with pytest.raises(psycopg.OperationalError):
            switch(dying, release, embed)
    assert live_release(conn, "shop") == get_release(conn, first.release_id)
    put(conn, b="meanwhile")
    switch(conn, release, embed)
    assert content(conn, release) == {"a": "x", "b": "meanwhile"}


def test_write_repeats_embedding_when_the_live_release_changes_meanwhile(conn: psycopg.Connection) -> None:
    live(conn, "one", {"a": "x"})
    release = verified(conn, "two", {"a": "x"})
    models = []

    def slow(current: Release, writes: Sequence[ItemWrite], stored: Mapping[str, str]) -> list[IndexedObject]:
        models.append(current.model_name)
        if len(models) == 1:
            switch(conn, release, embed)
        return embed(current, writes, stored)

    write(conn, "shop", [ItemWrite("b", "new")], [], slow)
    assert models == ["shop_one", "shop_two"]
    stored = find_by_ids(conn, release.collection, ["b"], with_vectors=True)[0].vectors
    assert np.allclose(stored, vector("new", "shop_two"))


def keep(release: Release, writes: Sequence[ItemWrite], stored: Mapping[str, str]) -> list[IndexedObject | KeptObject]:
    return [
        KeptObject(item.object_id, item.payload or {}, item.content_hash)
        if stored.get(item.object_id) == item.content_hash
        else item
        for item in embed(release, writes, stored)
    ]


def test_vectors_of_unchanged_content_stay_in_the_live_collection_and_in_one_that_catches_up(
    conn: psycopg.Connection,
) -> None:
    first = live(conn, "one", {"a": "x", "b": "y"})
    second = verified(conn, "two", {"a": "x", "b": "y"})

    def rows(release: Release) -> list[tuple[object, ...]]:
        return conn.execute(
            psycopg.sql.SQL("SELECT object_id, ctid FROM {} ORDER BY 1").format(release.collection.parts)
        ).fetchall()

    before = rows(first), rows(second)
    result = write(conn, "shop", [ItemWrite("a", "x", {"price": 3}), ItemWrite("c", "new")], [], keep)
    assert (result.upserted, result.kept) == (2, 1)
    switch(conn, second, keep)
    for release, rows_before in zip((first, second), before, strict=True):
        assert rows(release)[:2] == rows_before
        assert [row.payload for row in find_by_ids(conn, release.collection, ["a", "c"])] == [{"price": 3}, {}]


def test_a_write_embeds_again_where_the_content_it_wanted_to_keep_has_changed(
    conn: psycopg.Connection, other: Callable[[], psycopg.Connection]
) -> None:
    release = live(conn, "one", {"a": "x"})
    rounds = []

    def overtaken(
        current: Release, writes: Sequence[ItemWrite], stored: Mapping[str, str]
    ) -> list[IndexedObject | KeptObject]:
        items = keep(current, writes, stored)
        rounds.append(type(items[0]))
        if len(rounds) == 1:
            with other() as second:
                put(second, a="written between")
        return items

    write(conn, "shop", [ItemWrite("a", "x", {"price": 3})], [], overtaken)
    assert rounds == [KeptObject, IndexedObject]
    assert content(conn, release) == {"a": "x"}
    stored = find_by_ids(conn, release.collection, ["a"], with_vectors=True)[0].vectors
    assert np.allclose(stored, vector("x", release.model_name))


def test_the_change_log_keeps_the_order_of_fields(conn: psycopg.Connection) -> None:
    release = built(conn, "one", {"a": "x"})
    write(conn, "shop", [ItemWrite("b", {"title": "t", "id": "i"})], [], embed)
    (entry,) = pending(conn, release)
    assert entry.write is not None
    assert list(entry.write.data) == ["title", "id"]


def test_a_personal_row_without_payload_shows_the_originals_in_every_release(conn: psycopg.Connection) -> None:
    first = live(conn, "one", {"a": "x"})
    second = verified(conn, "two", {"a": "x"})
    write(conn, "shop", [ItemWrite("a", "x", {"price": 3}), ItemWrite("a-ann", "y", None, "ann", "a")], [], embed)
    switch(conn, second, embed)
    for release in (first, second):
        (hit,) = search(conn, release.collection, vector("y", release.model_name)[0], user_id="ann")
        assert (hit.object_id, hit.payload, hit.personal) == ("a", {"price": 3}, True)


def test_a_write_that_does_not_fit_is_in_neither_place(conn: psycopg.Connection) -> None:
    release = live(conn, "one", {"a": "x"})

    def wrong(_: Release, writes: Sequence[ItemWrite], stored: Mapping[str, str]) -> list[IndexedObject]:
        return [IndexedObject(w.object_id, {}, "h", np.ones((1, 3))) for w in writes]

    with pytest.raises(DimensionError):
        write(conn, "shop", [ItemWrite("b", "new")], ["a"], wrong)
    assert content(conn, release) == {"a": "x"}
    assert conn.execute("SELECT count(*) FROM estudio.change_log").fetchone() == (0,)
    with pytest.raises(ItemError, match="written and deleted"):
        write(conn, "shop", [ItemWrite("b", "new")], ["b"], embed)


def test_verification_refuses_missing_objects_and_bad_recall(conn: psycopg.Connection) -> None:
    release = built(conn, "one", {"a": "x", "b": "y"})
    with pytest.raises(VerificationError, match="2 objects; 3 were loaded"):
        verify_release(conn, release, vector("x", "m"), 3)
    with pytest.raises(VerificationError, match="ef_search=1000"):
        verify_release(conn, release, vector("x", "m"), 2, minimum_recall=1.1)
    assert get_release(conn, release.release_id).state == "built"


def test_verification_raises_ef_search_where_the_index_needs_it(conn: psycopg.Connection) -> None:
    rng = np.random.default_rng(0)
    # So few neighbours and so many dimensions that hundreds of candidates are needed, however the graph came out: its
    # levels are drawn anew in every build.
    info = SearchIndexInfo.model_validate({"dimensions": 64, "hnsw": {"m": 4, "ef_search": 1}})
    release = start_release(conn, "shop", "shop_v1", "1", info, "run")
    vectors = rng.normal(size=(2500, 1, 64)).astype(np.float32)
    release.collection.copy_objects(conn, (IndexedObject(str(i), {}, "h", rows) for i, rows in enumerate(vectors)))
    build_index(conn, release.collection)
    mark_built(conn, release)
    report = verify_release(conn, release, rng.normal(size=(40, 64)), 2500)
    assert report.ef_search > 1
    assert report.recall_at_10 >= 0.95
    assert get_release(conn, release.release_id).collection.ef_search == report.ef_search


def test_clean_up_keeps_what_serves_and_what_can_serve(conn: psycopg.Connection) -> None:
    releases = [live(conn, run, {"a": "x"}) for run in ("one", "two", "three")]
    building = start_release(conn, "shop", "shop_four", "4", INFO, "four")
    conn.execute("CREATE TABLE estudio.c_stranger_objects (n int)")
    (gone,) = retire_releases(conn, "shop", keep=2)
    assert (gone.release_id, gone.state) == (releases[0].release_id, "retired")
    assert not releases[0].collection.exists(conn)
    assert all(release.collection.exists(conn) for release in [*releases[1:], building])
    assert conn.execute("SELECT to_regclass('estudio.c_stranger_objects')").fetchone() != (None,)
    assert retire_releases(conn, "shop", keep=2) == []
    with pytest.raises(ReleaseError, match="retired"):
        rollback(conn, "shop", embed, releases[0])
    with pytest.raises(ReleaseError, match="keep=1"):
        retire_releases(conn, "shop", keep=1)


def test_clean_up_does_not_drop_a_table_that_is_not_ours(conn: psycopg.Connection) -> None:
    releases = [live(conn, run, {"a": "x"}) for run in ("one", "two", "three")]
    conn.execute(psycopg.sql.SQL("COMMENT ON TABLE {} IS 'mine'").format(releases[0].collection.parts))
    with pytest.raises(ReleaseError, match="does not belong"):
        retire_releases(conn, "shop", keep=2)
    assert get_release(conn, releases[0].release_id).state == "previous"


def test_clean_up_prunes_only_entries_that_nobody_lacks(conn: psycopg.Connection) -> None:
    live(conn, "one", {"a": "x"})
    live(conn, "two", {"a": "x"})
    put(conn, b="kept for the previous release")
    retire_releases(conn, "shop", keep=2)
    back = rollback(conn, "shop", embed)
    assert "b" in content(conn, back)
    retire_releases(conn, "shop", keep=2)
    assert conn.execute("SELECT count(*) FROM estudio.change_log").fetchone() == (0,)


def test_clean_up_leaves_a_collection_that_is_being_searched(
    conn: psycopg.Connection, other: Callable[[], psycopg.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switching, "DROP_TIMEOUT_S", 0.1)
    releases = [live(conn, run, {"a": "x"}) for run in ("one", "two", "three")]
    with other() as reader, reader.transaction():
        search(reader, releases[0].collection, vector("x", "shop_one")[0])
        reader.execute(psycopg.sql.SQL("SELECT FROM {}").format(releases[0].collection.parts))
        assert retire_releases(conn, "shop", keep=2) == []
    assert [release.release_id for release in retire_releases(conn, "shop", keep=2)] == [releases[0].release_id]


def test_every_text_of_a_release_and_of_a_write_may_hold_anything(conn: psycopg.Connection) -> None:
    nasty = "'); DROP TABLE estudio.deployments; -- \" % {} \\ Ü"
    for run in (nasty, f"{nasty} again"):
        release = start_release(conn, nasty, nasty, nasty, INFO, run, actor=nasty)
        build_index(conn, release.collection)
        mark_built(conn, release, actor=nasty)
        verify_release(conn, release, [], 0, actor=nasty)
        switch(conn, get_release(conn, release.release_id), embed, actor=nasty)
        written = [ItemWrite(nasty, nasty, {nasty: nasty}), ItemWrite("own", nasty, None, nasty, nasty)]
        write(conn, nasty, written, [f"{nasty} gone"], embed)
    rollback(conn, nasty, embed, actor=nasty)
    live_now = live_release(conn, nasty)
    assert live_now is not None
    assert live_now.run_id == nasty
    assert content(conn, live_now) == {nasty: nasty, "own": nasty}
    save_sync_state(conn, nasty, nasty, None, compared=True, release_id=None, counts={nasty: 1})
    assert id_difference(conn, live_now.collection, [f"{nasty} new"]) == IdDifference([f"{nasty} new"], [nasty], [], 1)
    state = read_sync_state(conn, nasty)
    assert state is not None
    assert state.source == nasty
    unfinished = start_release(conn, nasty, nasty, nasty, INFO, "third")
    assert fail_release(conn, unfinished, nasty, actor=nasty).reason == nasty
    retire_releases(conn, nasty, keep=2, actor=nasty)
    assert [release.state for release in list_releases(conn, nasty)] == ["failed", "previous", "live"]


def test_rollback_without_a_previous_release_is_refused(conn: psycopg.Connection) -> None:
    with pytest.raises(ReleaseError, match="no such release"):
        rollback(conn, "shop", embed)
    live(conn, "one", {"a": "x"})
    with pytest.raises(ReleaseError, match="no such release"):
        rollback(conn, "shop", embed)


def test_a_switch_gives_the_callers_lock_timeout_back(conn: psycopg.Connection) -> None:
    with conn.transaction():
        conn.execute("SET LOCAL lock_timeout = '7s'")
        own_switch(conn, "shop", 1.0)
        assert conn.execute("SELECT current_setting('lock_timeout')").fetchone() == ("7s",)


def test_a_release_that_lacks_much_catches_up_in_pieces(
    conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("estudio_core.vectordb.catching_up.READ_ENTRIES", 7)
    live(conn, "one", {"a": "x"})
    building = start_release(conn, "shop", "shop_two", "two", INFO, "two")
    texts = {f"Ä{number}" if number % 3 else f"a{number}": f"text {number}" for number in range(50)}
    put(conn, **texts)
    put(conn, a3="text of later")
    write(conn, "shop", [], ["a6"], embed)
    done = catch_up(conn, building, embed)
    assert len(done) == 50
    assert content(conn, building) == {key: text for key, text in texts.items() if key != "a6"} | {
        "a3": "text of later"
    }
    assert catch_up(conn, building, embed, done) == done
