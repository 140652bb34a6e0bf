from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest

from estudio_core.errors import DataError, ModelError, RepositoryError
from estudio_core.export.triton_repository import ExportOptions, publish_entry
from estudio_core.inference.embedder import Embedder
from estudio_core.inference.golden import check_golden
from estudio_core.inference.manifest import MODEL_FILE, EntryManifest
from estudio_core.inference.onnx_embedder import OnnxEmbedder

TEXTS = ["usb c charger", "a", "wireless headphones " * 40, "", "usb c charger", "4K TV 65 inch", "b"]


@pytest.fixture(scope="module")
def embedder(served) -> OnnxEmbedder:
    return OnnxEmbedder(served[1])


def test_vectors_are_those_of_the_trained_model_in_the_order_given(served, embedder):
    model, _ = served
    assert isinstance(embedder, Embedder)
    np.testing.assert_allclose(embedder.embed_queries(TEXTS), model.encode_queries(TEXTS).numpy(), atol=1e-5)
    np.testing.assert_allclose(embedder.embed_items(TEXTS), model.encode_items(TEXTS).numpy(), atol=1e-5)
    assert embedder.embed_items(TEXTS).dtype == np.float32


def test_a_text_has_the_same_vector_in_every_company(embedder):
    together = embedder.embed_items([f"product number {i} " * (i % 30) for i in range(100)])
    alone = embedder.embed_items(["product number 7 " * 7])
    np.testing.assert_allclose(together[7], alone[0], atol=1e-5)


def test_nothing_in_gives_nothing_out(embedder):
    assert embedder.embed_queries([]).shape == (0, 32)
    assert embedder.embed_items(()).dtype == np.float32


@pytest.mark.parametrize("texts", ["one text", [b"bytes"], ["good", None], [1]])
def test_what_is_no_list_of_texts_is_refused(texts, embedder):
    with pytest.raises(DataError, match=r"list of texts|Only texts can be embedded"):
        embedder.embed_items(texts)


def test_threads_share_one_embedder(embedder):
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(embedder.embed_queries, [[text] for text in TEXTS] * 4))
    np.testing.assert_allclose(np.concatenate(results[: len(TEXTS)]), embedder.embed_queries(TEXTS), atol=1e-5)


def test_the_golden_texts_are_answered_as_stored(embedder):
    assert check_golden(embedder, embedder.manifest, where="here") > 0.9999


def test_a_wrong_model_under_the_right_name_fails_the_golden_check(served, embedder):
    other = OnnxEmbedder(served[1].parent / "shop_v2")
    with pytest.raises(ModelError, match=r"here gives other vectors for shop_v1 .* lowest cosine -?0\.\d+"):
        check_golden(other, embedder.manifest, where="here")


def test_int8_of_an_earlier_version_has_to_come_closer_to_its_golden_vectors(small_model, tmp_path):
    published = publish_entry(tmp_path, "shop_v1", small_model(seed=1), options=ExportOptions(precision="int8"))
    manifest = moved(published, cosine=0.98)
    assert OnnxEmbedder(tmp_path / "shop_v1", manifest=manifest).check() == pytest.approx(0.98, abs=0.005)
    graph = onnx.load(str(tmp_path / "shop_v1" / MODEL_FILE))
    graph.ClearField("metadata_props")  # earlier versions did not say what range their weights have
    onnx.save_model(graph, str(tmp_path / "shop_v1" / MODEL_FILE))
    with pytest.raises(ModelError, match=r"process gives other vectors for shop_v1 .*8 bits of full range.*release of"):
        OnnxEmbedder(tmp_path / "shop_v1", manifest=manifest).check()


def moved(manifest: EntryManifest, cosine: float) -> EntryManifest:
    """Return the manifest with golden vectors that have this cosine to the stored ones."""
    stored = np.array(manifest.golden.query_vectors)
    aside = np.roll(stored, 1, axis=1)
    aside -= (aside * stored).sum(axis=1, keepdims=True) * stored
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    vectors = (cosine * stored + np.sqrt(1 - cosine**2) * aside).tolist()
    return manifest.model_copy(update={"golden": manifest.golden.model_copy(update={"query_vectors": vectors})})


def test_a_damaged_graph_is_refused_before_it_is_loaded(served, tmp_path):
    shutil.copytree(served[1], tmp_path / "shop_v1")
    graph = tmp_path / "shop_v1" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-100])
    with pytest.raises(RepositoryError, match=r"model\.onnx is corrupt"):
        OnnxEmbedder(tmp_path / "shop_v1")
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot load .*model\.onnx"):
        OnnxEmbedder(tmp_path / "shop_v1", manifest=OnnxEmbedder(served[1]).manifest)


def test_a_closed_embedder_says_so(served):
    embedder = OnnxEmbedder(served[1])
    embedder.close()
    with pytest.raises(ModelError, match="closed"):
        embedder.embed_queries(["x"])


def test_encoding_a_query_imports_nothing_heavy(served):
    code = (
        "import sys; from estudio_core.inference.onnx_embedder import OnnxEmbedder;"
        f"assert OnnxEmbedder({str(served[1])!r}).embed_queries(['x']).shape == (1, 32);"
        "print(sorted({'torch', 'transformers', 'onnx', 'mlflow', 'tritonclient', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
