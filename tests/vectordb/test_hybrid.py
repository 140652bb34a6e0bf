"""Full-text search and its fusion with the order by distance."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql

from estudio_core.errors import ConfigurationError
from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.hybrid import FUSED_DEPTH, _documents, text_rows
from estudio_core.vectordb.index_build import build_index
from estudio_core.vectordb.index_info import SearchIndexInfo
from estudio_core.vectordb.objects import TEXT_LIMIT, IndexedObject
from estudio_core.vectordb.ordering import Request
from estudio_core.vectordb.search import SearchHit, count, find_by_filter, find_by_ids, search

NASTY = "'); DROP TABLE estudio.deployments; -- \" % {} \\ & | ! <-> :* () Ü"


def loaded(conn: psycopg.Connection, texts: list[str], vectors: Any = None, **info: Any) -> Collection:
    vectors = np.eye(len(texts)) if vectors is None else vectors
    collection = Collection("shop_1", SearchIndexInfo(dimensions=vectors.shape[1], **info))
    collection.create(conn)
    collection.copy_objects(
        conn, (IndexedObject(f"{i:04}", {"n": i}, "h", vectors[i : i + 1], text=text) for i, text in enumerate(texts))
    )
    build_index(conn, collection)
    return collection


def ids(hits: list[SearchHit]) -> list[str]:
    return [hit.object_id for hit in hits]


def test_a_word_that_no_vector_knows_brings_its_item_to_the_front(conn: psycopg.Connection) -> None:
    texts = ["red lamp", "charger with the part number XK-4711", "blue lamp", "green lamp"]
    collection = loaded(conn, texts)
    query = [0.9, 0.1, 0.4, 0.3]
    assert ids(search(conn, collection, query)) == ["0000", "0002", "0003", "0001"]
    hits = search(conn, collection, query, text="xk-4711")
    assert ids(hits) == ["0001", "0000", "0002", "0003"]
    assert [hit.score for hit in hits] == pytest.approx([1 / 64 + 1 / 61, 1 / 61, 1 / 62, 1 / 63])
    assert hits[0].distance == pytest.approx(search(conn, collection, query)[3].distance)


def test_items_with_all_words_stand_before_items_with_some(conn: psycopg.Connection) -> None:
    collection = loaded(conn, ["usb usb usb usb cable", "a usb charger for a car", "charger", "lamp"])
    request = Request(collection, None, None, None, None)
    found = [row.result_id for row in text_rows(conn, request, "usb charger", 10)]
    assert (found[0], sorted(found)) == ("0001", ["0000", "0001", "0002"])
    assert [row.result_id for row in text_rows(conn, request, "usb charger", 1)] == ["0001"]
    assert text_rows(conn, request, "!!!", 10) == []


@pytest.mark.parametrize(("language", "found"), [("simple", []), ("english", ["0000"])])
def test_a_language_reduces_words_to_their_stems(conn: psycopg.Connection, language: str, found: list[str]) -> None:
    collection = loaded(conn, ["running shoes", "hat"], text_config=language)
    hits = search(conn, collection, [0.5, 1.0], text="shoe")
    assert [hit.object_id for hit in hits if (hit.score or 0) > 1 / 60] == found


def test_filter_distance_limit_and_personal_rows_hold_for_words_too(conn: psycopg.Connection) -> None:
    collection = loaded(conn, ["lamp", "lamp", "lamp", "chair"])
    query = [1.0, 0.9, 0.1, 0.8]
    lamps = {"range": {"n": {"gte": 1}}}
    assert set(ids(search(conn, collection, query, text="lamp", filter=lamps))) == {"0001", "0002", "0003"}
    assert set(ids(search(conn, collection, query, text="lamp", max_distance=0.5))) == {"0000", "0001", "0003"}
    own = [
        IndexedObject("mine", None, "h", np.eye(4)[2:3], "ann", "0000"),
        IndexedObject("renamed", None, "h", np.eye(4)[1:2], "ann", "0003", text="ladder"),
    ]
    collection.upsert_objects(conn, own)
    mine = search(conn, collection, query, text="lamp", user_id="ann")
    assert sorted(ids(mine)) == ["0000", "0001", "0002", "0003"]
    assert [hit.object_id for hit in mine if hit.personal] == ["0000", "0003"]
    assert search(conn, collection, query, text="ladder", user_id="ann")[0].object_id == "0003"
    assert search(conn, collection, query, text="ladder")[0].object_id == "0000"


@pytest.mark.parametrize("by_index", [False, True])
def test_a_personal_row_whose_original_is_gone_is_found_in_no_way(conn: psycopg.Connection, by_index: bool) -> None:
    collection = loaded(conn, ["lamp", "chair"])
    collection.upsert_objects(conn, [IndexedObject("mine", {"n": 7}, "h", np.eye(2)[1:2], "ann", "gone", text="lamp")])
    assert ids(search(conn, collection, [0.1, 1.0], user_id="ann", by_index=by_index)) == ["0001", "0000"]
    assert ids(search(conn, collection, [0.1, 1.0], user_id="ann", text="lamp", by_index=by_index)) == ["0000", "0001"]
    assert len(search(conn, collection, [0.1, 1.0], user_id="ann", sort_by="n", by_index=by_index)) == 2
    assert count(conn, collection, user_id="ann") == 2
    assert [found.object_id for found in find_by_filter(conn, collection, user_id="ann")] == ["0000", "0001"]
    assert find_by_ids(conn, collection, ["gone", "mine"], user_id="ann") == []


@pytest.mark.parametrize("by_index", [False, True])
def test_pages_of_the_fused_order_are_disjoint_and_complete(conn: psycopg.Connection, by_index: bool) -> None:
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(700, 8)).astype(np.float32)
    texts = [("rare lamp" if i % 7 == 0 else "lamp") if i % 2 else "chair" for i in range(700)]
    collection = loaded(conn, texts, vectors)
    pages: list[SearchHit] = []
    for offset in range(0, 770, 70):
        page = search(conn, collection, vectors[3], text="rare lamp", limit=70, offset=offset, by_index=by_index)
        pages += page
    assert len(ids(pages)) == len(set(ids(pages))) == 700
    assert ids(pages) == ids(search(conn, collection, vectors[3], text="rare lamp", limit=700, by_index=by_index))
    scores = [hit.score or 0.0 for hit in pages]
    assert scores == sorted(scores, reverse=True)
    fused = sum(score > 0 for score in scores)
    assert FUSED_DEPTH <= fused <= 2 * FUSED_DEPTH


def test_words_are_found_by_their_index(conn: psycopg.Connection) -> None:
    rng = np.random.default_rng(5)
    collection = loaded(conn, [f"lamp number {i}" for i in range(3000)], rng.normal(size=(3000, 4)))
    request = Request(collection, None, None, None, None)
    documents = _documents(request, sql.SQL("plainto_tsquery('simple'::regconfig, %(text)s::text)"))
    plan = conn.execute(sql.SQL("EXPLAIN {}").format(documents), request.values(text="2999")).fetchall()
    assert any(collection.name("document") in line for (line,) in plan), plan


def test_words_and_texts_may_hold_anything_of_any_length(conn: psycopg.Connection) -> None:
    many_words = " ".join(f"ü{i}" for i in range(TEXT_LIMIT // 4))
    collection = loaded(conn, [NASTY, many_words, "x" * 1_000_000, ""])
    query = [0.1, 0.2, 0.3, 1.0]
    assert search(conn, collection, query, text=NASTY)[0].object_id == "0000"
    assert search(conn, collection, query, text="ü77")[0].object_id == "0001"
    for text in ("", "   ", "'", "a' | 'b", "<->", "\\", ":*", "((("):
        assert len(search(conn, collection, query, text=text)) == 4
    with pytest.raises(ConfigurationError, match="NUL"):
        search(conn, collection, query, text="a\x00")
    with pytest.raises(ConfigurationError, match="not by both"):
        search(conn, collection, query, text="a", sort_by="n")
