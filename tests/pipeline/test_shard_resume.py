"""A shard commits as it goes: what was killed goes on there, two attempts never meet, and no write is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from estudio_core import database, writing
from estudio_core.errors import ConcurrentReleaseError
from estudio_core.pipeline import embed_shard as shard_step
from estudio_core.pipeline.build_index import build_index
from estudio_core.pipeline.embed_shard import embed_shard
from estudio_core.pipeline.items import shard_load
from estudio_core.pipeline.items.embed_writes import embed_writes
from estudio_core.pipeline.items.parts import as_write
from estudio_core.pipeline.start_collection import start_collection
from estudio_core.pipeline.verify import verify
from estudio_core.plugin.registry import open_plugin
from estudio_core.sources import pgsql_data_loader
from estudio_core.sources.data_loader import KeyRange
from estudio_core.sources.item_meta import ItemMeta
from estudio_core.vectordb.releases import get_release, release_of_run
from estudio_core.vectordb.switching import switch
from tests.pipeline.test_release import published

if TYPE_CHECKING:
    from tests.pipeline.conftest import Shop

ALL = {str(number) for number in range(60)}


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_step, "READ_ITEMS", 5)
    monkeypatch.setattr(shard_load, "CHUNK_ITEMS", 10)
    monkeypatch.setattr(pgsql_data_loader, "PAGE_ROWS", 7)


@pytest.fixture
def shard(indexed_shop: Shop) -> dict[str, Any]:
    """The only shard of a release that is being built; two of its rows cannot be used."""
    indexed_shop.sql("INSERT INTO products (id, title, kind) VALUES (-2, ' ', 'blank'), (31000, NULL, 'none')")
    [only] = start_collection("shop", published("shop_v1"), 1, "second")
    return only.as_dict()


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The keys behind which the source is read, in the order of the attempts."""
    loader = type(open_plugin("shop").loader)
    read, seen = loader.iter_items, []

    def noted(self: Any, key_range: KeyRange | None = None, *more: Any) -> Iterator[Any]:
        seen.append(None if key_range is None else key_range.after)
        return read(self, key_range, *more)

    monkeypatch.setattr(loader, "iter_items", noted)
    return seen


def objects() -> list[str]:
    with database.connect(autocommit=True) as connection:
        release = release_of_run(connection, "shop", "second")
        assert release is not None
        rows = connection.execute(f"SELECT object_id FROM estudio.{release.collection.name('objects')}").fetchall()  # type: ignore[arg-type]
        parts = connection.execute(f"SELECT count(*) FROM estudio.{release.collection.name('parts')}").fetchone()  # type: ignore[arg-type]
    assert parts == (len(rows),), "each item has one part here"
    return [row[0] for row in rows]


