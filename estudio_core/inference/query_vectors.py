"""The vectors of queries: kept for those that come again, and computed together for those that come at once.

A query waits for its vector as a future, so that its deadline holds whatever the encoder does, opening it included;
what was begun goes on for those who come later. Each model has one thread, which takes all that waits when it is free;
through a server, `SERVER_THREADS`, so that one late answer does not hold up the others.

The same text always has the same vector here: it is brought to one form first (Unicode's NFC, one space between words),
and that is what is encoded.
"""

from __future__ import annotations

import os
import threading
import time
import unicodedata
from collections import OrderedDict, deque
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from estudio_core import telemetry
from estudio_core.deadline import Deadline
from estudio_core.errors import EstudioError, OverloadedError, UnavailableError
from estudio_core.settings import get_settings
from estudio_core.telemetry import measured

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from opentelemetry.context import Context

    Vector = NDArray[np.float32]

_Key = tuple[str, int, str, str]
"""Model repository, release, model and text."""

TOGETHER = 32
"""Most queries of one computation."""
MOST_WAITING = 512
"""Queries that wait for one model at most."""
SERVER_THREADS = 4
_IDLE_S = 60.0
"""A thread that has had nothing to do for so long ends."""


@dataclass(frozen=True)
class QueryVectorCounts:
    """What was asked for in this process so far.

    Attributes:
        hits: Queries whose vector was there, or was being computed already.
        misses: Queries that were encoded.
        batches: Computations that encoded them.
        kept: Vectors that are kept now.
    """

    hits: int
    misses: int
    batches: int
    kept: int

    @property
    def hit_rate(self) -> float:
        """Share of the queries that needed no computation; 0 before the first."""
        return self.hits / asked if (asked := self.hits + self.misses) else 0.0

    @property
    def mean_batch(self) -> float:
        """Queries of a computation, on average; 0 before the first."""
        return self.misses / self.batches if self.batches else 0.0


def normalised(text: str) -> str:
    r"""Return the form of a query by which it is known again.

    >>> normalised("  red \n lamp "), normalised("cafe\u0301") == "café"
    ('red lamp', True)
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


@dataclass
class _Job:
    text: str
    deadline: Deadline
    """The latest of those who wait for it."""
    vector: Future[Vector]
    asked_in: Context | None
    """The trace of the first who asked."""


class QueryVectors:
    """All query vectors of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, _Job] = OrderedDict()
        self._encoders: dict[str, _Encoder] = {}
        self._hits = self._misses = self._batches = 0

    @property
    def counts(self) -> QueryVectorCounts:
        """What was asked for so far."""
        with self._lock:
            return QueryVectorCounts(self._hits, self._misses, self._batches, len(self._kept))

    def of(self, release_id: int, model_name: str, query: str, deadline: Deadline) -> Future[Vector]:
        """Return the vector of a query to be, float32 [dimensions], by the model of a release.

        Raises:
            OverloadedError: so many wait that it would not be computed before the deadline.
        """
        text = normalised(query)
        # Releases of another installation may have the same numbers.
        key = (str(get_settings().triton_repository), release_id, model_name, text)
        with self._lock:
            known = self._kept.get(key)
            if known is not None and not (known.vector.done() and known.vector.exception() is not None):
                self._kept.move_to_end(key)
                self._hits += 1
                if deadline.at > known.deadline.at:
                    known.deadline = deadline
                self._tell(model_name, kept=True)
                return known.vector
            encoder = self._encoders.get(model_name)
            if encoder is None:
                encoder = self._encoders[model_name] = _Encoder(self, model_name)
            job = encoder.submit(text, deadline)
            self._misses += 1
            self._tell(model_name, kept=False)
            most = get_settings().query_cache
            if most:
                self._kept[key] = job
                while len(self._kept) > most:
                    self._kept.popitem(last=False)
            return job.vector

    def retain(self, plugin: str, model_names: set[str]) -> None:
        """Let go of the vectors and threads of a plugin's other models."""
        from estudio_core.inference.manifest import split_name

        with self._lock:
            gone = [name for name in self._encoders if name not in model_names and split_name(name)[0] == plugin]
            for name in gone:
                self._encoders.pop(name).stop()
            if gone:
                for key in [key for key in self._kept if key[2] in gone]:
                    del self._kept[key]

    def clear(self) -> None:
        """Forget all vectors."""
        with self._lock:
            self._kept.clear()

    def _tell(self, model_name: str, *, kept: bool) -> None:
        telemetry.note("estudio.cache.hit", kept)
        telemetry.count_query_vector(_plugin_of(model_name), kept=kept)

    def _count_batch(self) -> None:
        with self._lock:
            self._batches += 1


