from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from estudio_core.errors import ConfigurationError, TrackingUnavailableError
from estudio_core.experiments.mlflow_client import MLflowClientWrapper
from estudio_core.settings import get_settings


def test_constructing_a_client_touches_nothing(home: Path) -> None:
    wrapper = MLflowClientWrapper()
    assert wrapper.tracking_uri == f"sqlite:///{home.resolve()}/mlflow.db"
    assert wrapper.artifact_root == f"{home.resolve()}/mlartifacts"
    assert not home.exists()


def test_importing_the_modules_imports_nothing_heavy() -> None:
    code = (
        "import sys, estudio_core.context, estudio_core.experiments.manager, estudio_core.experiments.search, "
        "estudio_core.experiments.installation, estudio_core.experiments.model_downloader; "
        "from estudio_core.context import context; context.mlflow_client; context.model_downloader; "
        "print(sorted({'torch','mlflow','ray','pandas','pyarrow','transformers','lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_default_experiment_keeps_its_artifacts_below_home_too(home: Path) -> None:
    wrapper = MLflowClientWrapper()
    experiment = wrapper.client.get_experiment("0")
    assert str(home.resolve() / "mlartifacts") in experiment.artifact_location
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_server_that_does_not_answer_is_tried_again_and_then_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    wrapper = MLflowClientWrapper(f"http://127.0.0.1:{port}", attempts=2, wait_s=0.01)
    tried = 0

    def search(client: object) -> object:
        nonlocal tried
        tried += 1
        return client.search_experiments()  # type: ignore[attr-defined]  # MlflowClient, imported lazily

    with pytest.raises(TrackingUnavailableError, match=rf"127.0.0.1:{port} does not answer after 2 attempts"):
        wrapper.call(search)
    assert tried == 2


def test_an_error_that_is_no_lost_connection_is_not_tried_again(home: Path) -> None:
    tried = 0

    def fail(client: object) -> None:
        nonlocal tried
        tried += 1
        raise ValueError("no such run")

    with pytest.raises(ValueError, match="no such run"):
        MLflowClientWrapper(wait_s=0.01).call(fail)
    assert tried == 1


def test_an_unknown_kind_of_uri_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="ftp://"):
        _ = MLflowClientWrapper("ftp://somewhere").client


@pytest.mark.parametrize("uri", ["postgres://mlflow:hunter2@127.0.0.1:1/m", "http://me:hunter2@127.0.0.1:1"])
def test_no_message_has_the_password_of_the_store(uri: str) -> None:
    wrapper = MLflowClientWrapper(tracking_uri=uri, attempts=1)
    with pytest.raises((ConfigurationError, TrackingUnavailableError)) as caught:
        wrapper.call(lambda client: client.search_experiments(max_results=1))
    assert "127.0.0.1:1" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_several_processes_may_open_a_new_store_and_register_the_same_model_at_once(
    home: Path, model_folder: Path
) -> None:
    code = (
        "import sys; from pathlib import Path; from estudio_core.experiments.manager import ExperimentsManager; "
        "print(ExperimentsManager(None, 'm', 'shop', []).upload_initial_folder(Path(sys.argv[1])))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(model_folder)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=120)[0].strip() for process in running] == ["1", "1"]


def test_workers_on_several_machines_take_turns_at_one_server(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_machine(name: str) -> MLflowClientWrapper:
        monkeypatch.setenv("ESTUDIO_HOME", str(tmp_path / name))
        monkeypatch.setenv("ESTUDIO_DATABASE_URL", database_url)
        get_settings.cache_clear()
        return MLflowClientWrapper("http://mlflow.example:5000")

    def take(wrapper: MLflowClientWrapper, name: str) -> None:
        with wrapper.lock(name):
            pass

    with ThreadPoolExecutor() as pool:
        with on_machine("one").lock("registry-shop"):
            waiting = pool.submit(take, on_machine("two"), "registry-shop")
            pool.submit(take, on_machine("two"), "registry-other").result(30)
            with pytest.raises(TimeoutError):
                waiting.result(1)
        waiting.result(30)
    monkeypatch.undo()
    get_settings.cache_clear()
