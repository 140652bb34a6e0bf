from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from estudio_core.errors import ModelError, RepositoryError
from estudio_core.inference.embedder import Embedder
from estudio_core.inference.golden import cosines
from estudio_core.inference.torch_embedder import TorchEmbedder, _start_workers
from estudio_core.models.storage import save_model

TEXTS = ["usb c charger", "a", "wireless headphones " * 40, "", "usb c charger"]


def test_it_agrees_with_the_served_graph(served):
    model, entry = served
    embedder = TorchEmbedder(entry, device="cpu", half=False)
    assert isinstance(embedder, Embedder)
    np.testing.assert_allclose(embedder.embed_queries(TEXTS), model.encode_queries(TEXTS).numpy(), atol=1e-5)
    np.testing.assert_allclose(embedder.embed_items(TEXTS), model.encode_items(TEXTS).numpy(), atol=1e-5)
    assert embedder.embed_items([]).shape == (0, 32)


def test_bfloat16_is_close_and_its_vectors_are_of_length_one(served):
    model, entry = served
    embedder = TorchEmbedder(entry, device="cpu", half=True)
    vectors, exact = embedder.embed_items(TEXTS), model.encode_items(TEXTS).numpy()
    assert cosines(vectors, exact).min() > 0.999
    assert np.abs(vectors - exact).max() > 1e-5, "it really computes in lower precision"
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_weights_that_are_not_those_of_the_entry_are_refused(served, small_model, tmp_path):
    save_model(small_model(seed=77, family="e5"), tmp_path / "other")
    with pytest.raises(ModelError, match="torch in float32 on cpu gives other vectors for shop_v1"):
        TorchEmbedder(served[1], model_folder=tmp_path / "other", device="cpu", half=False)


def test_an_entry_without_torch_weights_says_so(served):
    with pytest.raises(RepositoryError, match="without torch weights"):
        TorchEmbedder(served[1].parent / "shop_v2")


def test_a_closed_embedder_says_so(served):
    embedder = TorchEmbedder(served[1], device="cpu", half=False)
    embedder.close()
    with pytest.raises(ModelError, match="closed"):
        embedder.embed_queries(["x"])


def test_batches_computed_at_once_give_the_same_vectors(served, monkeypatch):
    """One worker for each thread, each with a thread of its own; whoever opened the embedder keeps all threads."""
    texts = [f"{word} {number}" for number in range(40) for word in ("lamp", "usb c charger", "headphones " * 9)]
    vectors, threads = {}, {}
    before = torch.get_num_threads()
    try:
        for cores in (1, 2):
            monkeypatch.setattr("estudio_core.inference.torch_embedder.inference_threads", lambda cores=cores: cores)
            embedder = TorchEmbedder(served[1], device="cpu", half=False)
            computing: set[tuple[str, int]] = set()
            compute = embedder._compute

            def noted(token_ids, compute=compute, computing=computing):
                computing.add((threading.current_thread().name, torch.get_num_threads()))
                return compute(token_ids)

            monkeypatch.setattr(embedder, "_compute", noted)
            vectors[cores] = embedder.embed_items(texts)
            threads[cores] = computing
            assert torch.get_num_threads() == cores
            embedder.close()
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(vectors[1], vectors[2], atol=1e-6)
    assert threads[1] == {(threading.current_thread().name, 1)}
    assert {name.rpartition("_")[0] for name, _ in threads[2]} == {"estudio-encode"}
    assert {count for _, count in threads[2]} == {1}


def test_no_thread_is_left_without_a_worker():
    before = torch.get_num_threads()
    pool = _start_workers(6)
    try:
        together = threading.Barrier(4)
        assert sorted(pool.map(lambda _: (together.wait(), torch.get_num_threads())[1], range(4))) == [1, 1, 2, 2]
    finally:
        pool.shutdown()
        torch.set_num_threads(before)
