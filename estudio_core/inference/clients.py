"""Clients of served models as plugins know them: one factory per plugin, one client per model version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estudio_core.errors import DataError, ModelError
from estudio_core.inference.embedder import Embedder, Vectors
from estudio_core.inference.manifest import entry_name, read_manifest
from estudio_core.inference.model_store import local_entry
from estudio_core.inference.opening import open_query_embedder
from estudio_core.settings import get_settings


class TritonClient:
    """Encodes queries and items with one served version of a plugin's model.

    Args:
        name: Name of the model, `<plugin>_v<version>`.
        embedder: What encodes.
        preprocessor: Turns an item that is no text into text.
    """

    def __init__(self, name: str, embedder: Embedder, preprocessor: Callable[[Any], str] | None = None) -> None:
        self.name = name
        self.embedder = embedder
        self.preprocessor = preprocessor

    @property
    def dimensions(self) -> int:
        """Length of one vector."""
        return self.embedder.dimensions

    def forward_query(self, query: str) -> NDArray[np.float32]:
        """Return the vector of one query, float32 [dimensions].

        Raises:
            InferenceUnavailableError: the server does not answer in time.
            ModelError: the model cannot compute.
        """
        vector: NDArray[np.float32] = self.embedder.embed_queries([query])[0]
        return vector

    def forward_items(self, items: Sequence[Any]) -> Vectors:
        """Return the vectors of items, float32 [len(items), dimensions].

        Texts are taken as they are; they are what a preprocessor returns. Anything else goes through the preprocessor.

        Raises:
            DataError: an item is no text and there is no preprocessor.
            InferenceUnavailableError: the server does not answer in time.
            ModelError: the model cannot compute.
        """
        return self.embedder.embed_items([self._text(position, item) for position, item in enumerate(items)])

    def _text(self, position: int, item: Any) -> str:
        if isinstance(item, str):
            return item
        if self.preprocessor is None:
            raise DataError(
                f"Item {position} is {type(item).__name__} and the client of {self.name} has no preprocessor. Give "
                "texts, or give `preprocessor` to its factory."
            )
        return self.preprocessor(item)


class TritonClientFactory:
    """Opens clients for the versions of a plugin's model.

    Tokenizer, prefixes and longest input come from the repository entry of the version asked for, never from
    the base model. Where the setting `inference` is `embedded`, the client computes in this process, same entry.

    Args:
        url: `host:port` of Triton's gRPC endpoint.
        plugin_name: Name of the plugin.
        preprocessor: Turns an item that is no text into text.
        model_name: Name of the base model, for messages.
        family: The one that versions have to be of, see `models.families`; None: any.
        repository: Root of the model repository; None: the setting.
    """

    def __init__(
        self,
        url: str,
        plugin_name: str,
        preprocessor: Callable[[Any], str] | None = None,
        model_name: str | None = None,
        *,
        family: str | None = None,
        repository: Path | None = None,
    ) -> None:
        self.url = url
        self.plugin_name = plugin_name
        self.preprocessor = preprocessor
        self.model_name = model_name
        self.family = family
        self.repository = repository

    def get_client(self, version: str | int) -> TritonClient:
        """Return a client for one version; it has answered the golden texts as stored. Asking again is cheap.

        Raises:
            RepositoryError: the version is not published, or its entry is damaged.
            ModelError: it is of another family, or what serves it gives other vectors.
            InferenceUnavailableError: Triton does not answer.
        """
        name = entry_name(self.plugin_name, version)
        repository = (self.repository or get_settings().triton_repository).resolve()
        found = read_manifest(local_entry(name, repository)).family
        if self.family not in (None, found):
            raise ModelError(
                f"{name} is a model of the family {found!r}, this client factory is for {self.family!r}"
                + (f" (base model {self.model_name})" if self.model_name else "")
                + ". Return the factory of the right family from get_inference_client_factory()."
            )
        embedder = open_query_embedder(name, repository=repository, url=self.url)
        return TritonClient(name, embedder, self.preprocessor)


# Its names in the tutorial: one for each of two families.
TextToTextBertTritonClientFactory = partial(TritonClientFactory, family="bert")
TextToTextE5TritonClientFactory = partial(TritonClientFactory, family="e5")
