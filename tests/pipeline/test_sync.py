"""Live items follow their table: what is new, changed or gone, found in every way, and nothing embedded twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from estudio_core import database, writing
from estudio_core.errors import ConcurrentReleaseError, DataError, ItemError, NothingLiveError, SourceSchemaError
from estudio_core.inference import opening
from estudio_core.inference.model_store import entry_of
from estudio_core.pipeline.items import writer
from estudio_core.pipeline.items.embed_writes import embed_writes
from estudio_core.pipeline.items.vector_store import VectorStore
from estudio_core.pipeline.sync import sync
from estudio_core.plugin.registry import open_plugin
from estudio_core.searching import search
from estudio_core.sources.pgsql_data_loader import PgsqlDataLoader
from estudio_core.vectordb import switching
from estudio_core.vectordb.locks import sync_lock
from estudio_core.vectordb.releases import live_release, require_live
from estudio_core.vectordb.search import count, find_by_filter, find_by_ids
from estudio_core.writing import ItemWrite
from tests.pipeline.steps import build_release

if TYPE_CHECKING:
    from estudio_core.pipeline.manifests import SyncManifest
    from tests.pipeline.conftest import Shop

TIMES = 'payload=("title", "kind"), updated_at="changed_at"'
QUEUE = 'payload=("title", "kind"), change_queue="product changes"'


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Texts that are embedded from here on."""
    texts: list[str] = []
    real = opening.open_bulk_embedder

    class Watched:
        def __init__(self, name: str) -> None:
            self._embedder = real(name)

        def tokenise_items(self, parts: Sequence[str]) -> Any:
            texts.extend(parts)
            return self._embedder.tokenise_items(parts)

        def embed_tokenised(self, tokenised: Any) -> Any:
            return self._embedder.embed_tokenised(tokenised)

    monkeypatch.setattr(opening, "open_bulk_embedder", Watched)
    return texts


def numbers(done: SyncManifest) -> tuple[int, int, int, int]:
    return done.embedded, done.payload_only, done.deleted, done.invalid_items


def in_table(shop: Shop) -> dict[str, dict[str, Any]]:
    with psycopg.connect(shop.database_url) as connection:
        rows = connection.execute("SELECT id::text, title, kind FROM products WHERE btrim(title) <> ''").fetchall()
    return {key: {"title": title, "kind": kind} for key, title, kind in rows}


def in_collection() -> dict[str, dict[str, Any]]:
    with database.connect() as connection:
        found = find_by_filter(connection, require_live(connection, "shop").collection, limit=1000)
    return {item.object_id: item.payload for item in found}


def change_everything(shop: Shop) -> None:
    """Change five texts, four payloads, delete three rows, add two, and empty one text."""
    shop.sql("UPDATE products SET title = title || ' renewed', changed_at = now() WHERE id < 5")
    shop.sql("UPDATE products SET kind = 'old ' || kind, changed_at = now() WHERE id BETWEEN 10 AND 13")
    shop.sql("DELETE FROM products WHERE id BETWEEN 20 AND 22")
    shop.sql("INSERT INTO products (id, title, kind) VALUES (100, 'blue boat', 'boat'), (101, 'blue kite', 'kite')")
    shop.sql("UPDATE products SET title = '  ', changed_at = now() WHERE id = 30")


@pytest.mark.parametrize(
    ("items", "method"), [("", "everything"), (TIMES, "updated_at"), (QUEUE, "queue")], ids=["hashes", "times", "queue"]
)
def test_live_items_follow_the_table_and_only_changed_texts_are_embedded(
    indexed_shop: Shop, encoded: list[str], items: str, method: str
) -> None:
    if items:
        indexed_shop.rewrite_plugin('payload=("title", "kind")', items)
    if method == "queue":
        indexed_shop.sql(open_plugin("shop").loader.change_queue_sql())  # type: ignore[attr-defined]
    first = sync("shop", {})
    assert (first.method, numbers(first), first.unchanged) == ("everything", (0, 0, 0, 0), 60)
    assert encoded == []

    change_everything(indexed_shop)
    done = sync("shop", {"overlap_minutes": 0})
    # a deleted row and one that lost its text are both gone from the collection
    assert (done.method, numbers(done)) == (method, (7, 4, 4, 1))
    assert list(done.invalid) == ["30"]
    assert len(encoded) == 7
    assert in_collection() == in_table(indexed_shop)
    assert "100" in [hit.object_id for hit in search("shop", "blue boat", limit=5).hits]

    again = sync("shop", {})
    assert (again.method, again.embedded, again.payload_only, again.deleted) == (method, 0, 0, 0)
    if method == "queue":
        assert again.read == 0
    assert len(encoded) == 7
    indexed_shop.sql("UPDATE products SET title = 'text again', changed_at = now() WHERE id = 30")
    assert sync("shop", {}).embedded == 1
    assert in_collection() == in_table(indexed_shop)


