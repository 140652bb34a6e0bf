"""`config.pbtxt`: how Triton runs an entry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from estudio_core.inference.manifest import ATTENTION_MASK, EMBEDDING, INPUT_IDS


def length_buckets(max_length: int) -> list[int]:
    """Return the lengths to which requests are padded: powers of two from 16, and the longest input.

    >>> length_buckets(256)
    [16, 32, 64, 128, 256]
    >>> length_buckets(100)
    [16, 32, 64, 100]
    """
    powers = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
    return [power for power in powers if power < max_length] + [max_length]


def triton_config(
    name: str,
    *,
    dimensions: int,
    buckets: Sequence[int],
    max_batch_size: int,
    instances: Literal["cpu", "gpu"] = "cpu",
    threads: int | None = None,
) -> str:
    """Return the text of `config.pbtxt`.

    Only requests of equal length are joined into a batch, hence the buckets. One instance: with two, Triton's default
    on CPUs, they fight for the same cores. The model is ready only after a warm-up at every bucket.

    Queries have no priority over items: with levels of priority Triton's batcher prepares no batch ahead, and a request
    that comes before the last one's slot is free again waits for its next look, half a second later. On two CPU cores,
    one client that asked again at once waited so in 1 to 24 % of its requests, and in none without levels.

    Args:
        name: Name of the model, which is the entry's.
        dimensions: Length of one vector.
        buckets: Lengths of the inputs.
        max_batch_size: Most texts in one computation.
        instances: Kind of the one instance.
        threads: Threads of one computation on the CPU; None: as many as ONNX Runtime finds cores.
    """
    warm_up = "\n".join(
        _warm_up(length, batch) for length in buckets for batch in _warm_up_batches(length, max_batch_size)
    )
    thread_parameter = (
        f'parameters {{ key: "intra_op_thread_count" value {{ string_value: "{threads}" }} }}\n' if threads else ""
    )
    return f"""name: "{name}"
backend: "onnxruntime"
default_model_filename: "model.onnx"
max_batch_size: {max_batch_size}
input [
  {{ name: "{INPUT_IDS}" data_type: TYPE_INT64 dims: [ -1 ] }},
  {{ name: "{ATTENTION_MASK}" data_type: TYPE_INT64 dims: [ -1 ] }}
]
output [
  {{ name: "{EMBEDDING}" data_type: TYPE_FP32 dims: [ {dimensions} ] }}
]
version_policy {{ specific {{ versions: [ 1 ] }} }}
instance_group [ {{ count: 1 kind: KIND_{instances.upper()} }} ]
dynamic_batching {{ }}
{thread_parameter}{warm_up}
"""


def _warm_up_batches(length: int, max_batch_size: int) -> list[int]:
    """Return the batch sizes to warm up at: one text always, a full batch where that is quick."""
    return [1, max_batch_size] if length <= 32 and max_batch_size > 1 else [1]


def _warm_up(length: int, batch: int) -> str:
    tensors = " ".join(
        f'inputs {{ key: "{tensor}" value {{ data_type: TYPE_INT64 dims: [ {length} ] zero_data: true }} }}'
        for tensor in (INPUT_IDS, ATTENTION_MASK)
    )
    return f'model_warmup [ {{ name: "length {length}, batch {batch}" batch_size: {batch} {tensors} }} ]'
