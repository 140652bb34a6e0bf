"""Models in an object store: the repository of each machine is a cache of it.

The store is one in memory, and moto's server where `moto_server` (PyPI: moto[server]) is on PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import httpx
import pytest

from estudio_core.errors import RepositoryError
from estudio_core.export.triton_repository import list_entries, sweep_unfinished
from estudio_core.inference import coming_models, model_store, staging
from estudio_core.inference.manifest import MANIFEST_FILE
from estudio_core.inference.model_store import entry_of, local_entry, push_entry, remove_stored, stored_entries
from estudio_core.inference.opening import close_embedders
from estudio_core.local.ports import any_free_port
from estudio_core.pipeline.clean_up import clean_up
from estudio_core.pipeline.register_base_model import register_base_model
from estudio_core.searching import search
from estudio_core.settings import get_settings
from tests.pipeline.steps import build_release, release

if TYPE_CHECKING:
    from tests.pipeline.conftest import Shop

MOTO = shutil.which("moto_server")
SEARCH = """
import json, sys
from estudio_core import search
print(json.dumps([[hit.object_id, hit.similarity] for hit in search("shop", sys.argv[1], limit=5).hits]))
"""


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of an S3-compatible server, opened by the variables of the environment."""
    if MOTO is None:
        pytest.skip("needs moto_server (PyPI: moto[server]) on PATH")
    pytest.importorskip("s3fs", reason="needs the packages of the extra s3")
    address = f"http://127.0.0.1:{any_free_port()}"
    server = subprocess.Popen(
        [MOTO, "-H", "127.0.0.1", "-p", address.rpartition(":")[2]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with pytest.MonkeyPatch.context() as environment:
            for name, value in {
                "AWS_ENDPOINT_URL_S3": address,
                "AWS_ACCESS_KEY_ID": "estudio",
                "AWS_SECRET_ACCESS_KEY": "estudio",
                "AWS_DEFAULT_REGION": "us-east-1",
            }.items():
                environment.setenv(name, value)
            until = time.monotonic() + 60
            while time.monotonic() < until:
                try:
                    httpx.put(f"{address}/shop-models").raise_for_status()
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield "s3://shop-models"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest) -> str:
    return "memory://test-models" if request.param == "memory" else f"{request.getfixturevalue('bucket')}/published"


@pytest.fixture
def stored_shop(indexed_shop: Shop, store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """The shop, its model in a store too."""
    monkeypatch.setenv("ESTUDIO_MODEL_STORE", store)
    get_settings.cache_clear()
    assert push_entry("shop_v1")
    yield indexed_shop
    files, root = stored()
    if files.exists(root):
        files.rm(root, recursive=True)
    monkeypatch.undo()
    get_settings.cache_clear()


def stored() -> tuple[Any, str]:
    """Return the file system of the store, and its root there."""
    files, root = fsspec.core.url_to_fs(get_settings().model_store)
    return files, str(root)


def unfinished() -> list[Path]:
    """Return what half done copies have left."""
    return [path for path in staging.work_folder(get_settings().triton_repository).iterdir() if path.is_dir()]


def forget_here() -> None:
    """Take the model from this machine, and let no search of earlier have it fetched behind the test's back."""
    with coming_models._lock:
        coming_models._searched.clear()
    shutil.rmtree(get_settings().triton_repository / "shop_v1")
    close_embedders()


def test_a_machine_without_a_model_fetches_it_and_finds_the_same(stored_shop: Shop) -> None:
    before, manifest = search("shop", "red lamp", limit=5), entry_of("shop_v1")
    forget_here()
    after = search("shop", "red lamp", limit=5)
    assert [(hit.object_id, hit.similarity) for hit in after.hits] == [(h.object_id, h.similarity) for h in before.hits]
    assert entry_of("shop_v1") == manifest
    assert [entry.name for entry in list_entries(get_settings().triton_repository)] == ["shop_v1"]
    assert not push_entry("shop_v1"), "what is there is left alone"
    forget_here()
    assert build_release("shop", "shop_v1", "elsewhere").state == "live"


def test_a_damaged_copy_is_refused_and_nothing_of_it_stays(stored_shop: Shop) -> None:
    forget_here()
    files, root = stored()
    files.pipe_file(f"{root}/shop_v1/1/model.onnx", b"something else")
    with pytest.raises(RepositoryError, match=r"model\.onnx is corrupt"):
        entry_of("shop_v1")
    assert unfinished() == []
    assert not (get_settings().triton_repository / "shop_v1").exists()


def test_a_killed_fetch_leaves_nothing_that_stays(stored_shop: Shop) -> None:
    forget_here()
    for mend in (lambda: local_entry("shop_v1"), lambda: sweep_unfinished(get_settings().triton_repository)):
        child = os.fork()
        if child == 0:
            model_store.compare_files = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            try:
                local_entry("shop_v1")
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        [left] = unfinished()
        assert (left / "1" / "model.onnx").is_file()
        assert not (get_settings().triton_repository / "shop_v1").exists()
        mend()
        assert unfinished() == []
        shutil.rmtree(get_settings().triton_repository / "shop_v1", ignore_errors=True)


def test_a_cache_loses_earlier_versions_that_the_store_has_no_longer(stored_shop: Shop) -> None:
    repository = get_settings().triton_repository
    files, root = stored()
    for name in ("shop_v0", "shop_v2", "shop_two_v0", "shop_vx"):
        (repository / name).mkdir()
    files.pipe_file(f"{root}/shop_v00/config.pbtxt", b"")
    (repository / "shop_v00").mkdir()
    forget_here()
    local_entry("shop_v1")
    # v2 may be published just now; v00 is in the store still.
    assert sorted(path.name for path in repository.glob("shop*")) == [
        "shop_two_v0",
        "shop_v00",
        "shop_v1",
        "shop_v2",
        "shop_vx",
    ]


def test_machines_that_only_search_fetch_what_serves(stored_shop: Shop, bucket: str, tmp_path: Path) -> None:
    if not str(get_settings().model_store).startswith(bucket):
        pytest.skip("no other process sees this one's memory")
    wanted = [[hit.object_id, hit.similarity] for hit in search("shop", "red lamp", limit=5).hits]
    cache = tmp_path / "cache"
    environment = {**os.environ, "ESTUDIO_TRITON_REPOSITORY": str(cache), "ESTUDIO_HOME": str(tmp_path / "web")}
    environment["ESTUDIO_DATABASE_URL"] = stored_shop.database_url

    def searching() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", SEARCH, "red lamp"], env=environment, stdout=subprocess.PIPE, text=True
        )

    for process in [searching(), searching()]:  # both at once, into one cache
        said, _ = process.communicate(timeout=100)
        assert [[found, pytest.approx(similarity)] for found, similarity in json.loads(said)] == wanted
    assert sorted(path.name for path in cache.iterdir() if not path.name.startswith(".")) == ["shop_v1"]


def test_a_copy_that_was_killed_is_none_and_is_completed(stored_shop: Shop) -> None:
    folder = get_settings().triton_repository / "shop_v1"
    kept = folder.with_name("kept")
    files, root = stored()
    files.rm_file(f"{root}/shop_v1/{MANIFEST_FILE}")
    folder.rename(kept)
    assert not local_entry("shop_v1").exists()
    kept.rename(folder)
    assert push_entry("shop_v1")
    forget_here()
    assert local_entry("shop_v1").is_dir()


def test_a_name_is_written_once(stored_shop: Shop) -> None:
    files, root = stored()
    other = entry_of("shop_v1").model_copy(update={"digest": "0" * 64})
    files.pipe_file(f"{root}/shop_v1/{MANIFEST_FILE}", other.model_dump_json().encode())
    with pytest.raises(RepositoryError, match="has another model as 'shop_v1'"):
        push_entry("shop_v1")
    assert remove_stored("shop_v1")
    assert not remove_stored("shop_v1")
    assert stored_entries() == []


def test_releases_publish_into_the_store_and_clean_up_there(stored_shop: Shop) -> None:
    version = register_base_model("shop", "initialize-1", "ana")
    assert version == "1"
    remove_stored("shop_v1")
    forget_here()
    release("shop", version, "run")
    assert stored_entries() == ["shop_v1"]
    stored_shop.sql("UPDATE estudio.deployments SET model_name = 'shop_v9' WHERE run_id = 'first'")
    files, root = stored()
    files.pipe_file(f"{root}/shop_v9/config.pbtxt", b"")
    stored_shop.sql("UPDATE estudio.deployments SET state = 'retired' WHERE run_id = 'first'")
    assert clean_up("shop", {}).removed_models == ["shop_v9"]
    assert stored_entries() == ["shop_v1"]
