"""Estudio against a real tritonserver: loading, serving, refusing, dying."""

from __future__ import annotations

import os
import shutil
import signal
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from estudio_core.errors import (
    ConfigurationError,
    InferenceUnavailableError,
    MissingDependencyError,
    ModelError,
    RepositoryError,
)
from estudio_core.export.triton_repository import ExportOptions, publish_entry
from estudio_core.inference import opening
from estudio_core.inference.clients import TritonClientFactory
from estudio_core.inference.onnx_embedder import OnnxEmbedder
from estudio_core.inference.triton_control import TritonControl
from estudio_core.inference.triton_embedder import TritonEmbedder
from estudio_core.local.triton.environment import TritonEnvironment, prepare
from estudio_core.local.triton.server import TritonServer, running_server
from estudio_core.settings import get_settings

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

TEXTS = [f"product number {i} " * (1 + i % 12) for i in range(90)]


@pytest.fixture(scope="module")
def environment() -> TritonEnvironment:
    try:
        return prepare(Path(__file__).parents[3] / ".venv-triton")
    except MissingDependencyError as error:
        pytest.skip(f"no local Triton server: {error}")


@pytest.fixture(scope="module")
def repository(small_model, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("triton") / "triton_repo"
    for number in (1, 2, 3):
        options = ExportOptions(max_batch_size=16, threads=1)
        publish_entry(root, f"shop_v{number}", small_model(seed=number, family="e5"), options=options)
    return root


@pytest.fixture(scope="module")
def server(environment, repository, tmp_path_factory) -> Iterator[TritonServer]:
    with running_server(environment, repository, tmp_path_factory.mktemp("log") / "server.log") as running:
        yield running


@pytest.fixture
def control(server) -> Iterator[TritonControl]:
    control = TritonControl(server.url)
    yield control
    control.close()


@pytest.fixture
def loaded(control, repository) -> Path:
    control.load(repository / "shop_v1")
    return repository / "shop_v1"


def metric(server: TritonServer, name: str, model: str) -> float:
    with urllib.request.urlopen(server.metrics_url, timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(name + "{") and f'model="{model}"' in line:
                return float(line.rsplit(" ", 1)[1])
    return 0.0


def test_the_server_gives_the_vectors_of_the_in_process_embedder(server, loaded):
    served, local = TritonEmbedder(server.url, loaded), OnnxEmbedder(loaded)
    vectors = served.embed_items(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(vectors, local.embed_items(TEXTS), atol=1e-5)
    np.testing.assert_allclose(served.embed_queries(TEXTS), local.embed_queries(TEXTS), atol=1e-5)
    served.close()


def test_concurrent_queries_are_joined_into_batches(server, loaded):
    embedder = TritonEmbedder(server.url, loaded)
    requests = metric(server, "nv_inference_request_success", "shop_v1")
    executions = metric(server, "nv_inference_exec_count", "shop_v1")
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda text: embedder.embed_queries([text])[0], ["usb charger"] * 64))
    np.testing.assert_allclose(found, OnnxEmbedder(loaded).embed_queries(["usb charger"] * 64), atol=1e-5)
    requests = metric(server, "nv_inference_request_success", "shop_v1") - requests
    executions = metric(server, "nv_inference_exec_count", "shop_v1") - executions
    assert requests == 64
    assert executions < requests
    embedder.close()


def test_one_query_after_another_waits_for_no_batcher(server, loaded):
    """The scheduler of a server with levels of priority looks for what it has missed every half second."""
    embedder = TritonEmbedder(server.url, loaded)
    before = metric(server, "nv_inference_queue_duration_us", "shop_v1")
    for _ in range(500):
        embedder.embed_queries(["usb charger"])
    waited_us = metric(server, "nv_inference_queue_duration_us", "shop_v1") - before
    assert waited_us < 400_000
    embedder.close()


def test_two_versions_serve_side_by_side_and_the_old_one_is_unloaded(control, server, loaded, repository):
    control.load(repository / "shop_v2")
    first, second = TritonEmbedder(server.url, loaded), TritonEmbedder(server.url, repository / "shop_v2")
    assert first.embed_queries(["x"])[0] @ second.embed_queries(["x"])[0] < 0.99
    control.unload("shop_v1")
    deadline = time.monotonic() + 20
    while control.is_ready("shop_v1") and time.monotonic() < deadline:  # unloading waits for requests in progress
        time.sleep(0.05)
    with pytest.raises(InferenceUnavailableError, match=r"refused \(infer, model shop_v1\).*Load it first"):
        first.embed_queries(["x"])
    assert second.embed_queries(["x"]).shape == (1, 32)


def test_a_model_that_was_never_loaded_is_an_error_that_names_it(server, repository):
    with pytest.raises(InferenceUnavailableError, match=r"model shop_v3\).*unknown model"):
        TritonEmbedder(server.url, repository / "shop_v3").embed_queries(["x"])


def test_a_damaged_entry_never_reaches_the_server(control, repository):
    shutil.copytree(repository / "shop_v3", repository / "kept")
    graph = repository / "shop_v3" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1000])
    try:
        with pytest.raises(RepositoryError, match=r"model\.onnx is corrupt"):
            control.load(repository / "shop_v3")
        assert "shop_v3" not in control.loaded()
    finally:
        shutil.rmtree(repository / "shop_v3")
        (repository / "kept").rename(repository / "shop_v3")


