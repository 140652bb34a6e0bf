"""Rows that cannot be used are left out and named, by build, sync, refresh and writes alike; the others go through."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from estudio_core import database
from estudio_core.errors import ItemError
from estudio_core.lexical.settings import Bm25Settings
from estudio_core.pipeline.embed_shard import embed_shard
from estudio_core.pipeline.start_collection import start_collection
from estudio_core.pipeline.sync import sync
from estudio_core.searching import search
from estudio_core.vectordb.index_info import MetricAggregationType, SearchIndexInfo
from estudio_core.vectordb.objects import IndexedObject, KeptObject, check_object, check_payload, check_title
from estudio_core.writing import ItemWrite, delete, refresh, upsert
from tests.pipeline.conftest import Shop
from tests.pipeline.steps import build_release

LONG_ID = "long" * 400
ODD: dict[str, tuple[str, str]] = {
    "": ("'', 'a lamp', 'null'", "has an empty id"),
    "nul": ("""'nul', 'a lamp', '{"a": "x\\u0000y"}'""", "storable text"),
    "half": ("""'half', 'a lamp', '{"a": "\\ud800"}'""", "storable text"),
    "nul-name": ("""'nul-name', 'a lamp', '{"\\u0000": 1}'""", "storable text"),
    "digits": ("""'digits', 'a lamp', '{"a": 1' || repeat('0', 5000) || '}'""", "cannot be read as JSON"),
    "tiny": ("""'tiny', 'a lamp', '{"a": 1e-5000}'""", "more than 4,000 digits"),
    "huge": ("""'huge', 'a lamp', '{"a": 1e5000}'""", "more than 4,000 digits"),
    "deep": ("""'deep', 'a lamp', (repeat('[', 200) || repeat(']', 200))""", "more than 100 levels"),
    "abyss": ("""'abyss', 'a lamp', (repeat('[', 3000) || repeat(']', 3000))""", "cannot be read as JSON"),
    LONG_ID: (f"'{LONG_ID}', 'a lamp', 'null'", "1,600 bytes"),
    "blank": ("'blank', E' \\n', 'null'", "blank"),
    "(no id)": ("NULL, 'a lamp', 'null'", "2 rows have no 'id'"),
}
GOOD = {"number": 123456789012345678901234567890, "exact": Decimal("0.1234567890123456789"), "till": "24:00:00"}


@pytest.fixture
def odd_shop(indexed_shop: Shop) -> Shop:
    """The shop with text ids, a payload of all kinds, and one usable row more."""
    indexed_shop.sql("ALTER TABLE products DROP CONSTRAINT products_pkey, ALTER COLUMN id TYPE text")
    indexed_shop.sql("ALTER TABLE products ALTER COLUMN id DROP NOT NULL")
    indexed_shop.sql(
        "ALTER TABLE products ADD COLUMN more json, ADD COLUMN number numeric, ADD COLUMN exact numeric,"
        " ADD COLUMN till time, ADD COLUMN offered daterange"
    )
    indexed_shop.sql("UPDATE products SET offered = '[2026-01-01,2026-02-01)'")
    indexed_shop.rewrite_plugin(
        'payload=("title", "kind")', 'payload=("title", "kind", "more", "number", "exact", "till", "offered")'
    )
    indexed_shop.sql(
        "INSERT INTO products (id, title, number, exact, till) VALUES ('good', 'a lamp', %s, %s, %s)", *GOOD.values()
    )
    return indexed_shop


def add_odd_rows(shop: Shop) -> None:
    for values, _ in ODD.values():
        given = f"SELECT v.id, v.title, v.more::json FROM (VALUES ({values})) AS v (id, title, more)"
        shop.sql(f"INSERT INTO products (id, title, more) {given}")
    shop.sql("INSERT INTO products (id, title) VALUES (NULL, 'another lamp')")


def assert_good_ones_are_there() -> None:
    hits = {hit.object_id: hit.payload for hit in search("shop", "lamp", limit=200).hits}
    assert hits.keys() == {"good", *(str(number) for number in range(60))}
    assert {name: hits["good"][name] for name in GOOD} == GOOD
    assert type(hits["good"]["exact"]) is Decimal
    assert hits["7"]["offered"] == "[2026-01-01,2026-02-01)"


def assert_all_are_named(invalid: dict[str, str]) -> None:
    assert invalid.keys() == ODD.keys()
    assert [key for key, (_, reason) in ODD.items() if reason not in invalid[key]] == []


def test_a_build_leaves_them_out(odd_shop: Shop) -> None:
    add_odd_rows(odd_shop)
    entry = {"name": "shop_v1", "version": "1", "digest": "x", "dimensions": 32}
    shards = start_collection("shop", entry, 3, "looked at")
    loaded = [embed_shard("shop", shard.as_dict()) for shard in shards]
    assert_all_are_named({key: reason for shard in loaded for key, reason in shard.invalid.items()})
    assert (sum(shard.items for shard in loaded), sum(shard.invalid_items for shard in loaded)) == (61, 12)
    with database.connect(autocommit=True) as connection:
        connection.execute("UPDATE estudio.deployments SET state = 'failed' WHERE run_id = 'looked at'")
    build_release("shop", "shop_v1", "second")
    assert_good_ones_are_there()


def test_a_sync_leaves_them_out_and_the_next_finds_nothing_to_do(odd_shop: Shop) -> None:
    add_odd_rows(odd_shop)
    done = sync("shop", {})
    assert_all_are_named(done.invalid)
    assert_good_ones_are_there()
    again = sync("shop", {})
    assert (again.embedded, again.payload_only, again.deleted, again.unchanged) == (0, 0, 0, 61)
    assert_all_are_named(again.invalid)


def test_refresh_leaves_them_out(odd_shop: Shop) -> None:
    sync("shop", {})
    add_odd_rows(odd_shop)
    counts = refresh("shop", [*ODD, "good"])
    wanted = {key: reason for key, reason in counts.invalid.items() if key != "(no id)"}
    assert_all_are_named({**wanted, "(no id)": "2 rows have no 'id'"})
    assert_good_ones_are_there()


def _deep(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


WRITES: dict[str, tuple[ItemWrite, str]] = {
    "empty id": (ItemWrite("", "a lamp"), "empty"),
    "long id": (ItemWrite(LONG_ID, "a lamp"), "1,600 bytes"),
    "id with NUL": (ItemWrite("a\0", "a lamp"), "cannot be stored"),
    "empty user": (ItemWrite("a", "a lamp", None, user_id="", original_id="1"), "empty"),
    "no text": (ItemWrite("a", " "), "no text"),
    "text with NUL": (ItemWrite("a", "a\0lamp"), "cannot be stored"),
    "half of a pair": (ItemWrite("a", "\ud800"), "cannot be stored|no JSON"),
    "bytes": (ItemWrite("a", b"a lamp"), "no JSON"),
    "payload with NUL": (ItemWrite("a", "a lamp", {"a": ["\0"]}), "storable text"),
    "payload with a set": (ItemWrite("a", "a lamp", {"a": {1}}), "set, which JSON does not have"),
    "payload with NaN": (ItemWrite("a", "a lamp", {"a": [float("nan")]}), "nan"),
    "payload with infinity": (ItemWrite("a", "a lamp", {"a": Decimal("Infinity")}), "Infinity"),
    "payload with a number for a name": (ItemWrite("a", "a lamp", {"a": {1: 2}}), "the key 1"),  # type: ignore[dict-item]
    "payload that is a list": (ItemWrite("a", "a lamp", [1]), "no JSON object"),  # type: ignore[arg-type]
    "long number": (ItemWrite("a", "a lamp", {"a": 10**4500}), "no JSON"),
    "long fraction": (ItemWrite("a", "a lamp", {"a": Decimal("1e-5000")}), "4,000 digits"),
    "large payload": (ItemWrite("a", "a lamp", {"a": "x" * 17_000_000}), "16,000,000"),
    "circle": (ItemWrite("a", "a lamp", (circle := {"a": {}})), "100 levels"),
    "list": (ItemWrite("a", json.loads("[" * 500 + "]" * 500)), "got list"),
    "deep data": (ItemWrite("a", {"a": _deep(5_000)}), "nested too deeply|no JSON"),
}  # fmt: skip
circle["a"]["a"] = circle  # type: ignore[index]


@pytest.mark.parametrize("case", WRITES)
def test_a_write_is_refused_with_its_id_and_nothing_of_its_batch_is_written(indexed_shop: Shop, case: str) -> None:
    item, reason = WRITES[case]
    with pytest.raises(ItemError, match=reason) as caught:
        upsert("shop", [ItemWrite("fine", "a fine lamp"), item])
    assert caught.value.item_ids == [item.object_id]
    assert len(search("shop", "lamp", limit=100).hits) == 60
    with database.connect(autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM estudio.change_log").fetchone() == (0,)


def test_exact_numbers_are_written_found_and_kept_by_the_next_release(indexed_shop: Shop) -> None:
    indexed_shop.sql("INSERT INTO products VALUES (100, 'x', 'lamp')")
    payload: dict[str, Any] = {"n": Decimal("12345678901234567890.12345"), "m": 2**60, "f": 0.1}
    upsert("shop", [ItemWrite("100", {"title": "a lamp", "size": Decimal("0.12345678901234567")}, payload)])
    [hit] = search("shop", "lamp", filter={"range": {"n": {"gt": Decimal("12345678901234567890.12344")}}}).hits
    assert hit.payload == payload
    assert not search("shop", "lamp", filter={"range": {"n": {"gt": Decimal("12345678901234567890.12345")}}}).hits
    assert [hit.object_id for hit in search("shop", "lamp", filter={"term": {"n": payload["n"]}}).hits] == ["100"]


def test_a_delete_of_what_cannot_be_an_id_is_named(indexed_shop: Shop) -> None:
    for odd in ("a\0b", "\ud800"):
        for write in (delete, refresh):
            with pytest.raises(ItemError, match="cannot be stored"):
                write("shop", ["1", odd])
    assert len(search("shop", "lamp", limit=100).hits) == 60
    assert delete("shop", ["", LONG_ID]).deleted == 0


def test_what_an_index_would_not_find_is_the_fault_of_its_object() -> None:
    info = SearchIndexInfo(dimensions=2, lexical=Bm25Settings(title="title"))
    averaged = info.model_copy(update={"metric_aggregation_type": MetricAggregationType.AVG})
    cases: list[tuple[SearchIndexInfo, list[list[float]], dict[str, Any], str]] = [
        (info, [[0, 0]], {}, "zero vector"),
        (info, [[1, 0], [np.nan, 1]], {}, "not finite"),
        (averaged, [[1, 0], [-1, 0]], {}, "cancel each other out"),
        (info, [[1, 0]], {"title": "ж" * 10_001}, "20,002 bytes"),
        (info, [[1, 0]], {"title": ["x" * 20_000]}, "20,004 bytes"),
    ]
    for index, vectors, payload, reason in cases:
        with pytest.raises(ItemError, match=reason) as caught:
            check_object(IndexedObject("a", payload, "h", np.array(vectors, dtype=np.float32)), index)
        assert caught.value.item_ids == ["a"]
    check_object(IndexedObject("a", {"title": "x" * 20_000}, "h", np.array([[1.0, 0.0]])), info)
    with pytest.raises(ItemError, match="title"):
        check_title(KeptObject("a", {"title": "x" * 20_001}, "h"), info)
    check_payload(None, "a")


def test_texts_and_titles_of_any_length_are_searched_by_their_beginning(indexed_shop: Shop) -> None:
    long = "SELECT 100, string_agg('ab' || n || '-' || n, ' '), 'x' FROM generate_series(1, 60000) n"
    indexed_shop.sql(f"INSERT INTO products (id, title, kind) {long}")
    assert sync("shop", {}).invalid == {}
    assert [hit.object_id for hit in search("shop", "ab77-77", mode="words").hits] == ["100"]
