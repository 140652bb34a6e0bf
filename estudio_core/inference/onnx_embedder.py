"""Encodes in this process with ONNX Runtime, from the repository entry that Triton serves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from estudio_core.errors import ModelError
from estudio_core.inference.batching import embed_in_batches, padded, tokenise_texts
from estudio_core.inference.embedder import TokenisedTexts, Vectors
from estudio_core.inference.entry_tokenizer import EntryTokenizer
from estudio_core.inference.golden import check_golden
from estudio_core.inference.manifest import (
    ATTENTION_MASK,
    INPUT_IDS,
    MODEL_FILE,
    SERVING_FILES,
    WEIGHT_LIMIT_KEY,
    EntryManifest,
    read_verified,
)
from estudio_core.inference.onnx_session import open_session

MAX_ROWS = 32
"""Texts of one computation. Larger batches are no faster on CPUs and need more memory."""

MAX_TOKENS = 4096
"""Tokens of one computation, padding counted: bounds memory at long texts."""


class OnnxEmbedder:
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
        self.manifest = manifest or read_verified(entry, SERVING_FILES)
        self._tokenizer = EntryTokenizer(entry, self.manifest)
        self._session: Any = open_session(entry / graph, threads=threads)

    @property
    def name(self) -> str:
        """Name of the entry."""
        return self.manifest.name

    @property
    def dimensions(self) -> int:
        """Length of one vector."""
        return self.manifest.dimensions

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

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Return vectors of query texts, float32 [len(texts), dimensions].

        Raises:
            ModelError: the graph cannot compute.
        """
        return self.embed_tokenised(tokenise_texts(texts, self._tokenizer.queries))

    def embed_items(self, texts: Sequence[str]) -> Vectors:
        """Return vectors of item part texts, float32 [len(texts), dimensions].

        Raises:
            ModelError: the graph cannot compute.
        """
        return self.embed_tokenised(self.tokenise_items(texts))

    def tokenise_items(self, texts: Sequence[str]) -> TokenisedTexts:
        """Return item part texts as `embed_tokenised` takes them."""
        return tokenise_texts(texts, self._tokenizer.items)

    def embed_tokenised(self, texts: TokenisedTexts) -> Vectors:
        """Return vectors of tokenised texts, float32 [texts, dimensions].

        Raises:
            ModelError: the model cannot compute.
        """
        return embed_in_batches(
            texts,
            compute=self._compute,
            dimensions=self.dimensions,
            max_rows=MAX_ROWS,
            max_tokens=MAX_TOKENS,
        )

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
