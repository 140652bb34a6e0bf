"""The client against a gRPC server that speaks Triton's protocol and misbehaves on demand."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from estudio_core import database, doctor
from estudio_core.errors import InferenceUnavailableError, MissingDependencyError, ModelError, ModelNotLoadedError
from estudio_core.inference import opening
from estudio_core.inference.embedder import Embedder
from estudio_core.inference.manifest import MODEL_FILE
from estudio_core.inference.onnx_embedder import OnnxEmbedder
from estudio_core.inference.onnx_session import open_session
from estudio_core.inference.standby_embedder import QUERY_TIMEOUT_S, StandbyEmbedder
from estudio_core.inference.triton_control import TritonControl
from estudio_core.inference.triton_embedder import TritonEmbedder
from estudio_core.settings import get_settings
from tests.vectordb.test_releases import live

TEXTS = ["usb c charger", "a", "wireless headphones " * 40, "", "usb c charger"]


class Protocol(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Computes a graph; `failures` are raised first, `delay_s` is waited, `answer` replaces the vectors."""

    def __init__(self, graph: Path) -> None:
        self.session = open_session(graph)
        self.failures: list[tuple[grpc.StatusCode, str]] = []
        self.delay_s = 0.0
        self.answer: Any = None
        self.loaded = {"shop_v1"}
        self.forgets = 0  # so many requests to load are answered and forgotten
        self.shapes: list[list[int]] = []
        self.peers: set[str] = set()
        self.lock = threading.Lock()

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 (names of the protocol)
        with self.lock:
            self.shapes.append(list(request.inputs[0].shape))
            self.peers.add(context.peer())
            failure = self.failures.pop(0) if self.failures else None
        time.sleep(self.delay_s)
        if failure:
            context.abort(*failure)
        if request.model_name not in self.loaded:
            context.abort(
                grpc.StatusCode.UNAVAILABLE, f"Request for unknown model: '{request.model_name}' is not found"
            )
        tensors = {
            given.name: np.frombuffer(raw, dtype=np.int64).reshape(given.shape)
            for given, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        vectors = self.session.run(None, tensors)[0] if self.answer is None else self.answer
        output = service_pb2.ModelInferResponse.InferOutputTensor(
            name="embedding", datatype="FP32", shape=vectors.shape
        )
        return service_pb2.ModelInferResponse(
            model_name=request.model_name, outputs=[output], raw_output_contents=[vectors.tobytes()]
        )

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802 (as above)
        return service_pb2.ModelReadyResponse(ready=request.name in self.loaded)

    def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802 (as above)
        if self.forgets:
            self.forgets -= 1
        else:
            self.loaded.add(request.model_name)
        return service_pb2.RepositoryModelLoadResponse()

    def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: N802 (as above)
        self.loaded.discard(request.model_name)
        return service_pb2.RepositoryModelUnloadResponse()

    def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802 (as above)
        index = [service_pb2.RepositoryIndexResponse.ModelIndex(name=n, state="READY") for n in sorted(self.loaded)]
        return service_pb2.RepositoryIndexResponse(models=index)


@pytest.fixture
def server(served) -> Iterator[tuple[Protocol, str]]:
    protocol = Protocol(served[1] / MODEL_FILE)
    running = grpc.server(futures.ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(protocol, running)
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    yield protocol, f"127.0.0.1:{port}"
    running.stop(grace=None).wait()


@pytest.fixture
def embedder(server, served) -> Iterator[TritonEmbedder]:
    embedder = TritonEmbedder(server[1], served[1], timeout_s=5)
    yield embedder
    embedder.close()


def test_vectors_equal_those_of_the_in_process_embedder(served, embedder):
    local = OnnxEmbedder(served[1])
    assert isinstance(embedder, Embedder)
    np.testing.assert_allclose(embedder.embed_queries(TEXTS), local.embed_queries(TEXTS), atol=1e-5)
    np.testing.assert_allclose(embedder.embed_items(TEXTS), local.embed_items(TEXTS), atol=1e-5)
    assert embedder.embed_items([]).shape == (0, 32)


def test_requests_have_bucketed_lengths_and_bounded_batches(server, embedder):
    protocol, _ = server
    embedder.embed_items([f"item {i}" for i in range(150)] + ["long text " * 30])
    assert {length for _, length in protocol.shapes} <= {16, 32, 48}
    assert max(rows for rows, _ in protocol.shapes) == 64


def test_one_channel_serves_all_requests(server, embedder):
    for _ in range(5):
        embedder.embed_queries(["x"])
    assert len(server[0].peers) == 1


def test_a_server_that_is_away_for_a_moment_is_asked_again(server, embedder):
    server[0].failures = [(grpc.StatusCode.UNAVAILABLE, "restarting")] * 2
    assert embedder.embed_queries(["x"]).shape == (1, 32)
    assert len(server[0].shapes) == 3


def test_a_server_that_stays_away_is_named_with_model_and_cause(served):
    embedder = TritonEmbedder("127.0.0.1:1", served[1], timeout_s=0.5, attempts=2)
    with pytest.raises(InferenceUnavailableError, match=r"127\.0\.0\.1:1 .*infer, model shop_v1, 2 attempts.*UNAVAIL"):
        embedder.embed_queries(["x"])


def test_a_late_answer_is_an_error_within_the_deadline(server, served):
    server[0].delay_s = 1.0
    embedder = TritonEmbedder(server[1], served[1], timeout_s=0.1, attempts=2)
    started = time.monotonic()
    with pytest.raises(InferenceUnavailableError, match=r"shop_v1, 2 attempts.*Deadline Exceeded"):
        embedder.embed_queries(["x"])
    assert time.monotonic() - started < 0.9


def test_a_model_that_is_not_loaded_is_an_error_at_once(server, embedder):
    server[0].loaded.clear()
    with pytest.raises(
        InferenceUnavailableError, match=r"refused \(infer, model shop_v1\).*unknown model.*Load it first"
    ):
        embedder.embed_queries(["x"])
    assert len(server[0].shapes) == 1


def test_a_request_that_the_server_refuses_is_not_repeated(server, embedder):
    server[0].failures = [(grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape")]
    with pytest.raises(ModelError, match="unexpected shape"):
        embedder.embed_queries(["x"])
    assert len(server[0].shapes) == 1


@pytest.mark.parametrize(
    "answer", [np.zeros((1, 31), np.float32), np.zeros((0, 32), np.float32), np.full((1, 32), np.nan, np.float32)]
)
def test_vectors_of_the_wrong_shape_or_not_finite_are_refused(answer, server, embedder):
    server[0].answer = answer
    with pytest.raises(ModelError, match="expected finite numbers"):
        embedder.embed_queries(["x"])


def test_an_address_with_a_scheme_is_refused(served):
    with pytest.raises(ModelError, match="host:port"):
        TritonEmbedder("http://localhost:8001", served[1])


def test_a_server_that_is_restarted_while_it_loads_is_asked_to_load_again(server, served):
    server[0].loaded.clear()
    server[0].forgets = 1
    control = TritonControl(server[1])
    assert control.load(served[1], timeout_s=20).name == "shop_v1"
    assert control.loaded() == {"shop_v1": "READY"}
    control.close()


def test_what_encodes_with_a_server_has_it_load_the_entry_again_after_a_restart(server, served, monkeypatch):
    monkeypatch.setenv("ESTUDIO_INFERENCE", "triton")
    get_settings.cache_clear()
    try:
        for _ in range(2):  # once when it is opened, and once while it is in use
            server[0].loaded.clear()
            embedder = opening.open_query_embedder("shop_v1", repository=served[1].parent, url=server[1])
            assert embedder.embed_items(["x"]).shape == (1, 32)
            assert server[0].loaded == {"shop_v1"}
    finally:
        opening.close_embedders()
        monkeypatch.undo()
        get_settings.cache_clear()


def test_a_server_without_a_model_that_serves_is_not_healthy(server, served):
    control = TritonControl(server[1])
    assert control.check_loaded(served[1].parent, {"shop_v1"}) == ["shop_v1"]
    server[0].loaded.clear()
    assert control.check_loaded(served[1].parent) == []
    with pytest.raises(ModelNotLoadedError, match=r"has not loaded shop_v1.*ready: none"):
        control.check_loaded(served[1].parent, {"shop_v1"})
    control.close()


def test_the_doctor_misses_a_live_model_that_the_server_has_not_loaded(server, served, estudio_home, monkeypatch):
    monkeypatch.setenv("ESTUDIO_INFERENCE", "triton")
    monkeypatch.setenv("ESTUDIO_INFERENCE_GRPC_PORT", server[1].split(":")[1])
    monkeypatch.setenv("ESTUDIO_TRITON_REPOSITORY", str(served[1].parent))
    get_settings.cache_clear()
    server[0].loaded.clear()
    assert doctor._inference().state == "ok"
    with database.connect(autocommit=True) as connection:
        live(connection, "v1", {"a": "x"})
    finding = doctor._inference()
    assert (finding.state, "has not loaded shop_v1" in finding.detail) == ("missing", True)


def test_loading_ends_with_the_golden_texts(server, served):
    server[0].loaded.clear()
    control = TritonControl(server[1])
    assert control.load(served[1]).name == "shop_v1"
    assert control.loaded() == {"shop_v1": "READY"}
    server[0].answer = np.tile(np.eye(32, dtype=np.float32)[0], (1, 1))
    with pytest.raises(ModelError):
        control.check(served[1])
    control.close()


def test_a_server_that_computes_something_else_is_unloaded_again(server, served):
    server[0].session = open_session(served[1].parent / "shop_v2" / MODEL_FILE)
    control = TritonControl(server[1])
    with pytest.raises(ModelError, match="gives other vectors for shop_v1"):
        control.load(served[1])
    assert control.loaded() == {}
    control.close()


@pytest.fixture
def standby(server, served) -> Iterator[StandbyEmbedder]:
    embedder = StandbyEmbedder(server[1], served[1], lambda: OnnxEmbedder(served[1]), timeout_s=5)
    yield embedder
    embedder.close()


def wait_until_the_server_answers(embedder: StandbyEmbedder) -> None:
    deadline = time.monotonic() + 30
    while not embedder.server_answers:
        assert time.monotonic() < deadline, "the server is not used again"
        time.sleep(0.05)


def test_queries_are_answered_while_the_server_is_away_and_by_the_server_once_it_is_back(server, served, standby):
    expected = OnnxEmbedder(served[1]).embed_queries(TEXTS)
    np.testing.assert_allclose(standby.embed_queries(TEXTS), expected, atol=1e-5)
    assert standby.server_answers
    server[0].loaded.clear()  # as after a crash: it runs, and has no model
    np.testing.assert_allclose(standby.embed_queries(TEXTS), expected, atol=1e-5)
    wait_until_the_server_answers(standby)
    assert server[0].loaded == {"shop_v1"}
    asked = len(server[0].shapes)
    np.testing.assert_allclose(standby.embed_queries(TEXTS), expected, atol=1e-5)
    assert len(server[0].shapes) > asked


def test_a_server_that_computes_something_else_answers_no_query(server, served, standby):
    server[0].session = open_session(served[1].parent / "shop_v2" / MODEL_FILE)
    expected = OnnxEmbedder(served[1]).embed_queries(TEXTS)
    np.testing.assert_allclose(standby.embed_queries(TEXTS), expected, atol=1e-5)
    assert not standby.server_answers
    server[0].session = open_session(served[1] / MODEL_FILE)
    wait_until_the_server_answers(standby)


def test_without_anything_else_to_encode_with_a_server_that_is_away_is_an_error(served):
    def missing() -> Any:
        raise MissingDependencyError("ONNX Runtime is not installed.")

    standby = StandbyEmbedder("127.0.0.1:1", served[1], missing, timeout_s=0.2)
    for _ in range(2):
        with pytest.raises(InferenceUnavailableError, match=r"Triton at 127\.0\.0\.1:1"):
            standby.embed_queries(["x"])
    standby.close()


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def test_a_server_that_accepts_and_never_answers_keeps_no_query_waiting(served, silent_server):
    local = OnnxEmbedder(served[1])
    standby = StandbyEmbedder(silent_server, served[1], lambda: local, timeout_s=10)
    for longest_s in (2.0, 0.5):
        started = time.monotonic()
        np.testing.assert_allclose(standby.embed_queries(TEXTS), local.embed_queries(TEXTS), atol=1e-5)
        assert time.monotonic() - started < longest_s
    standby.close()


def test_a_server_that_hangs_later_keeps_one_query_waiting_for_two_short_attempts(server, served, standby):
    expected = standby.embed_queries(TEXTS)
    assert standby.server_answers
    server[0].delay_s = 3.0
    for longest_s in (2.5, 0.5):
        started = time.monotonic()
        np.testing.assert_allclose(standby.embed_queries(TEXTS), expected, atol=1e-5)
        assert time.monotonic() - started < longest_s


def test_a_slow_server_answers_queries_where_nothing_else_can(server, served):
    def missing() -> Any:
        raise MissingDependencyError("ONNX Runtime is not installed.")

    standby = StandbyEmbedder(server[1], served[1], missing, timeout_s=10)
    server[0].delay_s = QUERY_TIMEOUT_S + 0.05
    assert standby.embed_queries(["x"]).shape == (1, 32)
    server[0].session = open_session(served[1].parent / "shop_v2" / MODEL_FILE)
    fresh = StandbyEmbedder(server[1], served[1], missing, timeout_s=10)
    with pytest.raises(ModelError, match="gives other vectors"):
        fresh.embed_queries(["x"])
    standby.close()
    fresh.close()
