from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from estudio_core.clickstream.converter import ClickstreamSessionConverter
from estudio_core.clickstream.ranking_data import FineTuningInput, RankingData
from estudio_core.clickstream.sessions import SearchResult, SessionEvent, SessionWithEvents
from estudio_core.clickstream.splitter import TrainTestSplitter
from estudio_core.clickstream.text_query_retriever import TextQueryRetriever
from estudio_core.errors import NotEnoughDataError, SourceSchemaError
from estudio_core.lexical.settings import Bm25Settings
from estudio_core.preprocessing.augmentations import (
    ChangeCases,
    ClickstreamQueryAugmentationApplier,
    ItemsSetAugmentationApplier,
)
from estudio_core.preprocessing.items_manager import ItemSetManager
from estudio_core.preprocessing.prepare_data import prepare_data
from estudio_core.preprocessing.preprocessor import ItemPreprocessor
from estudio_core.progress import Progress, progress_to
from estudio_core.sources.item_meta import PgsqlFileMeta
from estudio_core.sources.pgsql_text_loader import PgsqlTextLoader

Sessions = Sequence[SessionWithEvents | dict[str, Any]]


@pytest.fixture
def articles(database_url: str) -> str:
    """URL of a database with the table `articles`: ids 1 to 30, of which 7 has a blank text and 8 none."""
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TABLE articles (id integer PRIMARY KEY, content text)")
        rows = [(i, f"Article number {i}. It has two sentences.") for i in range(1, 31) if i not in (7, 8)]
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO articles VALUES (%s, %s)", [*rows, (7, " "), (8, None)])
    return database_url


def session(name: str, query: Any, results: Sequence[int], clicked: Sequence[int] = ()) -> SessionWithEvents:
    return SessionWithEvents(
        session_id=name,
        query=query,
        search_results=[SearchResult(object_id=str(r)) for r in results],
        events=[SessionEvent(event_id=f"{name}-{c}", object_id=str(c)) for c in clicked],
    )


def prepare(
    url: str, clickstream: Sessions, splitter: TrainTestSplitter | None = None, table: str = "articles"
) -> RankingData:
    return prepare_data(
        clickstream,
        ClickstreamSessionConverter(item_type=PgsqlFileMeta),
        splitter or TrainTestSplitter(),
        TextQueryRetriever(),
        PgsqlTextLoader(connection_string=url, table_name=table, text_column="content"),
        ItemSetManager(ItemPreprocessor(), augmenter=ItemsSetAugmentationApplier(ChangeCases())),
    )


def everything(data: RankingData) -> dict[str, FineTuningInput]:
    return {s.session_id: s for sessions in data.splits.values() for s in sessions}


def test_sessions_and_items_become_a_dataset(articles: str) -> None:
    clickstream = [session(str(i), f"query {i}", [i, 9, 10], [i]) for i in range(11, 31)]
    data = prepare(articles, [clickstream[0].model_dump(), *clickstream[1:]])
    assert sorted(everything(data)) == [str(i) for i in range(11, 31)]
    assert all(s.events == (s.session_id,) for s in everything(data).values())
    assert set(data.items) == {"9", "10", *map(str, range(11, 31))}
    assert data.items["11"] == ("Article number 11. It has two sentences.",)
    assert data.splits["train"]
    assert data.splits["dev"]
    assert data.missing_items == ()
    assert data.invalid_items == {}
    for split, sessions in data.splits.items():
        clicked = {s.session_id for s in sessions}
        assert all((len(data.items.variants(c)) > 1) is (split == "train") for c in clicked)


def test_missing_and_invalid_items_are_reported_by_id_and_leave_the_sessions(
    articles: str, caplog: pytest.LogCaptureFixture
) -> None:
    clickstream = [
        session("kept", "a", [1, 99, 2, 7], [2, 99]),
        session("one left", "b", [3, 98], [3]),
        session("none left", "c", [7, 8, 97]),
        session("whole", "d", [4, 5, 6], [4]),
        session("click lost", "e", [99, 1, 2], [99]),
    ]
    with caplog.at_level(logging.INFO, "estudio_core.preprocessing"):
        data = prepare(articles, clickstream)
    assert sorted(everything(data)) == ["click lost", "kept", "one left", "whole"]
    assert everything(data)["one left"].events == ("3",)  # the items of other queries are what was not clicked
    kept = everything(data)["kept"]
    assert (kept.results, kept.positions, kept.click_weights) == (("1", "2"), (0, 2), (0.0, 1.0))
    assert everything(data)["click lost"].is_clickless
    assert sorted(data.missing_items) == ["97", "98", "99"]
    assert data.invalid_items.keys() == {"7", "8"}
    assert "3 items are not in the source: 99, 98, 97" in caplog.text
    assert "2 items cannot be used: 7 (" in caplog.text
    assert "left out: 1 with fewer than two results and no click" in caplog.text


def test_items_that_preprocessing_leaves_without_text_are_reported_like_those_of_the_loader(articles: str) -> None:
    manager = ItemSetManager(ItemPreprocessor(transform=lambda text: "" if "number 3." in text else text))
    data = prepare_data(
        [session("1", "a", [1, 2, 3], [1]), session("2", "b", [3, 4], [3])],
        ClickstreamSessionConverter(item_type=PgsqlFileMeta),
        TrainTestSplitter(),
        TextQueryRetriever(),
        PgsqlTextLoader(connection_string=articles, table_name="articles", text_column="content"),
        manager,
    )
    assert everything(data)["1"].results == ("1", "2")
    assert len(everything(data)) == 1
    assert data.invalid_items.keys() == {"3"}
    assert "3" not in data.items


