"""Integer matrix products as numbers are, and as AVX2 without VNNI computes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

INNER, OUTER = 384, 33


def products(activations: NDArray[np.uint8], weights: NDArray[np.int8]) -> NDArray[np.int64]:
    """Return the exact product of [rows, inner] and [inner, columns]."""
    return activations.astype(np.int64) @ weights.astype(np.int64)


def saturating_products(activations: NDArray[np.uint8], weights: NDArray[np.int8]) -> NDArray[np.int64]:
    """Return what `vpmaddubsw` makes of it: products of two neighbours are added in 16 bits, which saturate.

    >>> saturating_products(np.array([[255, 255]], np.uint8), np.array([[127], [127]], np.int8)).tolist()
    [[32767]]
    >>> saturating_products(np.array([[255, 255]], np.uint8), np.array([[64], [64]], np.int8)).tolist()
    [[32640]]
    """
    left, right = activations.astype(np.int32), weights.astype(np.int32)
    single = left[:, :, None] * right[None, :, :]
    pairs = single[:, ::2] + single[:, 1::2]
    return np.clip(pairs, -32768, 32767).sum(axis=1, dtype=np.int64)


def extremes(rows: int) -> NDArray[np.float32]:
    """Return activations [rows, INNER] that quantise to 0 and 255, most of them to 255."""
    return np.random.default_rng(0).choice(np.array([0.0, 1.0, 1.0, 1.0], np.float32), (rows, INNER))


def write_product(path: Path) -> Path:
    """Write a graph of one matrix product whose weights are at both ends of their range, neighbours at the same."""
    ends = np.random.default_rng(1).choice(np.array([-1.0, 1.0], np.float32), (INNER // 2, OUTER))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "one_product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", INNER])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", OUTER])],
        [numpy_helper.from_array(np.repeat(ends, 2, axis=0), "w")],
    )
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def weights_of(path: Path) -> NDArray[np.int8]:
    """Return the weights of a quantised `write_product`."""
    (found,) = [tensor for tensor in onnx.load(str(path)).graph.initializer if tensor.name == "w_quantized"]
    weights: NDArray[np.int8] = numpy_helper.to_array(found)
    return weights


def quantise_in_full_range(source: Path, target: Path) -> None:
    """Write `source` in 8 bits as earlier versions did."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)
