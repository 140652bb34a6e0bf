"""Words, and their order with the vectors': what is found, kept, bounded, and equal to a reference."""

from __future__ import annotations

from typing import Any

import bm25s
import numpy as np
import psycopg
import pytest
from psycopg import sql

from estudio_core.errors import ConfigurationError
from estudio_core.lexical.bm25 import Bm25, unit
from estudio_core.lexical.reading import read_words
from estudio_core.lexical.settings import Bm25Settings, Fusion
from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.fused import HEADS, MOST_WORDS
from estudio_core.vectordb.index_build import build_index
from estudio_core.vectordb.index_info import SearchIndexInfo
from estudio_core.vectordb.objects import TEXT_LIMIT, IndexedObject, KeptObject
from estudio_core.vectordb.search import SearchHit, count, find_by_filter, find_by_ids, search
from estudio_core.vectordb.search_session import search_connection
from estudio_core.vectordb.words import compact_terms

NASTY = "'); DROP TABLE estudio.deployments; -- \" % {} \\ & | ! <-> :* () Ü"
VOCABULARY = [f"word{i}" for i in range(400)]


def loaded(conn: psycopg.Connection, texts: list[str], vectors: Any = None, **info: Any) -> Collection:
    vectors = np.eye(len(texts)) if vectors is None else vectors
    collection = Collection("shop_1", SearchIndexInfo(dimensions=vectors.shape[1], **info))
    collection.create(conn)
    collection.copy_objects(conn, (item(i, text, vectors[i]) for i, text in enumerate(texts)))
    build_index(conn, collection)
    return collection


def item(number: int, text: str, vector: Any, **more: Any) -> IndexedObject:
    return IndexedObject(f"{number:04}", {"n": number}, "h", np.asarray(vector)[None, :], text=text, **more)


def ids(hits: list[SearchHit]) -> list[str]:
    return [hit.object_id for hit in hits]


def zipf_texts(count: int, seed: int = 0) -> list[str]:
    """Texts in which a few words are common and most are rare, as in those of people."""
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, len(VOCABULARY) + 1)
    return [" ".join(rng.choice(VOCABULARY, rng.integers(4, 20), p=shares / shares.sum())) for _ in range(count)]


def sums(
    conn: psycopg.Connection, texts: dict[str, str], vectors: dict[str, Any], text: str, query: Any
) -> dict[str, float]:
    """The sum for each text, computed here, the largest first."""
    bm25 = Bm25(read_words(conn, "english", list(texts.values())))
    words = bm25.scores([list(words) for words in read_words(conn, "english", [text])])[0]
    unit_query = np.asarray(query) / np.linalg.norm(query)
    cosine = np.array([vectors[name] @ unit_query / np.linalg.norm(vectors[name]) for name in texts])
    scores = dict(zip(texts, cosine + Fusion().weight * words, strict=True))
    return dict(sorted(scores.items(), key=lambda scored: -scored[1]))


def test_a_word_that_no_vector_knows_brings_its_item_to_the_front(conn: psycopg.Connection) -> None:
    collection = loaded(conn, ["red lamp", "charger with the part number XK-4711", "blue lamp", "green lamp"])
    query = [0.9, 0.5, 0.8, 0.7]
    assert ids(search(conn, collection, query)) == ["0000", "0002", "0003", "0001"]
    hits = search(conn, collection, query, text="xk4711", weight=1.0)
    assert ids(hits) == ["0001", "0000", "0002", "0003"]
    assert hits[0].distance == pytest.approx(search(conn, collection, query)[3].distance)
    assert [hit.words for hit in hits[1:]] == [0, 0, 0]


@pytest.mark.parametrize("asked", ["AB-17-x", "ab17x", "AB.17.X", "ab/17/x"])
def test_a_part_number_is_found_however_it_is_written(conn: psycopg.Connection, asked: str) -> None:
    collection = loaded(conn, ["toner AB-17-x", "toner S015013", "toner ab 18 y", "ink 17"])
    assert ids(search(conn, collection, None, text=asked))[0] == "0000"
    assert ids(search(conn, collection, None, text="s015013")) == ["0001"]


def test_scores_agree_with_a_reference_implementation(conn: psycopg.Connection) -> None:
    texts = zipf_texts(300)
    collection = loaded(conn, texts, np.random.default_rng(1).normal(size=(300, 4)), text_config="simple")
    reference = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    reference.index([text.split() for text in texts], show_progress=False)
    for asked in ("word3", "word0 word1 word2", "word120 word7 word301 word9"):
        expected = reference.get_scores(asked.split()) * 2.2 / unit(300)  # it leaves out the constant k1 + 1
        hits = search(conn, collection, None, text=asked, limit=300)
        assert {hit.object_id: hit.words for hit in hits} == pytest.approx(
            {f"{i:04}": score for i, score in enumerate(expected) if score > 0}, rel=1e-5
        )


