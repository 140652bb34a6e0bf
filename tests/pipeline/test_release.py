"""The checks and the clean-up around a release, step by step as Airflow runs them."""

from __future__ import annotations

import json
import shutil
from threading import current_thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from psycopg import sql

from estudio_core import database
from estudio_core.errors import ConcurrentReleaseError, ModelError, VerificationError
from estudio_core.inference import opening, staging
from estudio_core.inference.model_store import entry_of
from estudio_core.pipeline.build_index import build_index
from estudio_core.pipeline.clean_up import clean_up
from estudio_core.pipeline.embed_shard import embed_shard
from estudio_core.pipeline.manifests import PublishedManifest
from estudio_core.pipeline.start_collection import start_collection
from estudio_core.pipeline.verify import verify
from estudio_core.plugin.run_params import ReleaseParams
from estudio_core.searching import search
from estudio_core.settings import get_settings
from estudio_core.vectordb.locks import build_lock
from estudio_core.vectordb.releases import fail_release, get_release, live_release, start_release
from estudio_core.vectordb.search import find_by_ids
from tests.pipeline.steps import build_release

if TYPE_CHECKING:
    from tests.pipeline.conftest import Shop


def published(model_name: str) -> dict[str, Any]:
    manifest = entry_of(model_name)
    return PublishedManifest(
        name=model_name, version="1", digest=manifest.digest, dimensions=manifest.dimensions
    ).as_dict()


def loaded(run_id: str) -> list[dict[str, Any]]:
    shards = start_collection("shop", published("shop_v1"), 2, run_id)
    return [embed_shard("shop", shard.as_dict()).as_dict() for shard in shards]


def test_a_release_is_verified_by_golden_texts_asked_anew(indexed_shop: Shop) -> None:
    assert len(search("shop", "red lamp", limit=5).hits) == 5  # with a model that is open from now on
    built = build_index("shop", loaded("second")).as_dict()
    file = get_settings().triton_repository / "shop_v1" / "manifest.json"
    content = json.loads(file.read_text())
    content["golden"]["query_vectors"] = [[-x for x in row] for row in content["golden"]["query_vectors"]]
    file.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="gives other vectors for shop_v1"):
        verify("shop", built)
    with database.connect() as connection:
        assert get_release(connection, built["release_id"]).state == "built"
        live = live_release(connection, "shop")
    assert live is not None
    assert live.run_id == "first"
    assert len(search("shop", "red lamp", limit=5).hits) == 5


def test_a_model_that_is_released_again_encodes_only_what_changed(indexed_shop: Shop) -> None:
    with database.connect(autocommit=True) as connection:
        connection.execute("UPDATE products SET title = 'a violet umbrella' WHERE id = 7")
        live = live_release(connection, "shop")
        assert live is not None
        before = {o.object_id: o for o in find_by_ids(connection, live.collection, ["3", "8"], with_vectors=True)}
        connection.execute(
            "INSERT INTO estudio.improved_objects (release_id, stored_id, content_hash, parts, base)"
            " VALUES (%s, '8', %s, 1, '{0}')",
            (live.release_id, before["8"].content_hash),
        )
    shards = loaded("second")
    assert [shard["invalid"] for shard in shards] == [{}, {}]
    assert (sum(s["items"] for s in shards), sum(s["reused"] for s in shards)) == (
        60,
        58,
    )  # not 7, which changed, nor 8
    with database.connect() as connection:
        collection = get_release(connection, shards[0]["release_id"]).collection
        after = {o.object_id: o for o in find_by_ids(connection, collection, ["3", "7", "8"], with_vectors=True)}
    assert after["3"].vectors.tolist() == before["3"].vectors.tolist()  # type: ignore[union-attr]
    assert np.allclose(after["8"].vectors, before["8"].vectors, atol=1e-2)  # type: ignore[arg-type]
    assert after["7"].content_hash != before["3"].content_hash


def test_a_collection_that_lost_rows_is_refused(indexed_shop: Shop) -> None:
    shards = loaded("second")
    with database.connect() as connection:
        objects = get_release(connection, shards[0]["release_id"]).collection.objects
        connection.execute(sql.SQL("DELETE FROM {} WHERE object_id = '7'").format(objects))
    with pytest.raises(VerificationError, match="holds 59 objects; its shards have loaded 60"):
        build_index("shop", shards)


