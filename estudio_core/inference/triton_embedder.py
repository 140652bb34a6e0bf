"""Encodes through a Triton server over gRPC: one channel, deadlines, retries, requests of bucketed length."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from estudio_core.errors import ModelError, ModelNotLoadedError
from estudio_core.inference.batching import bucket_length, padded
from estudio_core.inference.embedder import Vectors
from estudio_core.inference.entry_embedder import EntryEmbedder
from estudio_core.inference.manifest import (
    ATTENTION_MASK,
    EMBEDDING,
    INPUT_IDS,
    TOKENIZER_FILE,
    EntryManifest,
    read_verified,
)
from estudio_core.inference.triton_calls import ATTEMPTS, call, connect

MAX_TOKENS = 8192
"""Tokens of one request, padding counted: bounds its duration and the server's memory."""


class TritonEmbedder(EntryEmbedder):
    """An `Embedder` that asks a Triton server for a loaded entry; usable from several threads.

    Requests are padded to the entry's length buckets, because Triton joins requests of equal length only. Queries go
    before items in the server's queue.

    Args:
        url: `host:port` of the server's gRPC endpoint.
        entry: Folder of the entry: tokenizer and manifest of exactly the model that is asked.
        manifest: Its manifest, where files were verified already.
        timeout_s: Deadline of one attempt.
        attempts: How often a request is tried while the server is away or late.
        load: Has the server load the entry; called where it has not, as after a restart, and the request is repeated.

    Raises:
        RepositoryError: the entry is missing or damaged.
    """

    def __init__(
        self,
        url: str,
        entry: Path,
        *,
        manifest: EntryManifest | None = None,
        timeout_s: float = 10.0,
        attempts: int = ATTEMPTS,
        load: Callable[[], object] | None = None,
    ) -> None:
        entry = Path(entry)
        self.url = url
        manifest = manifest or read_verified(entry, [TOKENIZER_FILE])
        super().__init__(entry, manifest, max_rows=manifest.max_batch_size, max_tokens=MAX_TOKENS)
        self._timeout_s, self._attempts, self._load = timeout_s, attempts, load
        self._client: Any = connect(url)

    def close(self) -> None:
        """Close the channel."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _compute(self, token_ids: list[list[int]]) -> Vectors:
        from tritonclient import grpc

        client = self._client
        if client is None:
            raise ModelError(f"The Triton client of {self.name} is closed. Open a new one.")
        length = bucket_length(len(token_ids[0]), self.manifest.length_buckets)
        inputs = []
        for tensor, values in zip(
            (INPUT_IDS, ATTENTION_MASK), padded(token_ids, length=length, pad_id=self.manifest.padding_id), strict=True
        ):
            given = grpc.InferInput(tensor, list(values.shape), "INT64")
            given.set_data_from_numpy(values)
            inputs.append(given)

        def infer() -> Any:
            return call(
                lambda: client.infer(
                    self.name,
                    inputs,
                    outputs=[grpc.InferRequestedOutput(EMBEDDING)],
                    client_timeout=self._timeout_s,
                ),
                model=self.name,
                url=self.url,
                doing="infer",
                attempts=self._attempts,
            )

        try:
            answer = infer()
        except ModelNotLoadedError:
            if self._load is None:
                raise
            self._load()
            answer = infer()
        vectors = answer.as_numpy(EMBEDDING)
        expected = (len(token_ids), self.dimensions)
        if vectors is None or vectors.shape != expected or not np.isfinite(vectors).all():
            shape = None if vectors is None else vectors.shape
            raise ModelError(
                f"Triton at {self.url} answered for {self.name} with vectors of shape {shape}, expected finite numbers "
                f"of shape {expected}. Its backend is broken; check the server's log."
            )
        result: Vectors = np.asarray(vectors, dtype=np.float32)
        return result
