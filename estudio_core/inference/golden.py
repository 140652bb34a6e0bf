"""The health check of everything that serves an entry: it must give the vectors that were stored at publication."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from estudio_core.errors import ModelError
from estudio_core.inference.embedder import Embedder
from estudio_core.inference.manifest import EntryManifest

FULL_RANGE_MIN_COSINE = 0.99
"""What a graph of full range has to reach in the batches of its publication. Measured with all-MiniLM-L6-v2: 1 on the
same CPU, 0.984 between one with VNNI and one without; sums of floats that are rounded otherwise cost at most 0.005."""


def golden_agreement(embedder: Embedder, manifest: EntryManifest) -> float:
    """Return the lowest cosine of the embedder's vectors of the golden texts with the stored ones."""
    golden = manifest.golden
    pairs = [(embedder.embed_queries(golden.texts), golden.query_vectors)]
    if manifest.query_prefix != manifest.item_prefix:
        pairs.append((embedder.embed_items(golden.texts), golden.item_vectors))
    lowest = [cosines(found, np.asarray(stored, dtype=np.float32)) for found, stored in pairs]
    return float(np.nan_to_num(np.concatenate(lowest), nan=-1.0).min(initial=1.0))


def check_golden(embedder: Embedder, manifest: EntryManifest, where: str, *, full_range: bool = False) -> float:
    """Return `golden_agreement`, if it is as high as the manifest asks.

    Args:
        embedder: What serves the entry.
        manifest: Manifest of the entry.
        where: Who computes, for the message.
        full_range: The graph has int8 weights of an earlier version, and is computed in the batches of its publication.

    Raises:
        ModelError: the vectors differ from the stored ones.
    """
    lowest = golden_agreement(embedder, manifest)
    asked = max(manifest.golden.min_cosine, FULL_RANGE_MIN_COSINE if full_range else 0.0)
    if lowest < asked:
        reason = (
            "An earlier version published it in 8 bits of full range, which CPUs with and without VNNI compute "
            "differently: run the release of this version again on this host, which publishes it anew for every CPU."
            if full_range
            else "It serves another model or computes wrong: load the entry again, or publish the model as a new "
            "version."
        )
        raise ModelError(
            f"{where} gives other vectors for {manifest.name} than were stored when it was published: lowest cosine "
            f"{lowest:.4f}, at least {asked} is asked. {reason}"
        )
    return lowest


def cosines(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float64]:
    """Return the cosine of each row of `left` with the same row of `right`, both [n, dim]; 0 for zero rows.

    >>> cosines(np.array([[3.0, 4.0], [1.0, 0.0]]), np.array([[6.0, 8.0], [0.0, 2.0]])).tolist()
    [1.0, 0.0]
    """
    left, right = left.astype(np.float64), right.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    products: NDArray[np.float64] = (left * right).sum(axis=1)
    quotients: NDArray[np.float64] = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return quotients
