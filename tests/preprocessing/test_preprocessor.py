from __future__ import annotations

import pyarrow as pa
import pytest

from estudio_core.errors import DataError, ItemError
from estudio_core.preprocessing.fields_normalizer import DatasetFieldsNormalizer
from estudio_core.preprocessing.preprocessor import DictItemsPreprocessor, TextItemsPreprocessor


def test_columns_are_renamed_and_ids_become_texts() -> None:
    table = pa.table({"key": [1, 20], "lang": ["en", "de"], "content": ["a", "b"]})
    normalised = DatasetFieldsNormalizer("content", "key")(table)
    assert normalised.column_names == ["item_id", "lang", "item"]
    assert normalised.schema.field("item_id").type == pa.string()
    assert normalised.to_pylist() == [
        {"item_id": "1", "lang": "en", "item": "a"},
        {"item_id": "20", "lang": "de", "item": "b"},
    ]


def test_a_table_with_the_final_names_stays_as_it_is() -> None:
    table = pa.table({"item_id": ["1"], "item": ["a"]})
    assert DatasetFieldsNormalizer("item", "item_id")(table).equals(table)


def test_columns_may_change_places() -> None:
    table = pa.table({"item": ["1"], "item_id": ["text"]})
    assert DatasetFieldsNormalizer("item_id", "item")(table).to_pylist() == [{"item_id": "1", "item": "text"}]


def test_a_missing_column_is_named_with_the_nearest_one() -> None:
    with pytest.raises(DataError, match=r"no column 'contnt'.*Did you mean 'content'"):
        DatasetFieldsNormalizer("contnt", "id")(pa.table({"content": ["a"], "id": [1]}))


def test_a_column_that_is_in_the_way_and_null_ids_are_refused() -> None:
    with pytest.raises(DataError, match="'item' stands twice"):
        DatasetFieldsNormalizer("content", "id")(pa.table({"content": ["a"], "id": [1], "item": ["b"]}))
    with pytest.raises(DataError, match="1 of 2 ids"):
        DatasetFieldsNormalizer("content", "id")(pa.table({"content": ["a", "b"], "id": [1, None]}))


def test_texts_are_stripped_and_transformed() -> None:
    assert TextItemsPreprocessor()("  a  b\n") == "a  b"
    assert TextItemsPreprocessor()(None) == ""
    assert TextItemsPreprocessor(transform=lambda text: text.replace("<b>", " "))("<b>bold<b>") == "bold"


def test_dicts_become_lines_in_the_order_given() -> None:
    item = {"title": " Lamp ", "brand": None, "price": 9.5, "stock": 0, "tags": ["led", None, "desk"], "note": "  "}
    assert DictItemsPreprocessor()(item) == "title: Lamp\nprice: 9.5\nstock: 0\ntags: led, desk"
    assert DictItemsPreprocessor(separator=" ", field_names=False)(item) == "Lamp 9.5 0 led, desk"
    assert DictItemsPreprocessor(transform=lambda fields: f"{fields['title']}!")(item) == "Lamp !"
    assert DictItemsPreprocessor()({}) == DictItemsPreprocessor()(None) == ""


def test_items_of_another_kind_are_refused() -> None:
    with pytest.raises(ItemError, match=r"A text is expected, got dict.*dict manager"):
        TextItemsPreprocessor()({"title": "Lamp"})
    with pytest.raises(ItemError, match=r"A dict is expected, got str.*text manager"):
        DictItemsPreprocessor()("Lamp")


def test_convert_turns_a_table_of_items_to_texts() -> None:
    table = pa.table({"id": [7], "content": [" a "], "lang": ["en"]})
    converted = TextItemsPreprocessor(DatasetFieldsNormalizer("content", "id")).convert(table)
    assert converted.to_pylist() == [{"item_id": "7", "item": "a", "lang": "en"}]
    structs = pa.table({"item_id": ["7"], "item": [{"title": "Lamp", "brand": None}]})
    assert DictItemsPreprocessor().convert(structs)["item"].to_pylist() == ["title: Lamp"]


def test_convert_names_the_item_that_cannot_be_read() -> None:
    with pytest.raises(ItemError, match="'8'") as caught:
        TextItemsPreprocessor().convert(pa.table({"item_id": ["8"], "item": [5]}))
    assert caught.value.item_ids == ["8"]
