"""Encodes in this process with ONNX Runtime, from the repository entry that Triton serves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from estudio_core.errors import ModelError
from estudio_core.inference.batching import padded
from estudio_core.inference.embedder import Embedder, Vectors
from estudio_core.inference.entry_embedder import EntryEmbedder
from estudio_core.inference.golden import check_golden, cosines
from estudio_core.inference.manifest import (
    ATTENTION_MASK,
    BULK_FILE,
    INPUT_IDS,
    MODEL_FILE,
    SERVING_FILES,
    TOKENIZER_FILE,
    WEIGHT_LIMIT_KEY,
    EntryManifest,
    read_verified,
)
from estudio_core.inference.onnx_session import open_session

MAX_ROWS = 32
"""Texts of one computation. Larger batches are no faster on CPUs and need more memory."""

MAX_TOKENS = 4096
"""Tokens of one computation, padding counted: bounds memory at long texts."""

BULK_MIN_COSINE = 0.95
"""Lowest cosine of int8 item vectors with those in 32 bits, of the golden texts. Measured with all-MiniLM-L6-v2:
0.987, on a CPU with AVX2 only."""


class OnnxEmbedder(EntryEmbedder):
    """An `Embedder` that runs an entry's ONNX graph in this process; usable from several threads.

    Args:
        entry: Folder of the entry, `<repository>/<plugin>_v<version>`.
        manifest: Its manifest, where files were verified already; None: read and verify those that are used.
        threads: Threads of one computation; None: those of the settings, else one per physical core.
        graph: Path of the graph in the entry.

    Raises:
        RepositoryError: the entry is missing or damaged.
        ModelError: ONNX Runtime cannot run the graph.
    """

    def __init__(
        self,
        entry: Path,
        *,
        manifest: EntryManifest | None = None,
        threads: int | None = None,
        graph: str = MODEL_FILE,
    ) -> None:
        entry = Path(entry)
        manifest = manifest or read_verified(entry, SERVING_FILES)
        super().__init__(entry, manifest, max_rows=MAX_ROWS, max_tokens=MAX_TOKENS)
        self._session: Any = open_session(entry / graph, threads=threads)

    @property
    def full_range(self) -> bool:
        """Whether the graph has int8 weights whose products saturate on CPUs without VNNI: of an earlier version."""
        return (
            self.manifest.precision == "int8"
            and WEIGHT_LIMIT_KEY not in self._session.get_modelmeta().custom_metadata_map
        )

    def check(self) -> float:
        """Return the lowest cosine of the golden vectors computed here with the stored ones, if it is high enough.

        Raises:
            ModelError: this CPU does not give the stored vectors.
        """
        return check_golden(self, self.manifest, where="ONNX Runtime in this process", full_range=self.full_range)

    def close(self) -> None:
        """Free the session's memory."""
        self._session = None

    def _compute(self, token_ids: list[list[int]]) -> Vectors:
        if self._session is None:
            raise ModelError(f"The embedder of {self.name} is closed. Open a new one.")
        input_ids, attention_mask = padded(token_ids, length=len(token_ids[0]), pad_id=self.manifest.padding_id)
        try:
            vectors = self._session.run(None, {INPUT_IDS: input_ids, ATTENTION_MASK: attention_mask})[0]
        except Exception as error:  # ONNX Runtime raises classes of its own, all below Exception
            raise ModelError(f"{self.name} cannot compute {input_ids.shape} tokens: {error}") from error
        result: Vectors = np.asarray(vectors, dtype=np.float32)
        return result


class BulkEmbedder(OnnxEmbedder):
    """Encodes items with an entry's int8 graph; queries, which are few, go to the graph that is served.

    Args:
        entry: Folder of the entry, whose manifest has `bulk`.
        queries: What encodes queries; it is not closed with this one.
        manifest: Its manifest, where files were verified already; None: read and verify those that are used.

    Raises:
        RepositoryError: the entry is missing or damaged.
        ModelError: ONNX Runtime cannot run the graph.
    """

    def __init__(self, entry: Path, queries: Embedder, *, manifest: EntryManifest | None = None) -> None:
        manifest = manifest or read_verified(entry, (BULK_FILE, TOKENIZER_FILE))
        super().__init__(entry, manifest=manifest, graph=BULK_FILE)
        self._queries = queries

    def check(self) -> float:
        """Return the lowest cosine of item vectors with the golden ones in 32 bits, if it is high enough.

        Raises:
            ModelError: this CPU gives other vectors.
        """
        golden = self.manifest.golden
        lowest = float(cosines(self.embed_items(golden.texts), np.asarray(golden.item_vectors)).min(initial=1.0))
        if lowest < BULK_MIN_COSINE:
            raise ModelError(
                f"The int8 graph of {self.name} gives other vectors here than its graph in 32 bits: lowest cosine "
                f"{lowest:.4f}, at least {BULK_MIN_COSINE} is asked. Publish the model as a new version."
            )
        return lowest

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Return what `queries` gives."""
        return self._queries.embed_queries(texts)
