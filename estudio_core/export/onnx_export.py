"""A trained embedding model as one ONNX graph: tokens in, normalised vectors out.

The TorchScript exporter is used. Measured on two cores with a 6-layer model (batch 32, 64 tokens, ONNX Runtime 1.32):
its graph computes 128-134 texts/s, the one of the `torch.export` exporter 109; it exports in 1-2 s against 6-16 s,
and needs no `onnxscript`. Attention is exported in its eager form: ONNX Runtime fuses that one (6 attention nodes
of 6), and none of the form that `scaled_dot_product_attention` leaves.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from estudio_core.errors import ExportError
from estudio_core.inference.manifest import ATTENTION_MASK, EMBEDDING, INPUT_IDS, WEIGHT_LIMIT_KEY, Precision

if TYPE_CHECKING:
    from onnx import ModelProto

    from estudio_core.models.embedding_model import EmbeddingModel

OPSET = 17
"""ONNX operator set: the newest in which the TorchScript exporter writes every operator of these models itself."""

SINGLE_FILE_BYTES = 2**31 - 2**20
"""Protobuf ends at 2 GiB. Larger weights go into one `<name>.data` file beside the graph."""

WEIGHT_LIMIT = 64
"""Largest int8 weight, of either sign, of which two products with unsigned 8 bits fit in 16: 2 · 255 · 64 = 32640."""


def export_onnx(
    model: EmbeddingModel, path: Path, *, opset: int = OPSET, single_file_bytes: int = SINGLE_FILE_BYTES
) -> None:
    """Write `model` to `path`, pooling and normalisation included. The model itself is left as it is.

    Inputs are `input_ids` and `attention_mask`, int64 [batch, sequence]; the output is `embedding`,
    float32 [batch, dimensions]. Batch and sequence are symbolic, which is verified on the written graph.

    Args:
        model: What to export; in any mode, on any device.
        path: File to write, `….onnx`.
        opset: ONNX operator set.
        single_file_bytes: Weights above this size are written to `<path>.data`.

    Raises:
        ExportError: the model cannot be traced, or the graph is not as described.
    """
    import onnx
    import torch
    from transformers import PreTrainedModel

    reference = reference_copy(model)
    for module in reference.modules():
        if isinstance(module, PreTrainedModel):
            module.set_attn_implementation("eager")
    weights = sum(tensor.numel() * tensor.element_size() for tensor in reference.state_dict().values())
    # Two lengths and real padding: a mask of ones would be optimised away and padding would change vectors.
    input_ids = torch.arange(21).reshape(3, 7) % vocabulary_size(model)
    attention_mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] + [0] * 6])
    axes = {0: "batch", 1: "sequence"}
    with TemporaryDirectory(dir=path.parent, prefix=".onnx-") as folder:
        traced = Path(folder) / path.name
        try:
            with torch.no_grad(), _quiet():
                torch.onnx.export(
                    reference,
                    (input_ids, attention_mask),
                    str(traced),
                    input_names=[INPUT_IDS, ATTENTION_MASK],
                    output_names=[EMBEDDING],
                    dynamic_axes={INPUT_IDS: axes, ATTENTION_MASK: axes, EMBEDDING: {0: "batch"}},
                    opset_version=opset,
                    dynamo=False,
                )
        except OSError:
            raise
        except Exception as error:
            raise ExportError(
                f"{type(model).__name__} cannot be traced to ONNX opset {opset}: {error}. Its forward(input_ids, "
                "attention_mask) must consist of tensor operations only."
            ) from error
        graph = onnx.load(str(traced))
        # The exporter may lose the width in the division by the norm. Parity checks the real one.
        graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value = model.dimensions
        if weights <= single_file_bytes:
            onnx.save_model(graph, str(path))
        else:
            onnx.save_model(
                graph,
                str(path),
                save_as_external_data=True,
                all_tensors_to_one_file=True,
                location=f"{path.name}.data",
            )
    verify_graph(path, dimensions=model.dimensions, opset=opset)


def quantise_onnx(source: Path, target: Path) -> None:
    """Write `source` with int8 weights (per output channel) and activations quantised at run time.

    Weights use 7 of the 8 bits, -64 to 64, so that integer products and sums are exact on every CPU. AVX2 without VNNI
    adds two products of an unsigned activation and a signed weight in 16 bits, which saturate at 32767; 2 · 255 · 64
    is less, 2 · 255 · 127 is not. Measured with all-MiniLM-L6-v2, ONNX Runtime 1.32 and one thread on a Xeon with
    AVX-512 VNNI, and on the same one with everything beyond AVX2 hidden:

    - Vectors of 500 texts agree between the two with a mean cosine of 0.9996, the lowest 0.995; in full range with
      0.990 and 0.974. What remains comes from floats between the products: one that is rounded otherwise moves an
      activation to the next step.
    - A quarter of the size, and 334 against 160 texts/s of fp32; with AVX2 only 157 against 100. The full range is as
      fast. Unsigned weights, exact with all 8 bits, reached 157 and 126.
    - The mean cosine to fp32 is 0.9906 on both; in full range 0.9920, and 0.9911 with AVX2 only.

    Activations are scaled by their range in the whole batch, so that a text's vector depends on what it is batched
    with: mean cosine 0.990. Whether the loss of quality is acceptable is for an evaluation on held-out queries to
    decide.

    Raises:
        ExportError: ONNX Runtime cannot quantise the graph, or not in that range.
    """
    import logging

    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises a pre-processing that only matters for convolutions
    try:
        quantize_dynamic(source, target, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)
    except OSError:
        raise
    except Exception as error:
        raise ExportError(f"{source} cannot be quantised to int8: {error}. Export it as fp32.") from error
    finally:
        root.setLevel(level)
    quantised = onnx.load(str(target))
    verify_weights(quantised)
    quantised.metadata_props.add(key=WEIGHT_LIMIT_KEY, value=str(WEIGHT_LIMIT))
    onnx.save_model(quantised, str(target))


def verify_weights(quantised: ModelProto) -> None:
    """Check that no integer product of the graph can saturate: signed weights are within `WEIGHT_LIMIT`.

    What is only looked up or turned back into floats may be anything, and so may unsigned weights, which are multiplied
    in 16 bits everywhere.

    Raises:
        ExportError: a weight is larger; the message names it.
    """
    import numpy as np
    import onnx

    signed = {
        tensor.name: tensor for tensor in quantised.graph.initializer if tensor.data_type == onnx.TensorProto.INT8
    }
    for node in quantised.graph.node:
        if node.op_type in {"DequantizeLinear", "Gather"}:
            continue
        for name in signed.keys() & set(node.input):
            largest = np.abs(onnx.numpy_helper.to_array(signed[name]).astype(np.int16)).max(initial=0)
            if largest > WEIGHT_LIMIT:
                raise ExportError(
                    f"{node.op_type} {node.name} has an int8 weight {name} of up to {largest}; more than "
                    f"{WEIGHT_LIMIT} saturates on CPUs without VNNI. Export the model as fp32."
                )


def halve_onnx(source: Path, target: Path) -> None:
    """Write `source` with fp16 weights and arithmetic; inputs and output keep their types. Meant for GPUs.

    Raises:
        ExportError: the graph cannot be converted.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    try:
        with _quiet():
            half = convert_float_to_float16(onnx.load(str(source)), keep_io_types=True)
        onnx.save_model(half, str(target))
    except OSError:
        raise
    except Exception as error:
        raise ExportError(f"{source} cannot be converted to fp16: {error}. Export it as fp32.") from error


