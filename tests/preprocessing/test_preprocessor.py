from __future__ import annotations

import pytest

from estudio_core.errors import ConfigurationError, ItemError
from estudio_core.preprocessing.preprocessor import ItemPreprocessor


def test_texts_are_stripped_and_transformed() -> None:
    assert ItemPreprocessor()("  a  b\n") == "a  b"
    assert ItemPreprocessor()(None) == ""
    assert ItemPreprocessor(transform=lambda text: text.replace("<b>", " "))("<b>bold<b>") == "bold"


def test_dicts_become_lines_in_the_order_given() -> None:
    item = {"title": " Lamp ", "brand": None, "price": 9.5, "stock": 0, "tags": ["led", None, "desk"], "note": "  "}
    assert ItemPreprocessor()(item) == "title: Lamp\nprice: 9.5\nstock: 0\ntags: led, desk"
    assert ItemPreprocessor(separator=" ", field_names=False)(item) == "Lamp 9.5 0 led, desk"
    assert ItemPreprocessor(transform=lambda fields: f"{fields['title']}!")(item) == "Lamp !"
    assert ItemPreprocessor()({}) == ""


def test_of_a_dict_the_chosen_fields_are_read_in_their_order() -> None:
    chosen = ItemPreprocessor(fields=("brand", "title"), separator=", ", field_names=False)
    assert chosen({"title": "Lamp", "price": 5, "brand": "Lumo"}) == "Lumo, Lamp"
    assert chosen({"title": "Lamp"}) == "Lamp"
    assert chosen({"price": 5}) == ""
    assert chosen("A lamp") == "A lamp"
    with pytest.raises(ConfigurationError, match="is one text"):
        ItemPreprocessor(fields="title")


def test_items_of_another_kind_are_refused() -> None:
    with pytest.raises(ItemError, match="A text or a dict of fields is expected, got int"):
        ItemPreprocessor()(5)
