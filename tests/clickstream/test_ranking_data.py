from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from estudio_core.clickstream.dataset_files import read_dataset, write_dataset
from estudio_core.clickstream.dataset_words import DatasetWords
from estudio_core.clickstream.ranking_data import FineTuningInput, ItemsSet, RankingData
from estudio_core.errors import DataError
from estudio_core.lexical.settings import Bm25Settings


def session(name: str, clicked: bool = True) -> FineTuningInput:
    return FineTuningInput(
        session_id=name,
        query=f"query {name}",
        results=("a", "b", "c"),
        positions=(0, 2, 5),
        ranks=(0.5, None, 0.25),
        click_weights=(0.0, 2.0 if clicked else 0.0, 0.0),
        timestamp=1_700_000_000,
        user_id=None,
        release="r1",
        query_variants=("Query",),
    )


def data() -> RankingData:
    return RankingData(
        splits={"train": [session("1"), session("2", clicked=False)], "holdout": [session("3")]},
        items=ItemsSet({"a": ["one", "two"], "b": ["three"], "c": ["line\nbreak"]}, {"a": [["ONE"], ["1", "2"]]}),
        missing_items=("x\ny", "z"),
        invalid_items={"w": "The text is empty."},
    )


def test_a_dataset_survives_disk(tmp_path: Path) -> None:
    before = data()
    write_dataset(before, tmp_path)
    after = read_dataset(tmp_path)
    assert after == before
    assert after.dataset_id == before.dataset_id
    assert after.items.variants("a") == [("one", "two"), ("ONE",), ("1", "2")]
    assert after.missing_items == ("x\ny", "z")
    assert after.invalid_items == {"w": "The text is empty."}


def test_a_dataset_has_the_columns_of_earlier_versions_and_the_same_id_in_every_process(tmp_path: Path) -> None:
    write_dataset(data(), tmp_path)
    assert pq.read_schema(tmp_path / "sessions.parquet").names == [
        *("split", "session_id", "query", "results", "positions", "ranks", "click_weights", "timestamp"),
        *("user_id", "release", "query_variants"),
    ]
    assert pq.read_schema(tmp_path / "items.parquet").names == ["object_id", "variant", "part", "text"]
    assert data().dataset_id == "c24f0641d1d2601a"


def test_words_survive_disk_and_are_part_of_the_id(tmp_path: Path) -> None:
    counts = {"a": {"one": 1.0, "two": 3.0}, "b": {"three": 1.0}, "c": {}}
    words = DatasetWords(counts, {"query 1": {"queri": 1.0}}, Bm25Settings(k1=0.9))
    before = replace(data(), words=words, dataset_id="")
    write_dataset(before, tmp_path)
    after = read_dataset(tmp_path)
    assert after.words == words
    assert after.dataset_id == before.dataset_id != data().dataset_id
    assert replace(before, words=replace(words, settings=Bm25Settings()), dataset_id="").dataset_id != before.dataset_id
    other_order = DatasetWords({"c": {}, "b": {"three": 1}, "a": {"two": 3, "one": 1}}, words.queries, words.settings)
    assert replace(data(), words=other_order, dataset_id="").dataset_id == before.dataset_id


def test_an_empty_dataset_survives_disk(tmp_path: Path) -> None:
    empty = RankingData({}, ItemsSet({}))
    write_dataset(empty, tmp_path)
    assert read_dataset(tmp_path) == empty


def test_the_dataset_id_is_one_of_content() -> None:
    assert data().dataset_id == data().dataset_id
    other = data().splits | {"dev": [session("4")]}
    assert RankingData(other, data().items).dataset_id != data().dataset_id
    shuffled = {"train": data().splits["train"][::-1], "holdout": data().splits["holdout"]}
    assert RankingData(shuffled, data().items).dataset_id == data().dataset_id  # type: ignore[arg-type]  # keys are splits


@pytest.mark.parametrize("broken", ["sessions.parquet", "items.parquet"])
def test_a_missing_or_corrupt_file_is_named(tmp_path: Path, broken: str) -> None:
    write_dataset(data(), tmp_path)
    (tmp_path / broken).write_bytes(b"not parquet")
    with pytest.raises(DataError, match="Run the preprocessing step again"):
        read_dataset(tmp_path)
    (tmp_path / broken).unlink()
    with pytest.raises(DataError, match=str(tmp_path)):
        read_dataset(tmp_path)


def test_results_can_be_taken_out_of_a_session() -> None:
    rest = session("1").without(["a"])
    assert (rest.results, rest.positions, rest.ranks, rest.click_weights) == (
        ("b", "c"),
        (2, 5),
        (None, 0.25),
        (2.0, 0.0),
    )
    assert rest.query_variants == ("Query",)
    assert session("1").without(["b"]).is_clickless


def test_lists_of_different_length_and_repeated_results_are_refused() -> None:
    with pytest.raises(DataError, match="equally long"):
        replace(session("1"), positions=(0, 1))
    with pytest.raises(DataError, match="stands twice"):
        replace(session("1"), results=("a", "b", "a"))


def test_items_without_a_part_and_variants_of_unknown_items_are_refused() -> None:
    with pytest.raises(DataError, match="'b'"):
        ItemsSet({"a": ["x"], "b": []})
    with pytest.raises(DataError, match="'z'"):
        ItemsSet({"a": ["x"]}, {"z": [["y"]]})