def test_a_build_is_refused_while_another_one_is_working(indexed_shop: Shop) -> None:
    with database.connect(autocommit=True) as other, build_lock(other, "shop", shared=True):
        with pytest.raises(ConcurrentReleaseError, match="being built by another process"):
            start_collection("shop", published("shop_v1"), 2, "second")
        with database.connect() as connection:
            [row] = connection.execute("SELECT count(*) FROM estudio.deployments").fetchall()
        assert row == (1,)
    assert len(loaded("second")) == 2


def test_a_search_that_is_overtaken_by_releases_is_answered_by_the_live_one(
    indexed_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = opening.open_search_embedder
    asked: list[str] = []

    def slow(entry_name: str) -> Any:
        if current_thread().name == "estudio-coming-models":  # it looks at what is coming, for nobody's answer
            return encoder(entry_name)
        asked.append(entry_name)
        if len(asked) == 1:
            for run_id in ("second", "third"):
                build_release("shop", "shop_v1", run_id)
            assert len(clean_up("shop", {}).retired_releases) == 1
        return encoder(entry_name)

    monkeypatch.setattr(opening, "open_search_embedder", slow)
    answer = search("shop", "red lamp", limit=5)
    assert (answer.release_id, len(answer.hits)) == (3, 5)
    assert len(asked) > 1


def test_an_exact_search_does_not_ask_the_index(indexed_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = search("shop", "red lamp", limit=5).hits

    def asked(*_: object, **__: object) -> None:
        raise AssertionError("the index was asked")

    for way in ("first_page", "index_rows"):
        monkeypatch.setattr(f"estudio_core.vectordb.search.{way}", asked)
    with pytest.raises(AssertionError, match="the index was asked"):
        search("shop", "red lamp", limit=5)
    assert search("shop", "red lamp", limit=5, exact=True).hits == expected


def test_clean_up_deletes_what_killed_publications_and_removals_left(indexed_shop: Shop) -> None:
    repository = get_settings().triton_repository
    work = staging.prepare(repository)
    left = [work / "shop_v9.retired-0a1b2c3d", work / "shop_v8.staged-0a1b2c3d"]
    being_written = work / "shop_v7.staged-0a1b2c3d"
    with staging.only_writer(work, "shop_v7"):
        for folder in (*left, being_written):
            folder.mkdir()
            (folder / "manifest.json").write_text("{}")
        clean_up("shop", {})
        assert being_written.is_dir()
    assert not any(folder.exists() for folder in left)


def test_clean_up_removes_the_models_of_releases_that_are_over_and_no_other(indexed_shop: Shop) -> None:
    repository = get_settings().triton_repository

    def entry(number: int) -> str:
        """Put an entry like shop_v1 under another number."""
        name = f"shop_v{number}"
        shutil.copytree(repository / "shop_v1", repository / name)
        file = repository / name / "manifest.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"name": name, "version": str(number)}))
        return name

    with database.connect(autocommit=True) as connection:
        first = live_release(connection, "shop")
        assert first is not None
        failed = start_release(connection, "shop", entry(7), "7", first.index_info, "failed")
        fail_release(connection, failed, "killed")
        entry(8)  # published for a release that is about to begin
        for run_id in ("second", "third"):
            build_release("shop", "shop_v1", run_id)
        done = clean_up("shop", {})
        assert (done.retired_releases, done.removed_models) == ([failed.release_id, first.release_id], ["shop_v7"])
        states = {r[0]: r[1] for r in connection.execute("SELECT run_id, state FROM estudio.deployments").fetchall()}
    assert states == {"first": "retired", "failed": "failed", "second": "previous", "third": "live"}
    assert sorted(folder.name for folder in repository.glob("shop_v*")) == ["shop_v1", "shop_v8"]
    assert clean_up("shop", {}).removed_models == []
    assert len(search("shop", "red lamp", limit=5).hits) == 5


def test_as_many_releases_are_kept_as_the_setting_says_or_else_the_run(
    indexed_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESTUDIO_KEEP_RELEASES", "3")
    get_settings.cache_clear()
    for run_id in ("second", "third"):
        build_release("shop", "shop_v1", run_id)
    assert clean_up("shop", ReleaseParams().model_dump()).retired_releases == []
    assert clean_up("shop", ReleaseParams(keep_releases=2).model_dump()).retired_releases == [1]
