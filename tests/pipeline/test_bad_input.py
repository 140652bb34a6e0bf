"""Bad input: a clear error that names the thing and the way out, and the live release keeps serving."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from estudio_core.errors import (
    DatabaseUnavailableError,
    DataError,
    DimensionError,
    ItemError,
    NotEnoughDataError,
    PluginError,
    RepositoryError,
    SourceSchemaError,
)
from estudio_core.pipeline.check_source import check_source
from estudio_core.pipeline.extract import extract
from estudio_core.pipeline.items.parts import ItemParts
from estudio_core.pipeline.preprocess import preprocess
from estudio_core.pipeline.publish_model import publish_model
from estudio_core.pipeline.register_base_model import register_base_model
from estudio_core.pipeline.sync import sync
from estudio_core.plugin.registry import open_plugin
from estudio_core.searching import search
from estudio_core.settings import get_settings
from estudio_core.vectordb.change_log import ItemWrite
from estudio_core.writing import refresh
from tests.pipeline.conftest import forget_plugins
from tests.pipeline.steps import initialize, release

if TYPE_CHECKING:
    from estudio_core.vectordb.change_log import ItemWrite
from tests.pipeline.conftest import Shop


def assert_still_serves() -> None:
    assert len(search("shop", "red lamp", limit=5).hits) == 5


def test_a_missing_table_is_named_with_the_nearest(shop: Shop) -> None:
    shop.rewrite_plugin('table="products"', 'table="product"')
    with pytest.raises(SourceSchemaError, match=r"product\b.*products"):
        check_source("shop")


def test_a_missing_column_is_named_with_the_nearest(shop: Shop) -> None:
    shop.rewrite_plugin('text="title"', 'text="titel"')
    with pytest.raises(SourceSchemaError, match=r"titel.*'title'"):
        check_source("shop")


def test_an_empty_table_says_so(shop: Shop) -> None:
    shop.sql("DELETE FROM products")
    with pytest.raises(DataError, match="has no rows"):
        check_source("shop")


def test_an_unreachable_database_is_named_without_its_password(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESTUDIO_DATABASE_URL", "postgresql://shop:hunter2@127.0.0.1:1/shop")
    get_settings.cache_clear()
    with pytest.raises(DatabaseUnavailableError, match=r"127\.0\.0\.1:1/shop") as caught:
        check_source("shop")
    assert "hunter2" not in str(caught.value)


def test_an_unreachable_item_source_is_named(shop: Shop) -> None:
    shop.rewrite_plugin('table="products"', 'table="products", url="postgresql://shop:hunter2@127.0.0.1:1/items"')
    with pytest.raises(DatabaseUnavailableError, match=r"127\.0\.0\.1") as caught:
        check_source("shop")
    assert "hunter2" not in str(caught.value)


def test_items_without_text_are_reported_and_stop_no_other(shop: Shop) -> None:
    shop.sql("UPDATE products SET title = '  ' WHERE id = 7")
    shop.sql("UPDATE products SET title = NULL WHERE id = 8")
    initialize("shop")
    assert_still_serves()
    hits = search("shop", "lamp", limit=60).hits
    assert len(hits) == 58
    assert {"7", "8"}.isdisjoint(hit.object_id for hit in hits)


@pytest.mark.parametrize("text", ["a lamp\x00", "a \ud800 lamp"])
def test_a_text_that_postgresql_cannot_store_is_the_fault_of_its_item(shop: Shop, text: str) -> None:
    item = ItemWrite("7", text)
    with pytest.raises(ItemError, match="'7' cannot be stored") as caught:
        ItemParts(open_plugin("shop")).split(item)
    assert caught.value.item_ids == ["7"]


def test_an_id_that_postgresql_cannot_index_is_the_fault_of_its_item(shop: Shop) -> None:
    shop.sql("ALTER TABLE products DROP CONSTRAINT products_pkey, ALTER COLUMN id TYPE text")
    shop.sql(
        "UPDATE products SET id = (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 200) n) WHERE id = '7'"
    )
    shop.sql("UPDATE products SET id = left(repeat(md5('8'), 38), 1200) WHERE id = '8'")
    initialize("shop")
    hits = search("shop", "lamp", limit=60).hits
    assert len(hits) == 59
    assert max(len(hit.object_id) for hit in hits) == 1200


def test_mostly_empty_texts_refuse_the_build(shop: Shop) -> None:
    shop.sql("UPDATE products SET title = '' WHERE id > 5")
    with pytest.raises(DataError, match="54 of 60 items"):
        initialize("shop")


def test_of_several_rows_of_an_id_build_sync_and_refresh_use_the_same_and_name_the_others(shop: Shop) -> None:
    initialize("shop")
    shop.sql("ALTER TABLE products DROP CONSTRAINT products_pkey")
    shop.sql("INSERT INTO products VALUES (7, 'AAA another seven', 'lamp'), (8, 'zzz another eight', 'lamp')")
    done = sync("shop", {})
    assert (done.invalid_items, sorted(done.invalid)) == (2, ["7", "8"])
    assert "2 rows have this id: one is used" in done.invalid["7"]
    assert done.embedded == 1  # of 7 the new row is the first by content, of 8 the old one

    def texts() -> dict[str, str]:
        hits = search("shop", "lamp", limit=60).hits
        return {hit.object_id: hit.payload["title"] for hit in hits if hit.object_id in {"7", "8"}}

    served = texts()
    assert served["7"] == "AAA another seven"
    assert served["8"] != "zzz another eight"
    counts = refresh("shop", ["7", "8", "9"])
    assert (counts.embedded, counts.unchanged, sorted(counts.left_out)) == (0, 3, ["7", "8"])
    release("shop", "1", "second")
    assert texts() == served
    assert len(search("shop", "lamp", limit=100).hits) == 60


def test_a_column_that_is_no_key_refuses_the_build_instead_of_leaving_most_rows_out(shop: Shop) -> None:
    shop.sql("ALTER TABLE products DROP CONSTRAINT products_pkey")
    shop.sql("UPDATE products SET id = mod(id, 10)")
    with pytest.raises(DataError, match=r"50 of 60 items .* rows have this id"):
        initialize("shop")


def test_a_model_of_another_dimension_is_refused_before_anything_is_built(shop: Shop) -> None:
    shop.plugin_file.write_text(
        shop.plugin_file.read_text()
        + "\nfrom dataclasses import replace\nfrom estudio_core import SearchIndexInfo\n"
        + "plugin = replace(plugin, build_index=lambda: SearchIndexInfo(dimensions=384))\n"
    )
    forget_plugins()
    check_source("shop")
    version = register_base_model("shop", "first", "ana")
    with pytest.raises(DimensionError, match=r"32 dimensions.*384"):
        publish_model("shop", version)


def test_no_clicks_and_one_session_are_skipped_with_their_count(shop: Shop) -> None:
    initialize("shop")
    with pytest.raises(NotEnoughDataError, match=r"^0 clicked sessions"):
        extract("shop", "r1", {})
    shop.search_sessions(1)
    with pytest.raises(NotEnoughDataError, match=r"^1 clicked sessions"):
        extract("shop", "r2", {"min_sessions": 2})
    # What an application says beside a search is its own affair: none of it is kept, and nothing fails of it.
    shop.sql('UPDATE estudio.ubi_queries SET query_attributes = \'{"segment": "x"}\'')
    sessions = extract("shop", "r3", {"min_sessions": 1})
    assert sessions.sessions == 1
    with pytest.raises(NotEnoughDataError):
        preprocess("shop", "r3", sessions.as_dict())
    assert_still_serves()


def test_sessions_without_any_click_are_skipped(shop: Shop) -> None:
    shop.search_sessions(40, clicks=False)
    with pytest.raises(NotEnoughDataError, match=r"^0 clicked sessions"):
        extract("shop", "r1", {})


def test_clicks_on_deleted_items_are_reported_and_left_out(shop: Shop) -> None:
    shop.search_sessions(60)
    shop.sql("DELETE FROM products WHERE id < 20")
    sessions = extract("shop", "r1", {"min_sessions": 10})
    dataset = preprocess("shop", "r1", sessions.as_dict())
    assert dataset.missing_items > 0
    assert dataset.sessions["train"] > 0


def test_too_few_held_out_queries_are_told_before_training(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.rewrite_plugin("GateSettings(minimum_queries=2)", "GateSettings(minimum_queries=24)")
    shop.search_sessions(120)
    sessions = extract("shop", "early", {"min_sessions": 10})
    preprocess("shop", "early", sessions.as_dict())
    assert "of 24 clicked queries are held out, and the gate needs 24 to decide by clicks" in caplog.text


def test_a_plugin_with_a_syntax_error_names_file_and_line(shop: Shop) -> None:
    shop.rewrite_plugin("plugin = create_text_plugin(", "plugin = = create_text_plugin(")
    with pytest.raises(PluginError, match=r"shop\.py, line 5"):
        check_source("shop")


def test_a_corrupt_model_is_never_served_and_the_release_run_again_mends_it(shop: Shop) -> None:
    initialize("shop")
    file = get_settings().triton_repository / "shop_v1" / "1" / "model.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    forget_plugins()
    with pytest.raises(RepositoryError, match=r"model\.onnx is corrupt"):
        search("shop", "red lamp")
    publish_model("shop", "1")
    assert_still_serves()


def test_a_repository_that_cannot_be_written_is_named_and_the_live_release_keeps_serving(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    initialize("shop")
    in_the_way = tmp_path / "a-file"
    in_the_way.write_text("not a folder")
    with monkeypatch.context() as patched:
        patched.setenv("ESTUDIO_TRITON_REPOSITORY", str(in_the_way / "repository"))
        forget_plugins()
        with pytest.raises(RepositoryError, match="a-file"):
            publish_model("shop", "1")
    forget_plugins()
    assert_still_serves()
