from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from estudio_core.errors import ExportError
from estudio_core.export.onnx_export import OPSET, export_onnx, halve_onnx, quantise_onnx, verify_graph
from estudio_core.export.parity import check_parity, measure_parity, parity_shapes
from estudio_core.inference.onnx_session import open_session


@pytest.fixture(scope="module")
def exported(small_model, tmp_path_factory):
    model = small_model(seed=1)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(model, path)
    return model, path


def test_the_graph_agrees_with_torch_at_every_shape(exported):
    parity = check_parity(*exported)
    assert parity.shapes == parity_shapes(48)
    assert parity.max_abs_difference < 1e-5
    assert parity.min_cosine > 0.99999


def test_batch_and_sequence_are_symbolic_and_the_operator_set_is_pinned(exported):
    _, path = exported
    graph = onnx.load(str(path))
    assert [d.dim_param for d in graph.graph.input[0].type.tensor_type.shape.dim] == ["batch", "sequence"]
    assert [d.dim_param or d.dim_value for d in graph.graph.output[0].type.tensor_type.shape.dim] == ["batch", 32]
    assert [entry.version for entry in graph.opset_import if not entry.domain] == [OPSET]
    assert not [p for p in path.parent.iterdir() if p != path], "one file, nothing beside it"


def test_padding_never_changes_a_vector(exported):
    _, path = exported
    session = open_session(path)
    ids = np.array([[101, 7592, 2088, 102]], dtype=np.int64)
    alone = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
    wide = np.concatenate([ids, np.full((1, 30), 4321, dtype=np.int64)], axis=1)
    mask = (np.arange(34)[None, :] < 4).astype(np.int64)
    padded = session.run(None, {"input_ids": wide, "attention_mask": mask})[0]
    np.testing.assert_allclose(padded, alone, atol=1e-6)
    unmasked = session.run(None, {"input_ids": wide, "attention_mask": np.ones_like(wide)})[0]
    assert np.abs(unmasked - alone).max() > 1e-3, "the mask must matter, or this test could not fail"


def test_vectors_leave_the_graph_normalised(exported):
    _, path = exported
    ids = np.array([[101, 2000, 102], [101, 3000, 102]], dtype=np.int64)
    vectors = open_session(path).run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_exporting_leaves_the_model_in_training_mode_with_its_frozen_layers(small_model, tmp_path):
    model = small_model(seed=2)
    model.freeze_layers(1)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attention = model.backbone.config._attn_implementation
    export_onnx(model, tmp_path / "model.onnx")
    assert model.training
    assert model.backbone.config._attn_implementation == attention
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert check_parity(model, tmp_path / "model.onnx").min_cosine > 0.9999


def test_weights_beyond_one_file_go_into_one_data_file_beside_it(small_model, tmp_path):
    model = small_model(seed=3)
    export_onnx(model, tmp_path / "model.onnx", single_file_bytes=1000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert check_parity(model, tmp_path / "model.onnx").min_cosine > 0.9999


def test_a_graph_of_other_weights_is_refused_with_the_numbers(small_model, exported):
    _, path = exported
    with pytest.raises(ExportError, match=r"lowest cosine -?0\.\d+ .*largest difference \d"):
        check_parity(small_model(seed=99), path)


def test_a_graph_with_a_fixed_length_is_refused(exported, tmp_path):
    _, path = exported
    graph = onnx.load(str(path))
    graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 7
    onnx.save_model(graph, str(tmp_path / "fixed.onnx"))
    with pytest.raises(ExportError, match="expected"):
        verify_graph(tmp_path / "fixed.onnx", dimensions=32)
    with pytest.raises(ExportError, match="operator set"):
        verify_graph(path, dimensions=32, opset=OPSET + 1)
    with pytest.raises(ExportError, match="768"):
        verify_graph(path, dimensions=768)


def test_a_model_that_cannot_be_traced_is_an_export_error(small_model, tmp_path):
    class Untraceable(nn.Module):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvals(input_ids.float() @ input_ids.float().T)

    model = small_model()
    model.backbone = Untraceable()
    with pytest.raises(ExportError, match=r"EmbeddingModel cannot be traced"):
        export_onnx(model, tmp_path / "model.onnx")


def test_int8_is_a_quarter_of_the_size_and_close(exported, tmp_path):
    model, path = exported
    quantise_onnx(path, tmp_path / "int8.onnx")
    assert (tmp_path / "int8.onnx").stat().st_size < 0.35 * path.stat().st_size
    parity = measure_parity(model, tmp_path / "int8.onnx")
    assert 0.95 < parity.min_cosine < 0.99999, "close, and yet not the same arithmetic"


def test_fp16_halves_the_file_and_keeps_float32_output(exported, tmp_path):
    model, path = exported
    halve_onnx(path, tmp_path / "fp16.onnx")
    assert (tmp_path / "fp16.onnx").stat().st_size < 0.55 * path.stat().st_size
    assert check_parity(model, tmp_path / "fp16.onnx", "fp16").min_cosine > 0.999
    verify_graph(tmp_path / "fp16.onnx", dimensions=32)


@pytest.mark.parametrize("convert", [quantise_onnx, halve_onnx])
def test_what_is_no_graph_cannot_be_converted(convert, tmp_path: Path):
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"broken\.onnx cannot be"):
        convert(tmp_path / "broken.onnx", tmp_path / "out.onnx")
