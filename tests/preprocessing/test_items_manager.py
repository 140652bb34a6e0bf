from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from estudio_core.clickstream.ranking_data import FineTuningInput, ItemsSet, Split
from estudio_core.errors import ConfigurationError, ItemError
from estudio_core.plugin.tutorial import DatasetFieldsNormalizer, DictItemSetManager, TextItemSetManager
from estudio_core.preprocessing.augmentations import (
    AugmentationsComposition,
    ChangeCases,
    ItemsSetAugmentationApplier,
    Misspellings,
)
from estudio_core.preprocessing.items_manager import ItemSetManager
from estudio_core.preprocessing.splitters import (
    DummySentenceSplitter,
    ItemsSetSplitter,
    NoSplitter,
    TokenGroupTextSplitter,
)
from estudio_core.progress import Progress, progress_to
from estudio_core.sources.data_loader import DownloadedItem
from estudio_core.sources.item_meta import PgsqlFileMeta


def item(object_id: str, data: object) -> DownloadedItem:
    return DownloadedItem(object_id, data, PgsqlFileMeta(object_id=object_id))


def showing(*results: str) -> FineTuningInput:
    count = len(results)
    return FineTuningInput(
        "-".join(results), "q", results, tuple(range(count)), (None,) * count, (1.0,) + (0.0,) * (count - 1)
    )


def clickstream(train: Sequence[str], dev: Sequence[str]) -> dict[Split, list[FineTuningInput]]:
    return {"train": [showing(*train)], "dev": [showing(*dev)]}


def items_set(manager: ItemSetManager, items: list[DownloadedItem], train: list[str], dev: list[str]) -> ItemsSet:
    return manager.items_set(manager.prepare(items), clickstream(train, dev))


def tutorial_manager(minilm_path: Path) -> TextItemSetManager:
    """The constructor call of the plugin tutorial, on another model."""
    from transformers import AutoTokenizer

    return TextItemSetManager(
        DatasetFieldsNormalizer("item", "item_id"),
        items_set_splitter=ItemsSetSplitter(
            TokenGroupTextSplitter(
                tokenizer=AutoTokenizer.from_pretrained(minilm_path),
                blocks_splitter=DummySentenceSplitter(),
                max_tokens=512,
            )
        ),
        augmenter=ItemsSetAugmentationApplier(AugmentationsComposition([ChangeCases(5), Misspellings(5)])),
        do_augment_test=False,
    )


def test_the_tutorials_manager_splits_augments_and_shows_its_parts(minilm_path: Path) -> None:
    manager = tutorial_manager(minilm_path)
    assert isinstance(manager.item_splitter, TokenGroupTextSplitter)
    long = "A sentence about lamps. " * 200
    items = items_set(manager, [item("1", "A lamp."), item("2", long), item("3", "A chair.")], ["1", "2"], ["2", "3"])
    assert items["1"] == ("A lamp.",)
    assert len(items["2"]) == 2
    assert " ".join(items["2"]) == long.strip()
    assert ("a lamp.",) in items.variants("1")
    assert ("A LAMP.",) in items.variants("1")
    assert len(set(items.variants("1"))) == len(items.variants("1"))
    assert [len(parts) >= 2 for parts in items.variants("2")] == [True] * len(items.variants("2"))
    assert items.variants("3") == [("A chair.",)]


def test_items_of_tests_are_augmented_on_request() -> None:
    manager = TextItemSetManager(augmenter=ItemsSetAugmentationApplier(ChangeCases()), do_augment_test=True)
    items = items_set(manager, [item("1", "A"), item("2", "B")], ["1"], ["2"])
    assert items.variants("2") == [("B",), ("b",)]


def test_names_that_no_loader_gives_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="arguments of the loader"):
        DatasetFieldsNormalizer("content", "id")


def test_only_items_that_occur_are_kept() -> None:
    items = items_set(TextItemSetManager(), [item("1", "a"), item("2", "b"), item("3", "c")], ["1"], ["3"])
    assert list(items) == ["1", "3"]


def test_items_without_text_or_of_another_kind_are_reported_and_stop_no_other() -> None:
    prepared = TextItemSetManager().prepare([item("1", " "), item("2", "b"), item("3", None), item("4", 5)])
    assert prepared.parts == {"2": ("b",)}
    assert prepared.texts == {"2": "b"}
    assert prepared.invalid.keys() == {"1", "3", "4"}
    assert "empty" in prepared.invalid["1"]
    assert "got int" in prepared.invalid["4"]


def test_an_item_that_occurs_and_has_no_text_is_an_error_with_its_id() -> None:
    with pytest.raises(ItemError, match=r"'1', '9'") as caught:
        items_set(TextItemSetManager(), [item("1", " "), item("2", "b")], ["1", "2"], ["9"])
    assert caught.value.item_ids == ["1", "9"]


def test_an_id_that_stands_twice_is_an_error() -> None:
    with pytest.raises(ItemError, match="unique id column") as caught:
        TextItemSetManager().prepare([item("1", "a"), item("1", "b"), item("2", ""), item("3", "c")])
    assert caught.value.item_ids == ["1"]


def test_dicts_become_lines() -> None:
    manager = DictItemSetManager(DatasetFieldsNormalizer("item", "item_id"))
    assert isinstance(manager.item_splitter, NoSplitter)
    items = items_set(manager, [item("1", {"title": "Lamp", "price": 5})], ["1"], ["1"])
    assert items["1"] == ("title: Lamp\nprice: 5",)
    values = DictItemSetManager(separator=". ", field_names=False).prepare([item("1", {"title": "Lamp", "price": 5})])
    assert values.texts["1"] == "Lamp. 5"


def test_progress_of_many_items_is_reported() -> None:
    seen: list[Progress] = []
    items = [item(str(i), f"Lamp {i}") for i in range(1200)]
    manager = TextItemSetManager(augmenter=ItemsSetAugmentationApplier(ChangeCases()))
    with progress_to(seen.append):
        items_set(manager, items, [str(i) for i in range(1200)], ["0"])
    assert [(p.done, p.total) for p in seen if p.step == "augment"] == [(500, 1200), (1000, 1200), (1200, 1200)]
    assert [p.done for p in seen if p.step == "split" and p.total == 1200] == [500, 1000, 1200]