@pytest.mark.parametrize(
    ("line", "replacement", "reason"),
    [
        ("dims: [ 32 ]", "dims: [ 768 ]", "has dims .768. in config.pbtxt, .32. in the graph"),
        ("TYPE_FP32", "TYPE_FP16", "is TYPE_FP16 in config.pbtxt"),
        ('name: "embedding"', 'name: "vector"', "'vector' is not in the graph"),
        ("model.onnx", "other.onnx", "cannot load .*other.onnx"),
    ],
)
def test_our_backend_refuses_a_config_that_does_not_describe_the_graph(
    line, replacement, reason, control, repository, request
):
    name = f"wrong_v{request.node.callspec.indices['line'] + 1}"
    shutil.copytree(repository / "shop_v1", repository / name)
    config = repository / name / "config.pbtxt"
    assert line in config.read_text()
    config.write_text(config.read_text().replace(line, replacement).replace("shop_v1", name))
    with pytest.raises(Exception, match=reason):
        control._client.load_model(name)  # past our own digests, which would refuse earlier
    shutil.rmtree(repository / name)


def test_a_deadline_that_passes_is_an_error_in_time(server, loaded):
    embedder = TritonEmbedder(server.url, loaded, timeout_s=0.0005, attempts=2)
    started = time.monotonic()
    with pytest.raises(InferenceUnavailableError, match="shop_v1, 2 attempts"):
        embedder.embed_items(TEXTS)
    assert time.monotonic() - started < 5


def test_a_plugin_reaches_the_server_through_settings(server, repository, control, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ESTUDIO_INFERENCE", "triton")
    monkeypatch.setenv("ESTUDIO_INFERENCE_GRPC_PORT", str(server.grpc_port))
    monkeypatch.setenv("ESTUDIO_TRITON_REPOSITORY", str(repository))
    get_settings.cache_clear()
    try:
        opening.ensure_served("shop_v2")
        client = TritonClientFactory(server.url, "shop").get_client(2)
        assert isinstance(client.embedder, TritonEmbedder)
        expected = OnnxEmbedder(repository / "shop_v2").embed_queries(["usb"])[0]
        np.testing.assert_allclose(client.forward_query("usb"), expected, atol=1e-5)
        opening.stop_serving("shop_v2")
        assert control.loaded().get("shop_v2") != "READY"
    finally:
        opening.close_embedders()
        monkeypatch.undo()
        get_settings.cache_clear()


def test_health_is_a_golden_inference_not_the_ready_flag(environment, repository, tmp_path):
    with running_server(environment, repository, tmp_path / "log") as server:
        control = TritonControl(server.url, timeout_s=3)
        control.load(repository / "shop_v1")
        assert control.check(repository / "shop_v1") > 0.999
        stubs = [p for p in psutil.Process(server.process_id).children() if "stub" in p.name()]
        assert stubs
        for stub in stubs:
            stub.kill()
        assert server.is_ready(), "the server notices nothing"
        with pytest.raises((ModelError, InferenceUnavailableError), match="shop_v1"):
            control.check(repository / "shop_v1")
        control.close()
    assert not server.is_running()
    assert not list(Path("/dev/shm").glob(f"*estudio_triton_{server.grpc_port}_*"))


def test_a_killed_server_is_an_error_and_a_new_one_serves_the_same(environment, repository, tmp_path):
    server = TritonServer.start(environment, repository, tmp_path / "log")
    TritonControl(server.url).load(repository / "shop_v1")
    embedder = TritonEmbedder(server.url, repository / "shop_v1", timeout_s=1)
    before = embedder.embed_queries(["x"])
    os.killpg(server.process_id, signal.SIGKILL)
    with pytest.raises(InferenceUnavailableError, match=rf"{server.url} did not answer"):
        embedder.embed_queries(["x"])
    server.stop()
    assert not server.is_running()
    again = TritonServer.start(environment, repository, tmp_path / "log", grpc_port=server.grpc_port)
    try:
        TritonControl(again.url).load(repository / "shop_v1")
        np.testing.assert_allclose(embedder.embed_queries(["x"]), before, atol=1e-6)
    finally:
        again.stop()


def test_a_server_is_found_again_by_another_process_and_ports_are_checked(server, environment, repository, tmp_path):
    server.save(tmp_path / "server.json")
    assert TritonServer.load(tmp_path / "server.json") == server
    with pytest.raises(ConfigurationError, match=f"Port {server.http_port} is taken"):
        TritonServer.start(environment, repository, tmp_path / "log", http_port=server.http_port)
    (tmp_path / "server.json").write_text((tmp_path / "server.json").read_text().replace(str(server.grpc_port), "1"))
    assert TritonServer.load(tmp_path / "server.json") is None, "the process id belongs to another server now"
    assert TritonServer.load(tmp_path / "nothing.json") is None


def test_a_server_that_cannot_start_says_why(environment, tmp_path):
    with pytest.raises(ConfigurationError, match="no model repository"):
        TritonServer.start(environment, tmp_path / "nowhere", tmp_path / "log")


def test_preparing_again_is_immediate(environment: Any):
    started = time.monotonic()
    assert prepare(environment.folder) == environment
    assert time.monotonic() - started < 2