def test_a_row_that_comes_with_an_old_time_is_found_by_its_id_and_a_silent_change_by_comparing_everything(
    indexed_shop: Shop,
) -> None:
    indexed_shop.rewrite_plugin('payload=("title", "kind")', TIMES)
    sync("shop", {})
    indexed_shop.sql("INSERT INTO products VALUES (100, 'blue boat', 'boat', '2001-01-01')")
    indexed_shop.sql("UPDATE products SET title = 'changed without a word' WHERE id = 1")
    indexed_shop.sql("UPDATE products SET changed_at = '2001-01-01' WHERE id = 1")
    assert numbers(sync("shop", {"overlap_minutes": 0})) == (1, 0, 0, 0)
    assert numbers(sync("shop", {"everything": True})) == (1, 0, 0, 0)
    assert in_collection() == in_table(indexed_shop)


def test_a_sync_reads_what_changed_since_the_last_one_whatever_the_other_rows_say(indexed_shop: Shop) -> None:
    indexed_shop.rewrite_plugin('payload=("title", "kind")', TIMES)
    indexed_shop.sql("UPDATE products SET changed_at = '2999-01-01' WHERE id = 1")
    sync("shop", {})
    indexed_shop.sql("UPDATE products SET title = 'new lamp', changed_at = clock_timestamp() WHERE id = 2")
    done = sync("shop", {"overlap_minutes": 0})
    assert (done.read, numbers(done)) == (2, (1, 0, 0, 0))
    assert sync("shop", {"overlap_minutes": 0}).read == 1


def test_other_columns_in_the_plugin_make_the_next_sync_compare_everything(indexed_shop: Shop) -> None:
    indexed_shop.rewrite_plugin('payload=("title", "kind")', TIMES)
    sync("shop", {})
    indexed_shop.rewrite_plugin('payload=("title", "kind")', 'payload=("title",)')
    done = sync("shop", {})
    assert (done.method, numbers(done)) == ("everything", (0, 60, 0, 0))
    assert all(set(payload) == {"title"} for payload in in_collection().values())


