"""Integer products of published graphs are the same on every CPU, also where two of them are added in 16 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import quantize_dynamic

from estudio_core.errors import ExportError
from estudio_core.export.onnx_export import WEIGHT_LIMIT, export_onnx, quantise_onnx, verify_weights
from estudio_core.inference.onnx_session import open_session
from tests.export.saturation import (
    extremes,
    products,
    quantise_in_full_range,
    saturating_products,
    weights_of,
    write_product,
)


@pytest.fixture
def one_product(tmp_path: Path) -> Path:
    """A graph of one matrix product whose weights are at both ends of their range, neighbours at the same."""
    return write_product(tmp_path / "product.onnx")


def test_extreme_weights_and_activations_give_exact_sums(one_product, tmp_path):
    quantise_onnx(one_product, tmp_path / "int8.onnx")
    weights, activations = weights_of(tmp_path / "int8.onnx"), (255 * extremes(40)).astype(np.uint8)
    assert sorted(np.unique(weights)) == [-WEIGHT_LIMIT, WEIGHT_LIMIT]
    wanted = products(activations, weights)
    np.testing.assert_array_equal(saturating_products(activations, weights), wanted)
    found = open_session(tmp_path / "int8.onnx").run(None, {"x": extremes(40)})[0]
    np.testing.assert_allclose(found, wanted / 255 / WEIGHT_LIMIT, rtol=1e-5, atol=1e-4)


def test_weights_of_full_range_saturate(one_product, tmp_path):
    full = tmp_path / "full.onnx"
    quantise_in_full_range(one_product, full)
    weights = weights_of(full)
    activations = (255 * extremes(40)).astype(np.uint8)
    exact = products(activations, weights)
    assert np.abs(saturating_products(activations, weights) - exact).max() > 0.1 * np.abs(exact).max()


def test_weights_of_full_range_are_refused(one_product, tmp_path):
    full = tmp_path / "full.onnx"
    quantise_in_full_range(one_product, full)
    quantised = onnx.load(str(full))
    with pytest.raises(ExportError, match=r"MatMulInteger product_quant has an int8 weight w_quantized of up to 127"):
        verify_weights(quantised)


def test_a_quantiser_that_uses_the_full_range_is_an_export_error(one_product, tmp_path, monkeypatch):
    import onnxruntime.quantization as quantization

    def as_before(*args, reduce_range, **settings):
        return quantize_dynamic(*args, **settings)

    monkeypatch.setattr(quantization, "quantize_dynamic", as_before)
    with pytest.raises(ExportError, match="more than 64 saturates"):
        quantise_onnx(one_product, tmp_path / "int8.onnx")


def test_what_a_session_makes_of_the_graph_keeps_the_range(small_model, tmp_path):
    export_onnx(small_model(seed=1), tmp_path / "fp32.onnx")
    quantise_onnx(tmp_path / "fp32.onnx", tmp_path / "int8.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "run.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(tmp_path / "int8.onnx"), options, providers=["CPUExecutionProvider"])
    run = onnx.load(str(tmp_path / "run.onnx"))
    fused = {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"}
    assert len([node for node in run.graph.node if node.op_type in fused]) == 12, "six products in each of two layers"
    verify_weights(run)
