"""A build says what it needs before it begins, and does not begin where that is not there."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from estudio_core.context import context
from estudio_core.errors import ConfigurationError
from estudio_core.pipeline.check_source import check_source
from estudio_core.pipeline.items import preflight as told
from estudio_core.pipeline.start_collection import start_collection
from estudio_core.plugin.registry import open_plugin
from estudio_core.plugin.validation import validate_plugin
from estudio_core.vectordb.sizing import Server, server
from tests.pipeline.test_release import published

if TYPE_CHECKING:
    from tests.pipeline.conftest import Shop


def test_a_check_of_the_source_tells_size_and_time_of_the_build(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert check_source("shop", 60).items == 60
    assert "60 items in 60 vectors: index in 128 MB of memory" in caplog.text
    [check] = told.size_check(context.plugin_manager, "shop")
    assert check.passed
    assert "GB free on its disk" in check.detail


@pytest.mark.parametrize(
    ("given", "cures"),
    [
        (Server(100_000, 1, 20_000), [r"of the database's disk, which has 19\.5 GB free", "halfvec"]),
        (Server(2_000, 0, None), ["ESTUDIO_INDEX_MEMORY_MB allow", "effective_cache_size", "index_timeout_minutes"]),
    ],
)
def test_what_cannot_fit_is_refused_with_the_cure(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, given: Server, cures: list[str]
) -> None:
    monkeypatch.setattr(type(open_plugin("shop").loader), "total_count", lambda _: 600_000_000)
    monkeypatch.setattr(told, "server", lambda conn: replace(server(conn), **vars(given)))
    for cure in cures:
        with pytest.raises(ConfigurationError, match=cure):
            check_source("shop", 60)
    [check] = told.size_check(context.plugin_manager, "shop")
    assert not check.passed
    assert check_source("shop").items == 600_000_000, "who gives no limit is told of rows alone"


def test_shards_are_sized_in_items(indexed_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = start_collection("shop", published("shop_v1"), 2, "second", 8)
    assert [each.count for each in shards] == [7, 8, 7, 8, 7, 8, 7, 8]
    assert [each.count for each in start_collection("shop", published("shop_v1"), 3, "second", 1_000)] == [20, 20, 20]


def test_validation_says_where_no_layer_is_left_to_train(shop: Shop) -> None:
    found = {check.what: check for check in validate_plugin(context.plugin_manager, "shop")}["trained layers"]
    assert (found.passed, found.detail) == (True, "1 of 2")
    shop.rewrite_plugin("num_fixed_layers=1, ", "")
    found = {check.what: check for check in validate_plugin(context.plugin_manager, "shop")}["trained layers"]
    assert not found.passed
    assert "num_fixed_layers is 3, and this EmbeddingModel has 2 layers" in found.detail
