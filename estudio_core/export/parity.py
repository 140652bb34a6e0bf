"""Does the exported graph compute what the trained model computes? Compared in numbers, at many shapes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from estudio_core.errors import ExportError
from estudio_core.export.onnx_export import reference_copy, vocabulary_size
from estudio_core.inference.golden import cosines
from estudio_core.inference.manifest import ATTENTION_MASK, INPUT_IDS, Parity, Precision

if TYPE_CHECKING:
    from estudio_core.models.embedding_model import EmbeddingModel


class Tolerance(BaseModel):
    """How far a graph's vectors may be from the reference."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_abs_difference: float
    min_cosine: float


TOLERANCES: dict[Precision, Tolerance] = {
    # Measured on a 6-layer model: 6e-7 and 0.9999994.
    "fp32": Tolerance(max_abs_difference=1e-4, min_cosine=0.9999),
    "fp16": Tolerance(max_abs_difference=2e-2, min_cosine=0.999),
    # Random token ids are harder than text: 0.962 against 0.983. Ranking quality is judged on held-out queries.
    "int8": Tolerance(max_abs_difference=0.2, min_cosine=0.95),
}


def parity_shapes(max_length: int) -> list[tuple[int, int]]:
    """Return the shapes to compare at: single text, single token, odd sizes, the longest text.

    >>> parity_shapes(256)
    [(1, 1), (1, 2), (2, 3), (5, 16), (17, 33), (2, 255), (1, 256), (3, 256)]
    >>> parity_shapes(2)
    [(1, 1), (1, 2), (2, 1), (3, 2)]
    """
    candidates = [(1, 1), (1, 2), (2, 3), (5, 16), (17, 33), (2, max_length - 1), (1, max_length), (3, max_length)]
    return list(dict.fromkeys((batch, length) for batch, length in candidates if 1 <= length <= max_length))


def measure_parity(model: EmbeddingModel, path: Path, shapes: Sequence[tuple[int, int]] | None = None) -> Parity:
    """Run the graph at `path` and `model` on the same seeded token ids and return how much they differ.

    In batches of more than one text, rows are padded more and more, down to one token at least.
    """
    import torch

    from estudio_core.inference.onnx_session import open_session

    shapes = list(shapes or parity_shapes(model.max_length))
    reference = reference_copy(model)
    session = open_session(path)
    generator = np.random.default_rng(0)
    largest, lowest = 0.0, 1.0
    for batch, length in shapes:
        input_ids = generator.integers(0, vocabulary_size(model), size=(batch, length), dtype=np.int64)
        kept = [max(1, length - row * length // batch) for row in range(batch)]
        attention_mask = (np.arange(length)[None, :] < np.asarray(kept)[:, None]).astype(np.int64)
        with torch.no_grad():
            wanted = reference(torch.from_numpy(input_ids), torch.from_numpy(attention_mask)).numpy()
        found = session.run(None, {INPUT_IDS: input_ids, ATTENTION_MASK: attention_mask})[0]
        if found.shape != wanted.shape or not np.isfinite(found).all():
            raise ExportError(
                f"The graph {path} returns shape {found.shape} for token ids of shape {(batch, length)}, expected "
                f"finite numbers of shape {wanted.shape}."
            )
        largest = max(largest, float(np.abs(found - wanted).max()))
        lowest = min(lowest, float(cosines(found, wanted).min()))
    return Parity(max_abs_difference=largest, min_cosine=lowest, shapes=shapes)


def check_parity(model: EmbeddingModel, path: Path, precision: Precision = "fp32") -> Parity:
    """Return `measure_parity`, if it is within the tolerance of `precision`.

    Raises:
        ExportError: the graph differs by more than the tolerance; both numbers are in the message.
    """
    parity, allowed = measure_parity(model, path), TOLERANCES[precision]
    if parity.min_cosine < allowed.min_cosine or parity.max_abs_difference > allowed.max_abs_difference:
        raise ExportError(
            f"The {precision} graph {path} differs from the trained model: lowest cosine {parity.min_cosine:.6f} "
            f"(at least {allowed.min_cosine} is asked), largest difference {parity.max_abs_difference:.2e} (at most "
            f"{allowed.max_abs_difference:.0e}). Nothing was published."
            + ("" if precision == "fp32" else " Export with precision fp32.")
        )
    return parity