def test_sessions_that_cannot_be_used_are_left_out_with_their_count(
    articles: str, caplog: pytest.LogCaptureFixture
) -> None:
    clickstream: list[SessionWithEvents | dict[str, Any]] = [
        session("good", "a", [1, 2], [1, 50]),
        session("good", "a", [3, 4], [3]),
        session("no query", "  ", [1, 2], [1]),
        session("wrong query", {"txt": "a"}, [1, 2], [1]),
        {"session_id": "broken"},
        session("one result", "b", [1]),
    ]
    with caplog.at_level(logging.INFO, "estudio_core.preprocessing"):
        data = prepare(articles, clickstream)
    assert everything(data)["good"].results == ("1", "2")
    assert len(everything(data)) == 1
    for text in ("1 events of results never shown", "3 malformed", "1 repeated", "1 with fewer than two results"):
        assert text in caplog.text
    assert "'no query': The query '  ' is empty" in caplog.text


def test_sessions_without_clicks_stay(articles: str) -> None:
    data = prepare(articles, [session("1", "a", [1, 2], [1]), session("2", "b", [3, 4]), session("3", "c", [5, 6])])
    assert sorted(everything(data)) == ["1", "2", "3"]
    assert any(not s.is_clickless for s in data.splits["train"])


def test_nothing_to_train_on_is_told_with_counts(articles: str) -> None:
    with pytest.raises(NotEnoughDataError, match="of 0 sessions, 0 are usable"):
        prepare(articles, [])
    with pytest.raises(NotEnoughDataError, match="of 1 sessions, 1 are usable, 0 of them with a click"):
        prepare(articles, [session("1", "a", [1, 2])])
    with pytest.raises(
        NotEnoughDataError,
        match=r"of 2 sessions, 0 are usable \(left out: 2 with fewer than two.*3 items are missing and 1 unusable",
    ):
        prepare(articles, [session("1", "a", [97, 98], [97]), session("2", "b", [99, 8, 1], [99])])


def test_one_session_is_enough_to_train_on(articles: str) -> None:
    data = prepare(articles, [session("1", "a", [1, 2], [1])])
    assert [len(data.splits[s]) for s in ("train", "dev", "holdout")] == [1, 0, 0]


def test_errors_of_the_source_come_through(articles: str) -> None:
    with pytest.raises(SourceSchemaError, match="artikel"):
        prepare(articles, [session("1", "a", [1, 2], [1])], table="artikel")


def test_the_same_sessions_make_the_same_dataset(articles: str) -> None:
    clickstream = [session(str(i), f"query {i}", [i, 9, 10], [i]) for i in range(11, 31)]
    first = prepare(articles, clickstream)
    assert prepare(articles, clickstream) == first
    assert prepare(articles, clickstream[::-1]).dataset_id == first.dataset_id


def test_queries_of_train_get_variants(articles: str) -> None:
    splitter = TrainTestSplitter(augmenter=ClickstreamQueryAugmentationApplier(ChangeCases()))
    data = prepare(articles, [session(str(i), f"query {i}", [1, 2], [1]) for i in range(20)], splitter)
    assert all(s.query_variants for s in data.splits["train"])
    assert not any(s.query_variants for s in data.splits["dev"])


def test_words_of_items_and_of_every_spelling_of_a_query_are_read_where_asked_for(articles: str) -> None:
    given: list[tuple[list[str], list[Any]]] = []

    def read(texts: Sequence[str], payloads: Sequence[Any]) -> list[dict[str, float]]:
        given.append((list(texts), list(payloads)))
        return [{text: 1.0} for text in texts]

    data = prepare_data(
        [session(str(i), f"query {i}", [i, 9], [i]) for i in range(11, 31)],
        ClickstreamSessionConverter(item_type=PgsqlFileMeta),
        TrainTestSplitter(augmenter=ClickstreamQueryAugmentationApplier(ChangeCases())),
        TextQueryRetriever(),
        PgsqlTextLoader(connection_string=articles, table_name="articles", text_column="content"),
        ItemSetManager(ItemPreprocessor()),
        read_words=read,
        lexical=Bm25Settings(b=0.3),
    )
    assert data.words is not None
    assert data.words.settings.b == 0.3
    assert data.words.items["11"] == {"Article number 11. It has two sentences.": 1.0}
    assert set(data.words.items) == set(data.items)
    spellings = {text for s in everything(data).values() for text in (s.query, *s.query_variants)}
    assert set(data.words.queries) == spellings
    assert len(spellings) > 20
    assert given[1][1] == [None] * len(spellings)
    assert prepare(articles, [session("11", "query 11", [11, 9], [11])]).words is None


def test_progress_is_reported(articles: str) -> None:
    seen: list[Progress] = []
    with progress_to(seen.append):
        prepare(articles, [session("1", "a", [1, 2], [1])])
    assert {(p.step, p.done, p.total, p.unit) for p in seen} >= {
        ("convert", 1, 1, "sessions"),
        ("load", 2, 2, "items"),
        ("split", 2, 2, "items"),
        ("augment", 2, 2, "items"),
    }
