"""The one interface through which text becomes vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class TokenisedTexts:
    """Texts as a model takes them, equal ones once.

    Attributes:
        token_ids: Token ids of the distinct texts.
        rows: Row in `token_ids` of each text, in the order of the texts.
    """

    token_ids: list[list[int]]
    rows: list[int]


@runtime_checkable
class Embedder(Protocol):
    """Turns query and item-part texts into vectors.

    Implementations add the model's own prefixes, tokenise with the tokenizer of *that* model,
    and return rows in the order given. Empty input gives an array of shape [0, dimensions].
    """

    @property
    def dimensions(self) -> int:
        """Length of one vector."""
        ...

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Return a float32 array [len(texts), dimensions].

        Raises:
            InferenceUnavailableError: the server does not answer in time.
            ModelError: the model cannot compute.
        """
        ...

    def embed_items(self, texts: Sequence[str]) -> Vectors:
        """Return a float32 array [len(texts), dimensions] for texts of item parts."""
        ...

    def tokenise_items(self, texts: Sequence[str]) -> TokenisedTexts:
        """Return what `embed_tokenised` takes: the first half of `embed_items`, for who does both side by side."""
        ...

    def embed_tokenised(self, texts: TokenisedTexts) -> Vectors:
        """Return a float32 array [texts, dimensions] for what `tokenise_items` returned. Raises: as `embed_queries`."""
        ...

    def close(self) -> None:
        """Release channel, session or memory. The embedder must not be used afterwards."""
        ...
