from __future__ import annotations

import numpy as np
import pytest

from estudio_core.clickstream.dataset_words import DatasetWords
from estudio_core.errors import DataError
from estudio_core.lexical.bm25 import Bm25
from estudio_core.lexical.settings import Bm25Settings
from lightning_modules.lexical_scores import LexicalScores

ITEMS = {"a": {"usb": 1.0, "cable": 1.0}, "b": {"usb": 2.0, "lamp": 1.0}, "c": {"lamp": 1.0}}
QUERIES = {"usb lamp": {"usb": 1.0, "lamp": 1.0}, "rug": {"rug": 1.0}}


def test_scores_are_those_of_bm25_times_the_weight_in_the_order_asked_for() -> None:
    settings = Bm25Settings(k1=0.9, b=0.3)
    scores = LexicalScores(DatasetWords(ITEMS, QUERIES, settings), weight=0.25)
    expected = 0.25 * Bm25(list(ITEMS.values()), settings).scores([["rug"], ["usb", "lamp"]])[:, [2, 0]]
    found = scores(["rug", "usb lamp"], ["c", "a"])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    assert found[1].min() > 0


def test_a_pool_answers_as_the_whole_does() -> None:
    scores = LexicalScores(DatasetWords(ITEMS, QUERIES), weight=1.0)
    pool = scores.over(["b", "c"])
    assert pool(["usb lamp"]).tolist() == scores(["usb lamp"], ["b", "c"]).tolist()


@pytest.mark.parametrize(("queries", "objects", "match"), [(["mat"], ["a"], "query 'mat'"), (["rug"], ["z"], "'z'")])
def test_texts_without_words_are_named(queries: list[str], objects: list[str], match: str) -> None:
    with pytest.raises(DataError, match=match):
        LexicalScores(DatasetWords(ITEMS, QUERIES), weight=1.0)(queries, objects)
