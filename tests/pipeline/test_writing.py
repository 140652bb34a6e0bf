"""Writes of an application: lists of ids, and nothing that merely looks like one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from estudio_core import database
from estudio_core.clickstream.ubi import UbiQuery
from estudio_core.errors import ConfigurationError
from estudio_core.searching import search
from estudio_core.vectordb.releases import require_live
from estudio_core.vectordb.search import find_by_ids
from estudio_core.writing import ItemWrite, delete, refresh, upsert
from tests.pipeline.conftest import Shop


def live_ids() -> set[str]:
    return {hit.object_id for hit in search("shop", "lamp", limit=100).hits}


@pytest.mark.parametrize(
    "given", ["12", b"12", {"1": True}, 12, None, [None], [True], [1.0], [["1"]], [b"1"]], ids=repr
)
@pytest.mark.parametrize("write", [delete, refresh])
def test_what_is_no_list_of_ids_is_refused_and_nothing_is_deleted(
    indexed_shop: Shop, write: Callable[..., Any], given: Any
) -> None:
    indexed_shop.sql("DELETE FROM products")
    with pytest.raises(ConfigurationError, match="object_ids"):
        write("shop", given)
    assert len(live_ids()) == 60


def test_numbers_are_ids_as_texts(indexed_shop: Shop) -> None:
    upsert("shop", [ItemWrite(1001, "green lamp"), ItemWrite("mine", "my lamp", None, user_id=7, original_id=1001)])  # type: ignore[arg-type]
    assert "1001" in live_ids()
    [mine] = [hit for hit in search("shop", "my lamp", limit=100, user_id="7").hits if hit.personal]
    assert mine.object_id == "1001"
    assert delete("shop", [1, 2, "3"]).deleted == 3
    indexed_shop.sql("DELETE FROM products WHERE id = 4")
    assert refresh("shop", iter((1, 4))).numbers == {
        "read": 2, "embedded": 1, "payload_only": 0, "unchanged": 0, "deleted": 1, "invalid_items": 0,
    }  # fmt: skip
    assert live_ids() == {"1001", "0", "1", *(str(number) for number in range(5, 60))}


def test_a_uuid_is_the_id_that_it_is_written_as(indexed_shop: Shop) -> None:
    unique = UUID("12345678-1234-5678-1234-567812345678")
    upsert("shop", [ItemWrite(unique, "green lamp")])  # type: ignore[arg-type]
    assert str(unique) in live_ids()
    assert delete("shop", {unique}).deleted == 1


@pytest.mark.parametrize("given", ["12", ItemWrite("1", "lamp"), {"1": "lamp"}, [("1", "lamp")], ["1"], None])
def test_what_is_no_list_of_items_is_refused(indexed_shop: Shop, given: Any) -> None:
    with pytest.raises(ConfigurationError, match="ItemWrite"):
        upsert("shop", given)


@pytest.mark.parametrize("given", [None, 1.5, ["1"], True])
def test_what_is_no_id_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="object_id is a text or an integer"):
        ItemWrite(given, "lamp")


def test_objects_are_found_by_a_list_of_ids_alone(indexed_shop: Shop) -> None:
    with database.connect(autocommit=True) as connection:
        collection = require_live(connection, "shop").collection
        assert [found.object_id for found in find_by_ids(connection, collection, [12, "1", "\ud800"])] == ["12", "1"]  # type: ignore[list-item]
        with pytest.raises(ConfigurationError, match="object_ids"):
            find_by_ids(connection, collection, "12")


def test_the_hits_of_a_logged_query_are_a_list() -> None:
    assert UbiQuery("q", "lamp", datetime.now(UTC), "shop", (1, "2")).query_response_hit_ids == ("1", "2")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="Hits is a list of ids; given '12'"):
        UbiQuery("q", "lamp", datetime.now(UTC), "shop", "12")  # type: ignore[arg-type]