def test_a_killed_sync_is_continued_where_it_was_and_its_queue_is_acknowledged_after_the_writes(
    indexed_shop: Shop, encoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    indexed_shop.rewrite_plugin('payload=("title", "kind")', QUEUE)
    loader = open_plugin("shop").loader
    indexed_shop.sql(loader.change_queue_sql())  # type: ignore[attr-defined]
    sync("shop", {})
    queue = loader.change_queue
    assert queue is not None
    indexed_shop.sql("UPDATE products SET title = title || ' renewed' WHERE id < 12")
    monkeypatch.setattr(writer, "WRITE_BATCH", 5)
    real = writer.write

    def killed_at(number: int) -> Callable[..., Any]:
        calls = []

        def write(*arguments: Any) -> Any:
            calls.append(arguments)
            if len(calls) == number:
                raise KeyboardInterrupt
            return real(*arguments)

        return write

    with monkeypatch.context() as patch:
        patch.setattr(writer, "write", killed_at(2))
        with pytest.raises(KeyboardInterrupt):
            sync("shop", {})
    assert queue.depth() == 12
    assert len(encoded) == 5
    with monkeypatch.context() as patch:
        patch.setattr(type(queue), "acknowledge", killed_at(1))
        with pytest.raises(KeyboardInterrupt):
            sync("shop", {})
    assert queue.depth() == 12
    assert len(encoded) == 12
    done = sync("shop", {})
    assert (done.unchanged, numbers(done), queue.depth(), len(encoded)) == (12, (0, 0, 0, 0), 0, 12)
    assert in_collection() == in_table(indexed_shop)


def test_the_queue_keeps_what_commits_late_and_follows_changed_keys_and_truncation(indexed_shop: Shop) -> None:
    indexed_shop.rewrite_plugin('payload=("title", "kind")', QUEUE)
    with pytest.raises(SourceSchemaError, match="plugins queue-sql"):
        sync("shop", {})
    loader = open_plugin("shop").loader
    statements = loader.change_queue_sql()  # type: ignore[attr-defined]
    for _ in range(2):
        indexed_shop.sql(statements)
    sync("shop", {})
    with psycopg.connect(indexed_shop.database_url) as late:
        late.execute("UPDATE products SET title = 'late lamp' WHERE id = 1")
        indexed_shop.sql("UPDATE products SET id = 1000 WHERE id = 2")
        assert numbers(sync("shop", {})) == (1, 0, 1, 0)
    assert numbers(sync("shop", {})) == (1, 0, 0, 0)
    assert in_collection() == in_table(indexed_shop)
    indexed_shop.sql("DELETE FROM products WHERE id < 40")
    with pytest.raises(DataError, match="39 of 60 live items"):
        sync("shop", {})
    assert len(in_collection()) == 60
    indexed_shop.sql("TRUNCATE products")
    indexed_shop.sql("INSERT INTO products (id, title, kind) VALUES (1, 'only lamp', 'lamp')")
    with pytest.raises(DataError, match="59 of 60 live items"):
        sync("shop", {})
    # All rows are compared for what is in the catalog, and the queue says once more that the table was emptied.
    assert sync("shop", {"most_deleted_share": 1}).deleted == 59
    assert in_collection() == in_table(indexed_shop)


@pytest.mark.parametrize("items", ["", TIMES, QUEUE], ids=["hashes", "times", "queue"])
def test_an_update_that_empties_most_texts_is_refused_as_deletions_are(indexed_shop: Shop, items: str) -> None:
    indexed_shop.rewrite_plugin('payload=("title", "kind")', items or 'payload=("title", "kind")')
    if items == QUEUE:
        indexed_shop.sql(open_plugin("shop").loader.change_queue_sql())  # type: ignore[attr-defined]
    sync("shop", {})
    before = in_collection()
    indexed_shop.sql("UPDATE products SET title = ' ', changed_at = now() WHERE id < 45")
    with pytest.raises(DataError, match=r"45 of 60 live items .* rows cannot be used \(45, such as "):
        sync("shop", {})
    assert in_collection() == before
    assert sync("shop", {"most_deleted_share": 1}).deleted == 45
    assert in_collection() == in_table(indexed_shop)


def test_items_that_the_model_s_side_refuses_are_no_reason_to_empty_the_index(
    indexed_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync("shop", {})
    before = in_collection()
    indexed_shop.sql("UPDATE products SET title = title || ' renewed'")
    real = writer.write

    def refused(connection: Any, plugin: str, items: Sequence[ItemWrite], *rest: Any) -> Any:
        if items:
            raise ItemError("A preprocessor fails.", [item.object_id for item in items])
        return real(connection, plugin, items, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "write", refused)
        with pytest.raises(DataError, match=r"60 of 60 live items .* A preprocessor fails"):
            sync("shop", {})
    assert in_collection() == before


def test_a_sync_during_a_build_reaches_the_new_release_and_a_rollback_has_the_later_ones(
    indexed_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from estudio_core.pipeline import verify as verify_step

    real = verify_step.catch_up

    def changes_before(*arguments: Any) -> Any:
        change_everything(indexed_shop)
        sync("shop", {})
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(verify_step, "catch_up", changes_before)
        second = build_release("shop", "shop_v1", "second")
    assert in_collection() == in_table(indexed_shop)
    indexed_shop.sql("UPDATE products SET title = 'after the switch' WHERE id = 40")
    indexed_shop.sql("DELETE FROM products WHERE id = 41")
    assert sync("shop", {}).release_id == second.release_id
    with database.connect(autocommit=True) as connection:
        switching.rollback(connection, "shop", embed_writes("shop"))
    assert in_collection() == in_table(indexed_shop)
    assert numbers(sync("shop", {})) == (0, 0, 0, 1)


def test_nothing_live_two_at_once_and_an_emptied_table_are_refused(indexed_shop: Shop) -> None:
    with (
        database.connect(autocommit=True) as other,
        sync_lock(other, "shop"),
        pytest.raises(ConcurrentReleaseError, match="being synced"),
    ):
        sync("shop", {})
    indexed_shop.sql("DELETE FROM products")
    with pytest.raises(DataError, match="60 of 60 live items"):
        sync("shop", {})
    assert len(in_collection()) == 60
    with database.connect(autocommit=True) as connection:
        connection.execute("DELETE FROM estudio.pointers")
    with pytest.raises(NothingLiveError, match="shop__initialize"):
        sync("shop", {})


def test_an_application_writes_deletes_and_refreshes_items_and_personal_rows(indexed_shop: Shop) -> None:
    items = [ItemWrite(str(number), f"green sofa number {number}", {"kind": "sofa"}) for number in range(200, 500)]
    for _ in range(2):
        assert writing.upsert("shop", items).upserted == 300
    assert writing.delete("shop", ["200", "missing"]).deleted == 1
    assert writing.delete("shop", ["200"]).deleted == 0
    hits = search("shop", "green sofa", limit=400, filter={"term": {"kind": "sofa"}}).hits
    assert len(hits) == 299
    writing.upsert("shop", [ItemWrite("201 for ann", "my very own garden chair", None, "ann", "201")])
    own, _ = (search("shop", "my very own garden chair", limit=1, user_id=user).hits[0] for user in ("ann", None))
    assert (own.object_id, own.payload) == ("201", {"kind": "sofa"})
    with pytest.raises(ItemError, match="'bad'") as caught:
        writing.upsert("shop", [ItemWrite("good", "fine"), ItemWrite("bad", " ")])
    assert caught.value.item_ids == ["bad"]

    indexed_shop.sql("UPDATE products SET title = 'a brass trumpet' WHERE id = 3")
    counts = writing.refresh("shop", ["3", "4", "201"])
    assert (counts.embedded, counts.unchanged, counts.deleted) == (1, 1, 1)
    with database.connect() as connection:
        live = live_release(connection, "shop")
        assert live is not None
        assert find_by_ids(connection, live.collection, ["201", "201 for ann"]) == []
        assert count(connection, live.collection) == 60 + 298


def test_equal_content_makes_no_personal_row_of_a_shared_one_nor_the_other_way_round(indexed_shop: Shop) -> None:
    def of_everybody() -> bool:
        hits = search("shop", "teal stool", limit=1).hits
        return hits[0].object_id == "stool"

    writing.upsert("shop", [ItemWrite("stool", "teal stool")])
    assert of_everybody()
    writing.upsert("shop", [ItemWrite("stool", "teal stool", None, "ann", "3")])
    assert not of_everybody()
    writing.upsert("shop", [ItemWrite("stool", "teal stool")])
    assert of_everybody()


def test_objects_of_one_text_have_its_vectors_once(indexed_shop: Shop) -> None:
    writing.upsert("shop", [ItemWrite(f"twin {number}", "teal stool") for number in range(30)])
    with database.connect() as connection:
        release = require_live(connection, "shop")
    digest = entry_of(release.model_name).digest
    assert {len(vectors) for _, vectors in VectorStore.from_live_collection("shop", digest)} == {1}


def compared_hours_ago(shop: Shop, hours: float) -> None:
    shop.sql("UPDATE estudio.sync_state SET compared_at = compared_at - make_interval(secs => %s)", hours * 3600)


@pytest.mark.parametrize("items", [TIMES, QUEUE], ids=["times", "queue"])
def test_what_nothing_told_of_is_found_within_the_hours_that_are_set(indexed_shop: Shop, items: str) -> None:
    indexed_shop.rewrite_plugin('payload=("title", "kind")', items)
    if items == QUEUE:
        loader = open_plugin("shop").loader
        assert isinstance(loader, PgsqlDataLoader)
        with psycopg.connect(indexed_shop.database_url) as connection:
            connection.execute(loader.change_queue_sql())
    assert sync("shop", {}).method == "everything"
    with psycopg.connect(indexed_shop.database_url) as connection:
        connection.execute("SET LOCAL session_replication_role = replica")
        connection.execute("ALTER TABLE products DISABLE TRIGGER USER")
        connection.execute("DELETE FROM products WHERE id < 10")
        connection.execute("UPDATE products SET title = 'put back', changed_at = changed_at WHERE id = 11")
        connection.execute("ALTER TABLE products ENABLE TRIGGER USER")
    early = sync("shop", {"overlap_minutes": 0})
    assert early.method != "everything"
    assert in_collection()["11"]["title"] != "put back"
    compared_hours_ago(indexed_shop, 5)
    assert sync("shop", {"compare_hours": 6, "overlap_minutes": 0}).method == early.method
    late = sync("shop", {"compare_hours": 4})
    assert (late.method, late.compare_hours) == ("everything", 4)
    assert in_collection() == in_table(indexed_shop)
    again = sync("shop", {})
    assert (again.method, again.compared_at, again.compare_hours) == (early.method, late.compared_at, 24)
    assert sync("shop", {"compare_hours": 0}).method == "everything"
