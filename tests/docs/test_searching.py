"""The page about searching: its examples run, one after another, against a shop, and every filter finds something."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from estudio_core.searching import search
from estudio_core.vectordb.filters import _LEAVES
from estudio_core.writing import ItemWrite, upsert
from tests.pipeline.conftest import (
    Shop,
    database_template,
    indexed_database,
    indexed_shop,
    shop,
    small_entry,
    small_model_folder,
)

__all__ = [
    "database_template",
    "indexed_database",
    "indexed_shop",
    "shop",
    "small_entry",
    "small_model_folder",
]

PAGE = (Path(__file__).parents[2] / "docs" / "searching.md").read_text(encoding="utf-8")
LAMP = {"title": "Brass lamp", "brand": "acme", "tags": ["red", "new"], "price": 20, "sku": "AB-17-x"}


def test_the_examples_run_and_every_filter_finds_what_it_says(indexed_shop: Shop) -> None:
    upsert("shop", [ItemWrite("900", "Brass lamp AB-17-x", LAMP)])
    filters = [json.loads(given) for given in re.findall(r"\| `(\{.*?\})` \|", PAGE)]
    operators = {next(iter(given)) for given in filters}
    assert operators == {*_LEAVES, "bool"}
    for given in filters:
        assert [hit.object_id for hit in search("shop", "lamp", filter=given).hits] == ["900"], given

    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)  # examples build on each other, as a reader types them
    pages = [hit.object_id for hit in names["first"].hits + names["second"].hits]
    assert len(set(pages)) == 20
    assert [hit.object_id for hit in names["cheap"].hits] == ["900"]
    assert names["by_words"][0].object_id == "900"
    assert [hit.object_id for hit in names["for_ann"] if hit.personal] == ["7"]
    assert search("shop", "lamp", filter={"term": {"title": "Green lamp"}}).hits == []
