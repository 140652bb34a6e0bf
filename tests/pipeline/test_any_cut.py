"""The same rows give the same database: in one commit or many, synced once or often, built in one shard or several."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from psycopg import sql

from estudio_core import database
from estudio_core.evaluation.judgments import Judgments
from estudio_core.pipeline.build_index import build_index
from estudio_core.pipeline.embed_shard import embed_shard
from estudio_core.pipeline.items.embed_writes import embed_writes
from estudio_core.pipeline.start_collection import start_collection
from estudio_core.pipeline.sync import sync
from estudio_core.pipeline.verify import verify
from estudio_core.vectordb.releases import get_release, require_live
from estudio_core.vectordb.switching import switch
from tests.pipeline.conftest import KINDS, Shop
from tests.pipeline.test_release import published
from tests.pipeline.test_sync import QUEUE, TIMES
from tests.pipeline.test_unnoticed_changes import feed_queue


def in_database() -> tuple[dict[str, list[Any]], NDArray[np.float64]]:
    """Return what a search of the live release reads, and all vectors.

    How much a word weighs in an item depends on the mean length of those that an index was built of, and is left out.
    """
    found = {}
    with database.connect() as connection:
        collection = require_live(connection, "shop").collection
        tables = {name: getattr(collection, name) for name in ("objects", "parts", "words", "terms")}
        for name, columns in {
            "objects": "object_id, original_id, user_id, payload, content_hash, source_hash, body",
            "parts": "object_id, part, is_average, user_id",
            "words": "object_id, personal, tsvector_to_array(document)",
        }.items():
            query = sql.SQL("SELECT to_jsonb(t) FROM (SELECT {} FROM {}) t ORDER BY 1")
            found[name] = connection.execute(query.format(sql.SQL(columns), tables[name])).fetchall()
        counted = sql.SQL(
            "SELECT word, sum(documents)::int FROM {} GROUP BY word HAVING sum(documents) <> 0 ORDER BY 1"
        )
        found["terms"] = connection.execute(counted.format(tables["terms"])).fetchall()
        vectors = sql.SQL("SELECT embedding::text FROM {} ORDER BY object_id, part").format(tables["parts"])
        read = [json.loads(row[0]) for row in connection.execute(vectors)]
    return found, np.array(read)


def build(run_id: str, shards: int) -> None:
    loaded = [
        embed_shard("shop", shard.as_dict()) for shard in start_collection("shop", published("shop_v1"), shards, run_id)
    ]
    verified = verify("shop", build_index("shop", [each.as_dict() for each in loaded]).as_dict())
    with database.connect(autocommit=True) as connection:
        switch(connection, get_release(connection, verified.release_id), embed_writes("shop"))


def changes(chance: random.Random) -> list[str]:
    """Return statements on some forty rows, of which some change more than once."""
    made = []
    for number in range(24):
        key, kind = chance.randrange(-5, 40), chance.choice(KINDS)
        made.append(
            chance.choice(
                [
                    f"INSERT INTO products VALUES ({key}, 'new {kind} {number}', '{kind}', clock_timestamp())"
                    " ON CONFLICT (id) DO UPDATE SET title = excluded.title, changed_at = excluded.changed_at",
                    f"UPDATE products SET title = 'a {kind} {number}', changed_at = clock_timestamp() WHERE id = {key}",
                    f"UPDATE products SET kind = '{kind}', changed_at = clock_timestamp() WHERE id = {key}",
                    f"UPDATE products SET title = ' ', changed_at = clock_timestamp() WHERE id = {key}",
                    f"DELETE FROM products WHERE id = {key}",
                ]
            )
        )
    return made


@pytest.mark.parametrize("items", ["", TIMES, QUEUE], ids=["hashes", "times", "queue"])
def test_however_rows_change_and_whenever_they_are_synced_it_is_what_a_build_makes(
    indexed_shop: Shop, items: str
) -> None:
    if items:
        indexed_shop.rewrite_plugin('payload=("title", "kind")', items)
    if items == QUEUE:
        feed_queue(indexed_shop)
    for seed, (pieces, shards) in enumerate([(1, 1), (3, 2), (24, 5)]):
        chance = random.Random(seed)
        statements = changes(chance)
        cuts = sorted(chance.randrange(len(statements)) for _ in range(pieces - 1))
        for start, end in zip([0, *cuts], [*cuts, len(statements)], strict=True):
            with psycopg.connect(indexed_shop.database_url) as connection:
                for statement in statements[start:end]:
                    connection.execute(statement)
                    if chance.random() < 0.3:
                        connection.commit()
            sync("shop", {})
        synced, synced_vectors = in_database()
        build(f"run {seed}", shards)
        built, built_vectors = in_database()
        for name in built:
            assert synced[name] == built[name], name
        assert synced_vectors == pytest.approx(built_vectors, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), pieces=st.integers(1, 6))
def test_judgments_are_the_same_in_any_order_and_from_any_number_of_files(
    tmp_path_factory: pytest.TempPathFactory, seed: int, pieces: int
) -> None:
    chance, folder = random.Random(seed), tmp_path_factory.mktemp("judgments")
    rows = [(f"query {n % 7}", f"i{n}", n % 4) for n in range(60)]
    whole = Judgments.from_rows(rows)
    chance.shuffle(rows)
    cuts = sorted(chance.randrange(1, len(rows)) for _ in range(pieces - 1))
    read: list[tuple[str, str, float]] = []
    for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(rows)], strict=True)):
        file = folder / f"{number}.csv"
        file.write_text("query,object_id,grade\n" + "".join(f"{q},{o},{g}\n" for q, o, g in rows[start:end]))
        found = Judgments.from_csv(file) if start < end else {}
        read += [(query, key, grade) for query, grades in found.items() for key, grade in grades.items()]
    assert {query: dict(grades) for query, grades in Judgments.from_rows(read).items()} == {
        query: dict(grades) for query, grades in whole.items()
    }