@pytest.mark.parametrize("asked", [3, 12, 60])
def test_every_text_with_a_word_of_the_query_is_found_by_words(conn: psycopg.Connection, asked: int) -> None:
    texts = [f"lamp {word}" for word in VOCABULARY[:60]]
    collection = loaded(conn, texts, np.random.default_rng(1).normal(size=(60, 4)))
    found = ids(search(conn, collection, None, text=" ".join(VOCABULARY[:asked]), limit=100))
    assert len(found) == min(asked, MOST_WORDS)
    query = " ".join(VOCABULARY[:asked])
    pages = [search(conn, collection, None, text=query, limit=5, offset=i) for i in range(0, 60, 5)]
    assert [name for page in pages for name in ids(page)] == found


def test_a_title_counts_as_often_as_it_is_told_to(conn: psycopg.Connection) -> None:
    texts = ["lamp red", "a lamp and a red chair"]
    lexical = Bm25Settings(title="name", title_weight=3)
    collection = Collection("shop_1", SearchIndexInfo(dimensions=2, text_config="simple", lexical=lexical))
    collection.create(conn)
    collection.copy_objects(
        conn, [IndexedObject(str(i), {"name": "chair"}, "h", np.eye(2)[i : i + 1], text=t) for i, t in enumerate(texts)]
    )
    build_index(conn, collection)
    counts = read_words(conn, "simple", texts, ["chair", "chair"], title_weight=3)
    assert counts[1]["chair"] == 4
    expected = dict(zip("01", Bm25(counts, lexical).scores([["chair"]])[0], strict=True))
    found = {hit.object_id: hit.words for hit in search(conn, collection, None, text="chair")}
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("language", "found"), [("simple", []), ("english", ["0000"])])
def test_a_language_reduces_words_to_their_stems(conn: psycopg.Connection, language: str, found: list[str]) -> None:
    collection = loaded(conn, ["running shoes", "hat"], text_config=language)
    assert ids(search(conn, collection, None, text="shoe")) == found


def test_the_index_gives_the_order_of_the_sum_at_any_page(conn: psycopg.Connection) -> None:
    rng = np.random.default_rng(5)
    matrix, texts = rng.normal(size=(2_500, 6)), zipf_texts(2_500)
    collection = loaded(conn, texts, matrix)
    by_id = {f"{i:04}": text for i, text in enumerate(texts)}
    vectors = dict(zip(by_id, matrix, strict=True))
    # Rare words, common ones, both, words that nothing holds, many.
    for asked in ("word310 word377", "word0 word1", "word0 word150 word260", "unheard of", " ".join(VOCABULARY[::40])):
        query = rng.normal(size=6)
        scores = sums(conn, by_id, vectors, asked, query)
        best = list(scores.values())

        def given(hits: list[SearchHit], scores: dict[str, float] = scores) -> list[float]:
            return [scores[name] for name in dict.fromkeys(ids(hits))]

        everything = search(conn, collection, query, text=asked, exact=True, limit=2_500)
        assert given(everything) == pytest.approx(best, abs=1e-6)
        places = HEADS[1][1]
        with search_connection() as session:
            first = search(session, collection, query, text=asked, ef_search=200)
        assert given(first) == pytest.approx(best[:10], abs=1e-6), asked
        assert first == search(conn, collection, query, text=asked, ef_search=200)
        later = search(conn, collection, query, text=asked, limit=places, ef_search=200)
        assert given(later) == pytest.approx(best[:places], abs=1e-6), asked
        pages = [search(conn, collection, query, text=asked, limit=70, offset=i) for i in range(0, 2_500, 70)]
        assert sorted(name for page in pages for name in ids(page)) == sorted(by_id)


def test_words_follow_every_write(conn: psycopg.Connection) -> None:
    rng = np.random.default_rng(2)
    matrix, texts = rng.normal(size=(60, 4)), zipf_texts(60)
    collection = loaded(conn, texts, matrix, text_config="simple")
    average = np.mean([len(text.split()) for text in texts])
    now = {f"{i:04}": text for i, text in enumerate(texts)}

    def check() -> None:
        bm25 = Bm25(read_words(conn, "simple", list(now.values())), average_length=float(average))
        for asked in ("word1 word7", "word300 lamp", "word0"):
            scores = bm25.scores([asked.split()])[0]
            expected = {name: score for name, score in zip(now, scores, strict=True) if score > 0}
            found = search(conn, collection, None, text=asked, limit=100)
            assert {hit.object_id: hit.words for hit in found} == pytest.approx(expected, rel=1e-5)

    check()
    collection.upsert_objects(conn, [item(3, "lamp word7", matrix[3]), item(70, "word1 word300", matrix[4])])
    now |= {"0003": "lamp word7", "0070": "word1 word300"}
    check()
    collection.delete_objects(conn, ["0007", "0009", "missing"])
    now = {name: text for name, text in now.items() if name not in ("0007", "0009")}
    check()
    assert collection.keep_objects(conn, [KeptObject("0003", {"n": 5}, "h")])
    collection.upsert_objects(conn, [item(80, "word1 lamp lamp", matrix[3], user_id="ann", original_id="0001")])
    check()
    compact_terms(conn, collection)
    check()
    terms = conn.execute(sql.SQL("SELECT count(*), count(DISTINCT word) FROM {}").format(collection.terms)).fetchone()
    assert terms is not None
    assert terms[0] == terms[1]
    compact_terms(conn, collection)
    build_index(conn, collection)
    check()


