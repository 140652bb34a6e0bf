"""Live items follow their table whatever happens meanwhile: switches, rollbacks, writes of the application."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

from estudio_core import database, writing
from estudio_core.pipeline.items import writer
from estudio_core.pipeline.items.embed_writes import embed_writes
from estudio_core.pipeline.items.parts import as_write
from estudio_core.pipeline.sync import sync
from estudio_core.plugin.registry import open_plugin
from estudio_core.searching import search
from estudio_core.sources.item_meta import ItemMeta
from estudio_core.vectordb import switching
from estudio_core.vectordb.releases import require_live
from estudio_core.writing import ItemWrite
from tests.pipeline.steps import build_release
from tests.pipeline.test_sync import QUEUE, TIMES, change_everything, in_collection, in_table, numbers

if TYPE_CHECKING:
    from tests.pipeline.conftest import Shop

SOON: dict[str, Any] = {"overlap_minutes": 0}


def roll_back() -> None:
    with database.connect(autocommit=True) as connection:
        switching.rollback(connection, "shop", embed_writes("shop"))


def personal_ids() -> list[str]:
    """Ids of all personal rows of the live collection, seen or not."""
    with database.connect(autocommit=True) as connection:
        statement = sql.SQL("SELECT object_id FROM {} WHERE user_id IS NOT NULL ORDER BY 1")
        objects = require_live(connection, "shop").collection.objects
        return [row[0] for row in connection.execute(statement.format(objects))]


def with_queue(shop: Shop) -> Any:
    """Let the plugin read a queue of changes; return it."""
    shop.rewrite_plugin('payload=("title", "kind")', QUEUE)
    loader = open_plugin("shop").loader
    shop.sql(loader.change_queue_sql())  # type: ignore[attr-defined]
    return loader.change_queue


@pytest.mark.parametrize("items", [TIMES, QUEUE], ids=["times", "queue"])
def test_after_a_rollback_live_items_have_what_only_the_release_taken_back_had_read(
    indexed_shop: Shop, items: str
) -> None:
    if items == QUEUE:
        with_queue(indexed_shop)
    else:
        indexed_shop.rewrite_plugin('payload=("title", "kind")', items)
    sync("shop", {})
    change_everything(indexed_shop)
    build_release("shop", "shop_v1", "second")
    assert numbers(sync("shop", SOON))[:3] == (0, 0, 0)
    roll_back()
    assert in_collection() != in_table(indexed_shop)
    done = sync("shop", SOON)
    assert (done.method, numbers(done)) == ("everything", (7, 4, 4, 1))
    assert in_collection() == in_table(indexed_shop)
    assert sync("shop", SOON).method != "everything"


def test_a_sync_that_is_killed_or_met_two_releases_has_not_seen_anything_for_a_rollback(
    indexed_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = type(with_queue(indexed_shop))
    sync("shop", {})
    read, acknowledge = queue.read, queue.acknowledge

    def switched_before(*arguments: Any) -> Any:
        build_release("shop", "shop_v1", "second")
        return read(*arguments)

    def killed_after(*arguments: Any) -> None:
        acknowledge(*arguments)
        raise KeyboardInterrupt

    indexed_shop.sql("UPDATE products SET title = 'a renewed lamp' WHERE id = 1")
    with monkeypatch.context() as patch:
        patch.setattr(queue, "read", switched_before)
        patch.setattr(queue, "acknowledge", killed_after)
        with pytest.raises(KeyboardInterrupt):
            sync("shop", {})
    roll_back()
    assert in_collection() != in_table(indexed_shop)
    assert numbers(sync("shop", {})) == (1, 0, 0, 0)
    assert in_collection() == in_table(indexed_shop)


def application_writes(shop: Shop) -> None:
    """Change items 50 and 51 in the table and in the index, delete 52 and 53 in both, and add 100."""
    shop.sql("UPDATE products SET title = 'the newest ' || id WHERE id IN (50, 51)")
    shop.sql("DELETE FROM products WHERE id IN (52, 53)")
    shop.sql("INSERT INTO products (id, title, kind) VALUES (100, 'the newest of all', 'boat')")
    rows = open_plugin("shop").loader.find_items([ItemMeta(object_id=key) for key in ("50", "51", "100")])
    writing.upsert("shop", [as_write(row) for row in rows.items])
    assert writing.delete("shop", ["52", "53"]).deleted == 2


@pytest.mark.parametrize("moment", ["while rows are streamed", "before rows are written"])
def test_a_sync_overwrites_nothing_that_was_acknowledged_since_its_rows_were_read(
    indexed_shop: Shop, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    indexed_shop.sql("UPDATE products SET title = 'old news of ' || id WHERE id >= 48")
    loader = type(open_plugin("shop").loader)
    stream, write = loader.iter_items, writer.write
    due = [application_writes]

    def held_open(*arguments: Any, **more: Any) -> Iterator[Any]:
        for batch in stream(*arguments, **more):
            yield batch
            if due:
                due.pop()(indexed_shop)

    def overtaken(*arguments: Any) -> Any:
        if due:
            due.pop()(indexed_shop)
        return write(*arguments)

    monkeypatch.setattr("estudio_core.pipeline.sync.READ_BATCH", 20)
    if moment == "while rows are streamed":
        monkeypatch.setattr(loader, "iter_items", held_open)
    else:
        monkeypatch.setattr(writer, "write", overtaken)
    done = sync("shop", {})
    assert in_collection() == in_table(indexed_shop)
    assert numbers(done) == (8, 0, 0, 0)


def test_personal_rows_carried_into_a_release_that_lacks_their_original_go_with_the_next_sync(
    indexed_shop: Shop,
) -> None:
    own = [ItemWrite(f"{key} of ann", "my very own trumpet", None, "ann", key) for key in ("7", "8", "998", "999")]
    writing.upsert("shop", own)
    indexed_shop.sql("DELETE FROM products WHERE id = 7")
    build_release("shop", "shop_v1", "second")
    found = [hit.object_id for hit in search("shop", "my very own trumpet", user_id="ann", limit=100).hits]
    assert (len(found), found[0], "7" in found) == (59, "8", False)
    indexed_shop.sql("INSERT INTO products (id, title, kind) VALUES (998, ' ', 'of no use so far')")
    sync("shop", {})
    assert personal_ids() == ["8 of ann", "998 of ann"]
    roll_back()
    assert personal_ids() == ["8 of ann", "998 of ann"]