class _Encoder:
    """Encodes the queries of one model, those that wait together."""

    def __init__(self, owner: QueryVectors, model_name: str) -> None:
        self._owner, self._name = owner, model_name
        self._condition = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._threads = self._free = 0
        self._stopped = False
        self._batch_s = 0.0

    def submit(self, text: str, deadline: Deadline) -> _Job:
        """Have a text encoded. Raises: as `QueryVectors.of`."""
        with self._condition:
            wait_s = self._batch_s * (1 + len(self._waiting) // TOGETHER)
            if len(self._waiting) >= MOST_WAITING or (self._waiting and wait_s > deadline.left_s):
                raise OverloadedError(
                    f"{len(self._waiting)} queries wait to be encoded in this process: this one would not get its turn "
                    f"within {deadline.seconds:g} s. Come back in {max(wait_s, 0.05):.2g} s, or add processes.",
                    max(wait_s, 0.05),
                )
            job = _Job(text, deadline, Future(), telemetry.here())
            self._waiting.append(job)
            most = SERVER_THREADS if get_settings().inference == "triton" else 1
            if self._free:
                self._condition.notify()
            elif self._threads < most:
                self._threads += 1
                threading.Thread(target=self._work, name=f"estudio-queries-{self._name}", daemon=True).start()
            return job

    def stop(self) -> None:
        """Encode what waits, and end."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()

    def _work(self) -> None:
        while jobs := self._next():
            began = time.monotonic()
            self._encode(jobs)
            took = time.monotonic() - began
            self._batch_s = took if not self._batch_s else 0.8 * self._batch_s + 0.2 * took

    def _next(self) -> list[_Job]:
        with self._condition:
            self._free += 1
            try:
                while not self._waiting:
                    if self._stopped or not self._condition.wait(_IDLE_S):
                        if self._waiting:
                            break
                        self._threads -= 1
                        return []
                return [self._waiting.popleft() for _ in range(min(TOGETHER, len(self._waiting)))]
            finally:
                self._free -= 1

    def _encode(self, jobs: list[_Job]) -> None:
        wanted = []
        for job in jobs:
            if job.deadline.left_s <= 0:
                _fail(job, job.deadline.passed("it waited to be encoded"))
            else:
                wanted.append(job)
        if not wanted:
            return
        from estudio_core.inference import opening

        asked_in = [job.asked_in for job in wanted if job.asked_in is not None]
        first = asked_in[0] if asked_in else None
        attributes: dict[str, telemetry.Value] = {
            telemetry.PLUGIN: _plugin_of(self._name),
            telemetry.MODEL: self._name,
            "estudio.queries": len(wanted),
        }
        try:
            if opening.is_open(self._name):
                embedder = opening.open_search_embedder(self._name)
            else:
                with measured(telemetry.OPEN_MODEL, {telemetry.MODEL: self._name}, context=first, others=asked_in[1:]):
                    embedder = opening.open_search_embedder(self._name)
            with measured(telemetry.ENCODE, attributes, context=first, others=asked_in[1:]):
                vectors = embedder.embed_queries([job.text for job in wanted])
        except BaseException as error:
            if len(wanted) > 1 and isinstance(error, EstudioError) and not isinstance(error, UnavailableError):
                for job in wanted:  # one of them may be what cannot be encoded
                    self._encode([job])
                return
            for job in wanted:
                _fail(job, error)
            return
        self._owner._count_batch()
        for job, vector in zip(wanted, vectors, strict=True):
            with suppress(InvalidStateError):
                job.vector.set_result(vector)


def _plugin_of(model_name: str) -> str:
    return model_name.rpartition("_v")[0]


def _fail(job: _Job, error: BaseException) -> None:
    with suppress(InvalidStateError):
        job.vector.set_exception(error)


query_vectors = QueryVectors()


def _after_fork() -> None:
    query_vectors.__init__()  # type: ignore[misc]


os.register_at_fork(after_in_child=_after_fork)
