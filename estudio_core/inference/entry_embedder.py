"""What all embedders of a repository entry do alike: texts to token ids, and token ids to vectors batch by batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from estudio_core.inference.batching import MapBatches, embed_in_batches, tokenise_texts
from estudio_core.inference.embedder import TokenisedTexts, Vectors
from estudio_core.inference.entry_tokenizer import EntryTokenizer
from estudio_core.inference.manifest import EntryManifest


class EntryEmbedder(ABC):
    """An `Embedder` over the tokenizer of an entry; subclasses compute batches.

    Args:
        entry: Folder of the entry.
        manifest: Its manifest.
        max_rows: Texts of one computation.
        max_tokens: Tokens of one computation, padding counted: bounds memory at long texts.
        map_batches: How batches are gone through: `map`, or that of a pool of threads.

    Raises:
        RepositoryError: the tokenizer file is missing or unreadable.
    """

    def __init__(
        self,
        entry: Path,
        manifest: EntryManifest,
        *,
        max_rows: int,
        max_tokens: int,
        map_batches: MapBatches = map,
    ) -> None:
        self.manifest = manifest
        self._tokenizer = EntryTokenizer(entry, manifest)
        self._max_rows, self._max_tokens, self._map_batches = max_rows, max_tokens, map_batches

    @property
    def name(self) -> str:
        """Name of the entry."""
        return self.manifest.name

    @property
    def dimensions(self) -> int:
        """Length of one vector."""
        return self.manifest.dimensions

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Return vectors of query texts, float32 [len(texts), dimensions]. Raises: as `embed_tokenised`."""
        return self.embed_tokenised(tokenise_texts(texts, self._tokenizer.queries))

    def embed_items(self, texts: Sequence[str]) -> Vectors:
        """Return vectors of item part texts, float32 [len(texts), dimensions]. Raises: as `embed_tokenised`."""
        return self.embed_tokenised(self.tokenise_items(texts))

    def tokenise_items(self, texts: Sequence[str]) -> TokenisedTexts:
        """Return item part texts as `embed_tokenised` takes them."""
        return tokenise_texts(texts, self._tokenizer.items)

    def embed_tokenised(self, texts: TokenisedTexts) -> Vectors:
        """Return vectors of tokenised texts, float32 [texts, dimensions].

        Raises:
            InferenceUnavailableError: a server does not answer in time, or has not loaded the model.
            ModelError: the model cannot compute, for example for want of memory.
        """
        return embed_in_batches(
            texts,
            compute=self._compute,
            dimensions=self.dimensions,
            max_rows=self._max_rows,
            max_tokens=self._max_tokens,
            map_batches=self._map_batches,
        )

    @abstractmethod
    def close(self) -> None:
        """Free memory, threads and channels; it cannot be used afterwards."""

    @abstractmethod
    def _compute(self, token_ids: list[list[int]]) -> Vectors:
        """Return the vectors of one batch, float32 [texts, dimensions]; the longest text comes first."""