def verify_graph(path: Path, *, dimensions: int, opset: int = OPSET) -> None:
    """Check names, types and symbolic dimensions of an exported graph.

    Raises:
        ExportError: something differs; the message says what.
    """
    import onnx

    graph = onnx.load(str(path), load_external_data=False)
    int64, float32 = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
    expected = {
        INPUT_IDS: (int64, ["batch", "sequence"]),
        ATTENTION_MASK: (int64, ["batch", "sequence"]),
        EMBEDDING: (float32, ["batch", dimensions]),
    }
    found = {
        value.name: (
            value.type.tensor_type.elem_type,
            [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim],
        )
        for value in [*graph.graph.input, *graph.graph.output]
    }
    if found != expected:
        raise ExportError(f"The ONNX graph {path} has inputs and output {found}, expected {expected}.")
    written = {entry.domain: entry.version for entry in graph.opset_import}.get("")
    if written != opset:
        raise ExportError(f"The ONNX graph {path} uses operator set {written}, expected {opset}.")


def reference_copy(model: EmbeddingModel) -> EmbeddingModel:
    """Return a float32 copy on the CPU, in evaluation mode: what the exported graph has to agree with."""
    return copy.deepcopy(model).to(device="cpu").float().eval()


def vocabulary_size(model: EmbeddingModel) -> int:
    """Return how many token ids the model knows."""
    return len(model.tokenizer)


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop the exporter's warnings: parity at many shapes is checked instead."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def convert(source: Path, target: Path, precision: Precision) -> None:
    """Write the fp32 graph `source` as `target` in another precision; `source` stays."""
    converters: dict[str, Any] = {"int8": quantise_onnx, "fp16": halve_onnx}
    converters[precision](source, target)
