from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from estudio_core.errors import DataError, InferenceUnavailableError, ModelError, RepositoryError
from estudio_core.inference import host, opening
from estudio_core.inference.clients import (
    TextToTextBertTritonClientFactory,
    TextToTextE5TritonClientFactory,
    TritonClientFactory,
)
from estudio_core.inference.onnx_embedder import OnnxEmbedder
from estudio_core.inference.torch_embedder import TorchEmbedder
from estudio_core.settings import get_settings, settings


@pytest.fixture(autouse=True)
def repository(served: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ESTUDIO_TRITON_REPOSITORY", str(served[1].parent))
    get_settings.cache_clear()
    yield served[1].parent
    opening.close_embedders()
    monkeypatch.undo()
    get_settings.cache_clear()


def test_the_factory_is_built_as_in_the_tutorial(served):
    model, _ = served
    factory = TextToTextE5TritonClientFactory(
        f"{settings.INFERENCE_HOST}:{settings.INFERENCE_GRPC_PORT}",
        plugin_name="shop",
        preprocessor=lambda item: f"title: {item['title']}",
        model_name="intfloat/multilingual-e5-large",
    )
    assert isinstance(factory, TritonClientFactory)
    client = factory.get_client("1")
    query = client.forward_query("usb c charger")
    assert query.shape == (32,)
    np.testing.assert_allclose(query, model.encode_queries(["usb c charger"])[0].numpy(), atol=1e-5)
    items = client.forward_items([{"title": "charger"}, "plain text"])
    np.testing.assert_allclose(items, model.encode_items(["title: charger", "plain text"]).numpy(), atol=1e-5)
    assert client.forward_items([]).shape == (0, client.dimensions)


def test_each_version_has_its_own_model(served):
    first = TritonClientFactory("127.0.0.1:1", "shop").get_client(1)
    second = TritonClientFactory("127.0.0.1:1", "shop").get_client(2)
    assert (first.name, second.name) == ("shop_v1", "shop_v2")
    assert first.forward_query("x") @ second.forward_query("x") < 0.99


def test_an_item_that_is_no_text_needs_a_preprocessor():
    client = TritonClientFactory("127.0.0.1:1", "shop").get_client(1)
    with pytest.raises(DataError, match="Item 1 is dict and the client of shop_v1 has no preprocessor"):
        client.forward_items(["a", {"title": "b"}])


def test_a_factory_of_the_wrong_family_is_refused():
    with pytest.raises(ModelError, match="shop_v1 is a model of the family 'e5'"):
        TextToTextBertTritonClientFactory("127.0.0.1:1", plugin_name="shop").get_client(1)
    assert TextToTextBertTritonClientFactory("127.0.0.1:1", plugin_name="shop").get_client(2).dimensions == 32


def test_a_version_that_is_not_published_is_named():
    with pytest.raises(RepositoryError, match="no entry 'shop_v7'"):
        TritonClientFactory("127.0.0.1:1", "shop").get_client(7)


def test_one_embedder_is_opened_per_process_and_kept():
    first = opening.open_query_embedder("shop_v1")
    assert isinstance(first, OnnxEmbedder)
    assert opening.open_query_embedder("shop_v1") is first
    opening.close_embedders()
    assert opening.open_query_embedder("shop_v1") is not first


def test_an_open_embedder_is_given_out_while_another_one_is_being_opened_once(monkeypatch):
    first = opening.open_query_embedder("shop_v1")
    begun, finish = threading.Event(), threading.Event()
    opened = []
    open_onnx = opening._open_onnx

    def slow(entry):
        begun.set()
        assert finish.wait(60)
        opened.append(open_onnx(entry))
        return opened[-1]

    monkeypatch.setattr(opening, "_open_onnx", slow)
    with ThreadPoolExecutor(3) as pool:
        others = [pool.submit(opening.open_query_embedder, "shop_v2") for _ in range(2)]
        try:
            assert begun.wait(60)
            assert pool.submit(opening.open_query_embedder, "shop_v1").result(timeout=30) is first
        finally:
            finish.set()
        assert [other.result(timeout=60) for other in others] == [opened[0], opened[0]]


def test_no_more_embedders_are_kept_than_the_limit(monkeypatch):
    monkeypatch.setattr(opening, "MAX_OPEN", 1)
    first = opening.open_query_embedder("shop_v1")
    opening.open_query_embedder("shop_v2")
    assert first.embed_queries(["still usable by who holds it"]).shape == (1, 32)
    assert opening.open_query_embedder("shop_v1") is not first


def test_bulk_encoding_uses_torch_where_the_cpu_multiplies_bfloat16(monkeypatch):
    monkeypatch.setattr(opening, "multiplies_bfloat16", lambda: True)
    bulk = opening.open_bulk_embedder("shop_v1")
    assert isinstance(bulk, TorchEmbedder)
    assert opening.open_bulk_embedder("shop_v1") is bulk


def test_bulk_encoding_falls_back_where_torch_cannot_serve_the_entry(monkeypatch, caplog):
    monkeypatch.setattr(opening, "multiplies_bfloat16", lambda: True)
    assert isinstance(opening.open_bulk_embedder("shop_v2"), OnnxEmbedder)
    assert "without torch weights" in caplog.text


def test_bulk_encoding_is_what_queries_use_elsewhere(monkeypatch):
    monkeypatch.setattr(opening, "_torch_is_fast", lambda: False)
    assert opening.open_bulk_embedder("shop_v1") is opening.open_query_embedder("shop_v1")


def test_serving_in_this_process_is_ensured_by_the_golden_texts(repository):
    opening.ensure_served("shop_v1")
    opening.stop_serving("shop_v1")
    with pytest.raises(RepositoryError, match="shop_v3"):
        opening.ensure_served("shop_v3")


def test_with_triton_configured_a_server_that_is_away_is_an_error_not_a_fallback(monkeypatch):
    monkeypatch.setenv("ESTUDIO_INFERENCE", "triton")
    monkeypatch.setenv("ESTUDIO_INFERENCE_GRPC_PORT", "1")
    monkeypatch.setenv("ESTUDIO_INFERENCE_TIMEOUT_S", "0.2")
    get_settings.cache_clear()
    with pytest.raises(InferenceUnavailableError, match=r"Triton at 127\.0\.0\.1:1 "):
        opening.open_query_embedder("shop_v1")
    with pytest.raises(InferenceUnavailableError, match="ready"):
        opening.ensure_served("shop_v1")


def test_threads_follow_setting_then_environment_then_cores(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert host.inference_threads() == 3
    monkeypatch.setenv("ESTUDIO_INFERENCE_THREADS", "5")
    get_settings.cache_clear()
    assert host.inference_threads() == 5
    monkeypatch.delenv("ESTUDIO_INFERENCE_THREADS")
    monkeypatch.delenv("OMP_NUM_THREADS")
    get_settings.cache_clear()
    assert 1 <= host.inference_threads() == host.usable_cores()
