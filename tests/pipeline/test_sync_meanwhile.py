"""Live items follow their table whatever happens meanwhile: switches, rollbacks, writes of the application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from estudio_core import database
from estudio_core.pipeline.embed_writes import embed_writes
from estudio_core.pipeline.plugin_access import open_plugin
from estudio_core.pipeline.sync import sync
from estudio_core.vectordb import deployments
from tests.pipeline.steps import build_release
from tests.pipeline.test_sync import QUEUE, TIMES, change_everything, in_collection, in_table, numbers

if TYPE_CHECKING:
    from tests.pipeline.conftest import Shop

SOON: dict[str, Any] = {"overlap_minutes": 0}


def roll_back() -> None:
    with database.connect(autocommit=True) as connection:
        deployments.rollback(connection, "shop", embed_writes("shop"))


def with_queue(shop: Shop) -> Any:
    """Let the plugin read a queue of changes; return it."""
    shop.rewrite_plugin('payload=("title", "kind")', QUEUE)
    loader = open_plugin("shop").get_data_loader()
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
