"""Queries alone are trained and released: over the live collection, which keeps what its own model made of items."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from psycopg import sql

from estudio_core import database
from estudio_core.artifacts import ArtifactStore
from estudio_core.context import context
from estudio_core.errors import ConfigurationError
from estudio_core.export.triton_repository import list_entries
from estudio_core.inference.opening import open_bulk_embedder, open_query_embedder
from estudio_core.pipeline.rollback import rollback
from estudio_core.pipeline.sync import sync
from estudio_core.pipeline.take_up import take_up
from estudio_core.pipeline.train import train
from estudio_core.plugin.registry import open_plugin
from estudio_core.promotion.aliases import observe_all
from estudio_core.searching import search
from estudio_core.settings import get_settings
from estudio_core.vectordb.releases import Release, live_release
from estudio_core.writing import ItemWrite, upsert
from tests.pipeline.conftest import forget_plugins
from tests.pipeline.steps import FineTuned, fine_tune, initialize, release
from tests.snapshot import Snapshot, estudio_home

if TYPE_CHECKING:
    from tests.pipeline.conftest import Shop

pytestmark = pytest.mark.e2e

__all__ = ["estudio_home"]

QUERY = {"train": "query", "num_epochs": 2}


@pytest.fixture(scope="module")
def snapshot(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Snapshot]:
    made = Snapshot(postgres_server, tmp_path_factory.mktemp("two-towers"))
    yield made
    made.drop()


@pytest.fixture
def tuned(shop: Shop, snapshot: Snapshot) -> FineTuned:
    """The live base model, version 1, and version 2, which encodes queries alone and is not live yet."""
    shop.rewrite_plugin("num_fixed_layers=1,", "num_fixed_layers=1, learning_rate=5e-3, keep_start=False,")
    if snapshot.kept is None:
        initialize("shop")
        shop.search_sessions(120)
        snapshot.keep(shop.database_url, fine_tune("shop", QUERY))
        forget_plugins()
    snapshot.restore(shop.database_url)
    assert isinstance(snapshot.kept, FineTuned)
    return snapshot.kept


@pytest.fixture
def conn(tuned: FineTuned) -> Iterator[psycopg.Connection]:
    with database.connect(autocommit=True) as connection:
        yield connection


def serving(conn: psycopg.Connection) -> Release:
    live = live_release(conn, "shop")
    assert live is not None
    return live


def towers(conn: psycopg.Connection) -> tuple[str, str, str]:
    live = serving(conn)
    return live.model_name, live.item_model_name, live.collection_id


def stored(conn: psycopg.Connection, where: str = "true") -> dict[str, list[float]]:
    """Return the vectors of the live collection."""
    statement = sql.SQL("SELECT object_id, embedding::text FROM {} WHERE {}").format(  # the condition is ours
        serving(conn).collection.parts, sql.SQL(where)  # type: ignore[arg-type]
    )  # fmt: skip
    return {object_id: json.loads(text) for object_id, text in conn.execute(statement)}


def entries() -> list[str]:
    return [entry.name for entry in list_entries(get_settings().triton_repository)]


def test_a_release_of_queries_keeps_the_collection_and_every_vector_in_it(
    tuned: FineTuned, conn: psycopg.Connection
) -> None:
    before, vectors = serving(conn), stored(conn)
    release("shop", tuned.version, "second")
    assert towers(conn) == ("shop_v2", "shop_v1", before.collection_id)
    assert stored(conn) == vectors
    collections = conn.execute("SELECT count(*) FROM pg_tables WHERE tablename LIKE 'c\\_shop%\\_objects'").fetchone()
    assert collections == (1,)
    # Queries of the new model meet items of the other.
    [hit] = search("shop", "lamp 1", limit=1, mode="vector").hits
    of_queries, of_items = (open_query_embedder(name).embed_queries(["lamp 1"])[0] for name in ("shop_v2", "shop_v1"))
    assert hit.similarity == pytest.approx(float(of_queries @ np.array(vectors[hit.object_id])), abs=1e-5)
    assert float(of_queries @ of_items) < 0.999, "the query tower has moved"


def test_what_is_judged_is_the_query_model_with_the_items_that_are_live(tuned: FineTuned) -> None:
    assert (tuned.training.start_version, tuned.training.item_version) == ("1", "1")
    with ArtifactStore().fetch(tuned.evaluation.uri) as folder:
        report = json.loads((folder / "report.json").read_text())
    assert (report["champion"], report["candidate"]) == ("version 1", "candidate, items 1")
    manager = open_plugin("shop").experiments
    assert manager.registry.versions()[2].tags["estudio.item_version"] == "1"
    assert json.loads((manager.download_model(2) / "towers.json").read_text()) == {"item_version": 1}


def test_writes_and_syncs_encode_items_with_their_own_model(
    tuned: FineTuned, conn: psycopg.Connection, shop: Shop
) -> None:
    sync("shop", {})
    release("shop", tuned.version, "second")
    upsert("shop", [ItemWrite("new", "a blue tent", {"title": "a blue tent"})])
    shop.sql("UPDATE products SET title = 'a green radio' WHERE id = 7")
    of_items = open_bulk_embedder("shop_v1").embed_items(["a blue tent", "a green radio"])
    np.testing.assert_allclose(stored(conn, "object_id = 'new'")["new"], of_items[0], atol=1e-3)
    synced = sync("shop", {})
    assert (synced.embedded, synced.deleted) == (1, 1)
    np.testing.assert_allclose(stored(conn, "object_id = '7'")["7"], of_items[1], atol=1e-3)


def test_a_rollback_goes_to_the_former_query_model_and_nothing_that_is_named_is_cleaned_up(
    tuned: FineTuned, conn: psycopg.Connection
) -> None:
    collection_id = serving(conn).collection_id
    release("shop", tuned.version, "second")
    rollback("shop", {}, "back", "ana")
    assert towers(conn) == ("shop_v1", "shop_v1", collection_id)
    rollback("shop", {}, "forth", "ana")
    third = fine_tune("shop", QUERY, "fine-tune-2")
    assert (third.training.start_version, third.training.item_version) == ("2", "1")
    release("shop", third.version, "third")
    assert towers(conn) == ("shop_v3", "shop_v1", collection_id)
    # Two releases are kept; the first one's model encodes their items.
    assert entries() == ["shop_v1", "shop_v2", "shop_v3"]
    rollback("shop", {}, "back again", "ana")
    assert towers(conn) == ("shop_v2", "shop_v1", collection_id)
    assert len(search("shop", "lamp", limit=5).hits) == 5


def test_a_moved_alias_resolves_both_towers(tuned: FineTuned, conn: psycopg.Connection) -> None:
    collection_id = serving(conn).collection_id

    def moved(version: int, run_id: str) -> None:
        context.mlflow_client.client.set_registered_model_alias("shop", "champion", str(version))
        observe_all(conn, context.mlflow_client)
        release("shop", take_up("shop", run_id, {}, "the run", by_alias=True), run_id)

    moved(2, "to-2")
    assert towers(conn) == ("shop_v2", "shop_v1", collection_id)
    moved(1, "to-1")
    assert towers(conn) == ("shop_v1", "shop_v1", collection_id)


def test_over_another_collection_the_items_of_a_query_model_are_built_anew(
    tuned: FineTuned, conn: psycopg.Connection, small_model: Callable[..., Any], tmp_path: Path
) -> None:
    from estudio_core.models.storage import save_model

    first, vectors = serving(conn).collection_id, stored(conn)
    manager = open_plugin("shop").experiments
    save_model(small_model(seed=3), tmp_path / "both")
    both = manager.register_model(tmp_path / "both", manager.start_iteration("by hand").run_id)
    release("shop", str(both), "both")
    assert towers(conn)[:2] == ("shop_v3", "shop_v3")
    release("shop", tuned.version, "queries")
    now = towers(conn)
    assert now[:2] == ("shop_v2", "shop_v1")
    assert now[2] != first
    assert {key: pytest.approx(value, abs=1e-5) for key, value in vectors.items()} == stored(conn)
    release("shop", tuned.version, "once more")
    assert towers(conn)[2] != now[2], "what is live already gets a new collection"
    with pytest.raises(
        ConfigurationError, match=r"those of version 1; start_from='3' is version 3.*Start from the cha"
    ):
        train("shop", "refused", tuned.training.dataset.as_dict(), QUERY | {"start_from": "3"})


def test_both_are_trained_from_the_tower_of_items(tuned: FineTuned, conn: psycopg.Connection) -> None:
    collection_id = serving(conn).collection_id
    release("shop", tuned.version, "second")
    third = fine_tune("shop", {"num_epochs": 1}, "fine-tune-2")
    assert (third.training.start_version, third.training.item_version) == ("1", None)
    with ArtifactStore().fetch(third.evaluation.uri) as folder:
        report = json.loads((folder / "report.json").read_text())
    assert (report["champion"], report["candidate"]) == ("version 2, items 1", "candidate")
    release("shop", third.version, "third")
    assert towers(conn)[:2] == ("shop_v3", "shop_v3")
    rollback("shop", {}, "back", "ana")
    assert towers(conn) == ("shop_v2", "shop_v1", collection_id)
    assert serving(conn).model_version == "2"