def test_filter_distance_limit_and_personal_rows_hold_for_words_too(conn: psycopg.Connection) -> None:
    collection = loaded(conn, ["lamp", "lamp", "lamp", "chair"])
    query = [1.0, 0.9, 0.1, 0.8]
    lamps = {"range": {"n": {"gte": 1}}}
    assert set(ids(search(conn, collection, query, text="lamp", filter=lamps))) == {"0001", "0002", "0003"}
    assert ids(search(conn, collection, None, text="lamp", filter=lamps)) == ["0001", "0002"]
    assert set(ids(search(conn, collection, query, text="lamp", max_distance=0.5))) == {"0000", "0001", "0003"}
    own = [
        IndexedObject("mine", None, "h", np.eye(4)[2:3], "ann", "0000"),
        IndexedObject("renamed", None, "h", np.eye(4)[1:2], "ann", "0003", text="ladder"),
    ]
    collection.upsert_objects(conn, own)
    # Words count by everybody's objects: a ladder of everybody's makes the word known.
    collection.upsert_objects(conn, [item(4, "ladder", [0, 0, 0, 1])])
    mine = search(conn, collection, query, text="lamp", user_id="ann")
    assert sorted(ids(mine)) == ["0000", "0001", "0002", "0003", "0004"]
    assert {hit.object_id for hit in mine if hit.personal} == {"0000", "0003"}
    assert set(ids(search(conn, collection, None, text="ladder", user_id="ann"))) == {"0003", "0004"}
    assert ids(search(conn, collection, None, text="ladder")) == ["0004"]


@pytest.mark.parametrize("by_index", [False, True])
def test_a_personal_row_whose_original_is_gone_is_found_in_no_way(conn: psycopg.Connection, by_index: bool) -> None:
    collection = loaded(conn, ["lamp", "chair"])
    collection.upsert_objects(conn, [IndexedObject("mine", {"n": 7}, "h", np.eye(2)[1:2], "ann", "gone", text="lamp")])
    assert ids(search(conn, collection, [0.1, 1.0], user_id="ann", by_index=by_index)) == ["0001", "0000"]
    assert ids(search(conn, collection, None, user_id="ann", text="lamp", by_index=by_index)) == ["0000"]
    assert len(search(conn, collection, [0.1, 1.0], user_id="ann", sort_by="n", by_index=by_index)) == 2
    assert count(conn, collection, user_id="ann") == 2
    assert [found.object_id for found in find_by_filter(conn, collection, user_id="ann")] == ["0000", "0001"]
    assert find_by_ids(conn, collection, ["gone", "mine"], user_id="ann") == []


def test_a_collection_without_words_is_searched_by_its_vectors(conn: psycopg.Connection) -> None:
    without = loaded(conn, ["lamp", "chair"], lexical=None)
    assert ids(search(conn, without, [0.1, 1.0], text="lamp")) == ["0001", "0000"]
    with pytest.raises(ConfigurationError, match="has no words"):
        search(conn, without, None, text="lamp")
    assert without.drop(conn)
    emptied = loaded(conn, ["", ""])
    assert ids(search(conn, emptied, [0.1, 1.0], text="lamp")) == ["0001", "0000"]
    assert search(conn, emptied, None, text="lamp") == []
    assert emptied.drop(conn)
    left = conn.execute("SELECT count(*) FROM pg_tables WHERE tablename LIKE 'c\\_shop\\_1%%'").fetchone()
    assert left == (0,)


def test_words_and_texts_may_hold_anything_of_any_length(conn: psycopg.Connection) -> None:
    many_words = " ".join(f"ü{i}" for i in range(TEXT_LIMIT // 4))
    collection = loaded(conn, [NASTY, many_words, "x" * 1_000_000, ""])
    query = [0.1, 0.2, 0.3, 0.35]
    assert search(conn, collection, query, text=NASTY, weight=1.0)[0].object_id == "0000"
    assert search(conn, collection, query, text="ü77", weight=1.0)[0].object_id == "0001"
    for text in ("", "   ", "'", "a' | 'b", "<->", "\\", ":*", "(((", many_words):
        assert len(search(conn, collection, query, text=text)) == 4
        search(conn, collection, None, text=text)
    for text in ("a\x00", "a\ud800"):
        with pytest.raises(ConfigurationError, match="NUL or half of a surrogate"):
            search(conn, collection, query, text=text)
    with pytest.raises(ConfigurationError, match="Without a vector"):
        search(conn, collection, None, text="a", max_distance=0.5)
