"""The same store through a real MLflow server: what its UI reads, and registering over HTTP."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from estudio_core.experiments.manager import ExperimentsManager
from estudio_core.experiments.model_registry import folder_digest
from estudio_core.local import services
from estudio_core.local.installation import START_TIMEOUT_S
from estudio_core.local.mlflow_ui import mlflow_service
from estudio_core.settings import get_settings
from lightning_modules.config import TrainingConfig

pytestmark = pytest.mark.e2e


@pytest.fixture
def server(
    manager: ExperimentsManager, home: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    monkeypatch.setenv("ESTUDIO_DATABASE_URL", database_url)  # where those who use the server take turns
    get_settings.cache_clear()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    service = mlflow_service(home, tracking_uri=manager.wrapper.tracking_uri, port=port)
    assert service.address
    try:
        services.start(service)
        services.wait_until_healthy([service], timeout_s=START_TIMEOUT_S)
        yield service.address
    finally:
        services.stop(service)


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def test_a_server_shows_and_serves_what_was_registered(
    manager: ExperimentsManager,
    server: str,
    model_folder: Path,
    tmp_path: Path,
    write_model: Callable[[Path, str], Path],
) -> None:
    manager.upload_initial_folder(model_folder)
    iteration = manager.start_iteration("run-1", dataset_id="abc")
    with manager.start_trial(iteration, TrainingConfig(margin=0.2)) as trial:
        trial.log({"test_ndcg@10": 0.7}, 10)

    remote = ExperimentsManager(server, "test_ndcg@10", "shop", [])
    second = write_model(tmp_path / "second", "second")
    assert remote.register_model(second, trial.run_id, metrics={"gain": 0.02}) == 2
    assert remote.register_model(second, trial.run_id) == 2
    remote.promote(2, "gain 0.02", "gate", {"gain": 0.02})
    assert remote.top_params(1) == [TrainingConfig(margin=0.2)]
    assert folder_digest(remote.download_model("champion")) == folder_digest(second)
    assert manager.aliases() == {"base": 1, "champion": 2}

    api = f"{server}/api/2.0/mlflow"
    model = get(f"{api}/registered-models/get?name=shop")["registered_model"]
    assert {one["alias"]: one["version"] for one in model["aliases"]} == {"base": "1", "champion": "2"}
    version = get(f"{api}/model-versions/get?name=shop&version=2")["model_version"]
    assert version["status"] == "READY"
    assert version["run_id"] == trial.run_id
    tags = {one["key"]: one["value"] for one in version["tags"]}
    assert tags["estudio.champion"] == "promote: gain 0.02"
    run = get(f"{api}/runs/get?run_id={trial.run_id}")["run"]
    assert {one["key"]: one["value"] for one in run["data"]["params"]}["margin"] == "0.2"
    (model_id,) = [one["model_id"] for one in run["outputs"]["model_outputs"]]
    listed = get(f"{server}/ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/directories")
    assert sorted(file["path"] for file in listed["files"]) == ["model.safetensors", "tokenizer"]
