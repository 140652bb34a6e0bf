"""Which models a Triton server serves: verified before loading, checked by golden texts after, unloaded when old."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from estudio_core.errors import InferenceUnavailableError, ModelError, ModelNotLoadedError
from estudio_core.inference.golden import check_golden
from estudio_core.inference.manifest import EntryManifest, read_verified
from estudio_core.inference.triton_calls import ATTEMPTS, call, connect
from estudio_core.inference.triton_embedder import TritonEmbedder

LOAD_TIMEOUT_S = 300.0
"""A large model with warm-up at every length takes minutes on a CPU."""

_POLL_S = 0.1


class TritonControl:
    """Loads and unloads models of a Triton server that runs with `--model-control-mode=explicit`.

    Args:
        url: `host:port` of the server's gRPC endpoint.
        timeout_s: Deadline of requests other than loading.
        attempts: How often a request is tried while the server is away or late.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0, attempts: int = ATTEMPTS) -> None:
        self.url = url
        self._timeout_s, self._attempts = timeout_s, attempts
        self._client: Any = connect(url)

    def load(self, entry: Path, *, timeout_s: float = LOAD_TIMEOUT_S) -> EntryManifest:
        """Load an entry and return its manifest, once the server answers the golden texts as stored.

        Digests of all files are compared first, so that a damaged entry never reaches the server. Other models go on
        serving meanwhile. Loading what is loaded only repeats the check.

        Args:
            entry: Folder of the entry; its repository must be the server's own.
            timeout_s: Longest wait for loading and warm-up.

        Raises:
            RepositoryError: the entry is missing or damaged.
            ModelError: the server cannot load it, or gives other vectors; then it is unloaded again.
            InferenceUnavailableError: the server does not answer, or is not ready in time.
        """
        entry = Path(entry)
        manifest = read_verified(entry)
        name = manifest.name
        if not self.is_ready(name):
            self._ask_to_load(name, timeout_s)
            self._wait_until_ready(name, timeout_s)
        try:
            self.check(entry, manifest)
        except ModelError:
            self.unload(name)
            raise
        return manifest

    def check(self, entry: Path, manifest: EntryManifest | None = None) -> float:
        """Return the lowest cosine of the server's vectors of the golden texts with the stored ones.

        This is the health check: a server whose backend process died still calls the model ready.

        Raises:
            ModelError: the server gives other vectors.
            InferenceUnavailableError: the server does not answer in time, or has not loaded the model.
        """
        embedder = TritonEmbedder(
            self.url, entry, manifest=manifest, timeout_s=self._timeout_s, attempts=self._attempts
        )
        try:
            return check_golden(embedder, embedder.manifest, where=f"Triton at {self.url}")
        finally:
            embedder.close()

    def check_loaded(self, repository: Path, needed: Collection[str] = ()) -> list[str]:
        """Return the names of the models that are called ready, once each has given its golden vectors.

        Args:
            repository: The server's repository.
            needed: Models that have to be among them.

        Raises:
            RepositoryError: the entry of one is missing or damaged.
            ModelError: one gives other vectors.
            ModelNotLoadedError: one of `needed` is not ready.
            InferenceUnavailableError: the server does not answer in time.
        """
        names = sorted(name for name, state in self.loaded().items() if state == "READY")
        if missing := sorted(set(needed) - set(names)):
            raise ModelNotLoadedError(
                f"Triton at {self.url} has not loaded {', '.join(missing)}, which serves now; ready: "
                f"{', '.join(names) or 'none'}. The next search or write has it loaded."
            )
        for name in names:
            self.check(repository / name)
        return names

    def unload(self, name: str) -> None:
        """Unload a model; one that is not loaded is left alone.

        Raises:
            ModelError: the server refuses, for example because it does not run in explicit mode.
            InferenceUnavailableError: the server does not answer in time.
        """
        call(
            lambda: self._client.unload_model(name, client_timeout=self._timeout_s),
            model=name,
            url=self.url,
            doing="unload",
            attempts=self._attempts,
        )

    def is_ready(self, name: str) -> bool:
        """Return whether the server calls the model ready.

        Raises:
            InferenceUnavailableError: the server does not answer in time.
        """
        return bool(
            call(
                lambda: self._client.is_model_ready(name, client_timeout=self._timeout_s),
                model=name,
                url=self.url,
                doing="ready",
                attempts=self._attempts,
            )
        )

    def loaded(self) -> dict[str, str]:
        """Return the state of every model that the server knows of, by name: READY, LOADING, UNAVAILABLE with reason.

        Raises:
            InferenceUnavailableError: the server does not answer in time.
        """
        index = call(
            lambda: self._client.get_model_repository_index(client_timeout=self._timeout_s),
            model="(all)",
            url=self.url,
            doing="index",
            attempts=self._attempts,
        )
        return {
            model.name: f"{model.state}: {model.reason}" if model.reason else str(model.state)
            for model in index.models
            if model.state
        }

    def close(self) -> None:
        """Close the channel."""
        self._client.close()

    def _ask_to_load(self, name: str, timeout_s: float) -> None:
        call(
            lambda: self._client.load_model(name, client_timeout=timeout_s),
            model=name,
            url=self.url,
            doing="load",
            attempts=self._attempts,
        )

    def _wait_until_ready(self, name: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.is_ready(name):
            state = self.loaded().get(name, "it does not know the model")
            if time.monotonic() > deadline:
                raise InferenceUnavailableError(
                    f"Triton at {self.url} did not get {name} ready within {timeout_s:.0f} s: {state}. "
                    "See the server's log."
                )
            time.sleep(_POLL_S)
            if state not in {"LOADING", "READY"}:
                self._ask_to_load(name, timeout_s)  # the server was restarted and has forgotten what it was asked
