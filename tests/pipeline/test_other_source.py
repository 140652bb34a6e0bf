"""Items that are in no database: a loader over a list, from the first model to a search and a training set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from estudio_core.pipeline.extract import extract
from estudio_core.pipeline.preprocess import preprocess
from estudio_core.plugin.registry import open_plugin
from estudio_core.searching import search
from estudio_core.sources.data_loader import DataLoader, DownloadedItem, KeyRange, LoadResult
from estudio_core.sources.item_meta import ItemMeta
from tests.pipeline.conftest import KINDS, Shop, forget_plugins
from tests.pipeline.steps import initialize

PLUGIN = """
from estudio_core import GateSettings, TextModel, TextTraining, create_text_plugin
from tests.pipeline.test_other_source import ListLoader

plugin = create_text_plugin(
    "shop",
    items=ListLoader({kind!r}),
    model=TextModel(name={model!r}, max_tokens=48),
    training=TextTraining(test_size_ratio=0.4),
    gate=GateSettings(minimum_queries=2),
)
"""


class ShelfMeta(ItemMeta):
    """An item of a shelf."""


class ListLoader(DataLoader):
    """Sixty products that stand in a list, as texts or as dicts of fields."""

    item_meta_cls = ShelfMeta

    def __init__(self, kind: str) -> None:
        rows = [(f"a {KINDS[i % len(KINDS)]}", f"number {i}") for i in range(60)]
        self.rows = {
            str(i): f"{title} {note}" if kind == "texts" else {"title": title, "note": note}
            for i, (title, note) in enumerate(rows)
        }

    def find_items(self, metas: Sequence[ItemMeta]) -> LoadResult:
        assert all(type(meta) is ShelfMeta for meta in metas)
        wanted = dict.fromkeys(meta.id for meta in metas)
        return LoadResult(
            [self._item(key) for key in wanted if key in self.rows], [key for key in wanted if key not in self.rows]
        )

    def iter_items(self, key_range: KeyRange | None = None, batch_size: int = 1000) -> Iterator[LoadResult]:
        bounds = key_range or KeyRange()
        yield LoadResult([self._item(key) for key in sorted(self.rows) if _within(key, bounds)])

    def key_ranges(self, shards: int) -> list[KeyRange]:
        middle = sorted(self.rows)[len(self.rows) // 2]
        return [KeyRange(None, middle, 31), KeyRange(middle, None, 29)]

    def total_count(self) -> int:
        return len(self.rows)

    def check(self) -> None:
        assert self.rows

    def _item(self, key: str) -> DownloadedItem:
        return DownloadedItem(key, self.rows[key], ShelfMeta(object_id=key, payload={"shelf": int(key) % 3}))


def _within(key: str, bounds: KeyRange) -> bool:
    return (bounds.after is None or key > bounds.after) and (bounds.until is None or key <= bounds.until)


@pytest.fixture(params=["texts", "dicts"])
def listed_shop(request: pytest.FixtureRequest, shop: Shop) -> Shop:
    shop.sql("DROP TABLE products")
    shop.plugin_file.write_text(PLUGIN.format(kind=request.param, model=str(shop.model)))
    forget_plugins()
    return shop


def test_items_of_a_list_are_indexed_found_and_prepared_for_training(listed_shop: Shop) -> None:
    assert initialize("shop").version == "1"
    hits = search("shop", "a lamp number 0", limit=60).hits
    assert {hit.object_id for hit in hits} == {str(i) for i in range(60)}
    assert {hit.payload["shelf"] for hit in hits} == {0, 1, 2}
    text = open_plugin("shop").item_texts.preprocessor(open_plugin("shop").loader.rows["0"])  # type: ignore[attr-defined]
    assert text in ("a lamp number 0", "a lamp. number 0")
    listed_shop.search_sessions(60)
    dataset = preprocess("shop", "r1", extract("shop", "r1", {"min_sessions": 10}).as_dict())
    assert dataset.missing_items == 0
    assert dataset.sessions["train"] > 0