def killed_at(monkeypatch: pytest.MonkeyPatch, chunk: int, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Have the next attempt end in its n-th chunk, whose transaction is open."""
    move, calls = shard_step.move_mark, []

    def moving(*given: Any) -> Any:
        calls.append(given)
        moved = move(*given)
        if len(calls) == chunk:
            meanwhile()
            monkeypatch.setattr(shard_step, "move_mark", move)
            raise KeyboardInterrupt
        return moved

    monkeypatch.setattr(shard_step, "move_mark", moving)


def test_a_killed_shard_goes_on_where_it_was_and_ends_as_if_nothing_had_been(
    shard: dict[str, Any], begun: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_at(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        embed_shard("shop", shard)
    before = objects()
    assert 5 < len(before) == len(set(before)) < 30
    killed_at(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        embed_shard("shop", shard)
    done = embed_shard("shop", shard)
    assert begun[0] is None
    assert 0 < int(begun[1] or 0) < int(begun[2] or 0) < 59
    assert (done.items, done.parts, done.invalid_items) == (60, 60, 2)
    assert done.invalid.keys() == {"-2", "31000"}
    assert sorted(objects()) == sorted(ALL)
    built = build_index("shop", [done.as_dict()])
    assert (built.items, built.invalid_items) == (60, 2)
    with database.connect(autocommit=True) as connection:
        left = connection.execute("SELECT count(*) FROM pg_tables WHERE tablename LIKE '%\\_loading'").fetchone()
    assert left == (0,)


def test_a_shard_that_came_to_its_end_is_read_anew(
    shard: dict[str, Any], begun: list[str | None], indexed_shop: Shop
) -> None:
    first = embed_shard("shop", shard)
    indexed_shop.sql("INSERT INTO products (id, title, kind) VALUES (100, 'a later lamp', 'lamp')")
    second = embed_shard("shop", shard)
    assert begun == [None, None]
    assert (first.items, second.items, second.invalid_items) == (60, 61, 2)
    assert sorted(objects()) == sorted(ALL | {"100"})


def test_a_shard_of_another_division_begins_anew_and_doubles_nothing(
    shard: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_at(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        embed_shard("shop", shard)
    divided = start_collection("shop", published("shop_v1"), 3, "second")
    loaded = [embed_shard("shop", {**each.as_dict(), "label": f"{n} of 1"}) for n, each in enumerate(divided, start=1)]
    assert sum(each.items for each in loaded) == 60
    assert sorted(objects()) == sorted(ALL)


def test_an_attempt_that_was_given_up_and_still_runs_writes_nothing_more(
    shard: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    move, calls = shard_step.move_mark, []

    def overtaken(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:
            monkeypatch.setattr(shard_step, "move_mark", move)
            assert embed_shard("shop", shard).items == 60
        return move(*given)

    monkeypatch.setattr(shard_step, "move_mark", overtaken)
    with pytest.raises(ConcurrentReleaseError, match=r"'1 of 1' .* is loaded by another attempt"):
        embed_shard("shop", shard)
    assert sorted(objects()) == sorted(ALL)


def test_items_that_come_change_and_go_while_a_shard_is_read_in_pages_are_as_written(
    shard: dict[str, Any], indexed_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application writes to its table and to the index all the time; the shard is killed on the way."""
    stopped, written = threading.Event(), []
    url = indexed_shop.database_url

    def application() -> None:
        loader = open_plugin("shop").loader
        while not stopped.wait(0.01):
            number = len(written)
            changed, gone, new = (number * 7) % 40, 40 + number % 10, 200 + number % 50
            with psycopg.connect(url) as connection:
                connection.execute("UPDATE products SET title = %s WHERE id = %s", (f"edition {number}", changed))
                connection.execute("DELETE FROM products WHERE id = %s", (gone,))
                connection.execute(
                    "INSERT INTO products (id, title, kind) VALUES (%s, %s, 'new') ON CONFLICT (id) DO NOTHING",
                    (new, f"new {number}"),
                )
            rows = loader.find_items([ItemMeta(object_id=str(changed)), ItemMeta(object_id=str(new))])
            writing.upsert("shop", [as_write(row) for row in rows.items])
            writing.delete("shop", [str(gone)])
            written.append(number)

    writer = threading.Thread(target=application)
    writer.start()
    try:
        for chunk in (1, 2, 3):
            before = len(written)
            killed_at(monkeypatch, chunk, lambda before=before: wait_for(lambda: len(written) > before + 2))  # type: ignore[misc]
            with pytest.raises(KeyboardInterrupt):
                embed_shard("shop", shard)
        done = embed_shard("shop", shard)
        verified = verify("shop", build_index("shop", [done.as_dict()]).as_dict())
        with database.connect(autocommit=True) as connection:
            switch(connection, get_release(connection, verified.release_id), embed_writes("shop"))
    finally:
        stopped.set()
        writer.join()
    with psycopg.connect(url) as connection:
        table = connection.execute("SELECT id::text, title FROM products WHERE title <> ' '").fetchall()
    with database.connect(autocommit=True) as connection:
        release = get_release(connection, verified.release_id)
        assert release.state == "live"
        name = release.collection.name("objects")
        rows = connection.execute(f"SELECT object_id, body FROM estudio.{name}").fetchall()  # type: ignore[arg-type]
    assert len(written) > 9
    assert sorted(rows) == sorted(table)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = threading.Event()
    for _ in range(2_000):
        if condition():
            return
        deadline.wait(0.01)
    raise AssertionError("nothing was written for 20 s")
