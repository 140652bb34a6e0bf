"""Encodes queries through Triton, and in this process from the same entry while Triton is away."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from estudio_core.errors import EstudioError, InferenceUnavailableError, MissingDependencyError, ModelError
from estudio_core.inference.embedder import Embedder, TokenisedTexts, Vectors
from estudio_core.inference.golden import check_golden
from estudio_core.inference.triton_control import TritonControl
from estudio_core.inference.triton_embedder import TritonEmbedder

ATTEMPTS = 2
"""Requests before this process computes itself: a query is not kept waiting where something else can answer it."""
QUERY_TIMEOUT_S = 0.75
"""Longest deadline of an attempt while this process can compute itself: a server that accepts and never answers costs a
query less than 2 s, and only the first one, as the next ones do not ask it."""
FIRST_LOOK_S, LONGEST_LOOK_S = 0.5, 15.0
"""Time between two looks whether the server is back; it doubles."""
FORGOTTEN_S = 60.0
"""Without a query for so long, nobody needs to know whether the server is back."""

logger = logging.getLogger(__name__)


class StandbyEmbedder:
    """An `Embedder` of a served entry that goes on while the server does not; usable from several threads.

    Both ways give the same vectors. A server that comes back without its models, as after a crash, is told to load this
    entry; it answers queries again after it has given the golden vectors.

    Args:
        url: `host:port` of the server's gRPC endpoint.
        entry: Folder of the entry.
        open_local: Opens what encodes in this process; called once, when it is needed.
        timeout_s: Deadline of one attempt where nothing but the server can encode.

    Raises:
        RepositoryError: the entry is missing or damaged.
    """

    def __init__(self, url: str, entry: Path, open_local: Callable[[], Embedder], timeout_s: float) -> None:
        self._url, self._entry, self._timeout_s = url, entry, timeout_s
        self._query_timeout_s = min(timeout_s, QUERY_TIMEOUT_S)
        self._served = TritonEmbedder(url, entry, timeout_s=self._query_timeout_s, attempts=ATTEMPTS)
        self._open_local = open_local
        self._local: Embedder | None = None
        self._patient: TritonEmbedder | None = None
        self._lock = threading.Lock()
        self._asked_at = time.monotonic()
        # The server is tried with the golden texts before any query is answered by it.
        self._tried = False
        self._looking = False
        self._closed = False

    @property
    def dimensions(self) -> int:
        """Length of one vector."""
        return self._served.dimensions

    @property
    def server_answers(self) -> bool:
        """Whether queries go to the server."""
        return self._tried and not self._looking

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Return vectors of query texts, float32 [len(texts), dimensions].

        Raises:
            InferenceUnavailableError: the server does not answer, and this process has no ONNX Runtime.
            ModelError: neither can compute.
        """
        return self._embed(lambda embedder: embedder.embed_queries(texts))

    def embed_items(self, texts: Sequence[str]) -> Vectors:
        """Return vectors of item part texts, float32 [len(texts), dimensions]; raises as `embed_queries`."""
        return self._embed(lambda embedder: embedder.embed_items(texts))

    def tokenise_items(self, texts: Sequence[str]) -> TokenisedTexts:
        """Return what `embed_tokenised` takes; both ways tokenise alike."""
        return self._served.tokenise_items(texts)

    def embed_tokenised(self, texts: TokenisedTexts) -> Vectors:
        """Return vectors of what `tokenise_items` returned, float32 [texts, dimensions]; raises as `embed_queries`."""
        return self._embed(lambda embedder: embedder.embed_tokenised(texts))

    def close(self) -> None:
        """Close the channel, and free the memory."""
        self._closed = True
        for embedder in (self._served, self._patient, self._local):
            if embedder is not None:
                embedder.close()

    def _embed(self, compute: Callable[[Embedder], Vectors]) -> Vectors:
        self._asked_at = time.monotonic()
        failure: EstudioError | None = None
        if not self._looking:
            try:
                if not self._tried:
                    self._check()
                return compute(self._served)
            except (InferenceUnavailableError, ModelError) as error:
                failure = error
                self._look_for_server(error)
        try:
            local = self._in_process()
        except MissingDependencyError:
            if isinstance(failure, ModelError):
                raise failure from None
            return self._wait_for_server(compute)
        return compute(local)

    def _check(self) -> None:
        control = TritonControl(self._url, timeout_s=self._query_timeout_s, attempts=1)
        try:
            control.check(self._entry, self._served.manifest)
        finally:
            control.close()
        self._tried = True

    def _wait_for_server(self, compute: Callable[[Embedder], Vectors]) -> Vectors:
        with self._lock:
            served = self._patient = self._patient or TritonEmbedder(
                self._url, self._entry, manifest=self._served.manifest, timeout_s=self._timeout_s, attempts=ATTEMPTS
            )
        if not self._tried:
            check_golden(served, served.manifest, where=f"Triton at {self._url}")
        return compute(served)

    def _in_process(self) -> Embedder:
        with self._lock:
            if self._local is None:
                self._local = self._open_local()
            return self._local

    def _look_for_server(self, error: EstudioError) -> None:
        with self._lock:
            if self._looking:
                return
            self._looking, self._tried = True, False
        logger.warning("Queries for %s are encoded in this process: %s", self._served.name, error)
        threading.Thread(target=self._look, name="estudio-look-for-triton", daemon=True).start()

    def _look(self) -> None:
        wait_s = FIRST_LOOK_S
        try:
            while not self._closed and time.monotonic() - self._asked_at < FORGOTTEN_S:
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_LOOK_S)
                control = TritonControl(self._url, timeout_s=self._timeout_s)
                try:
                    control.load(self._entry)
                except (InferenceUnavailableError, ModelError) as error:
                    logger.info("Triton does not serve %s yet: %s", self._served.name, error)
                else:
                    self._tried = True
                    logger.warning("Triton encodes queries for %s again.", self._served.name)
                    return
                finally:
                    control.close()
        finally:
            self._looking = False
