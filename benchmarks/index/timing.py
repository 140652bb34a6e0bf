"""Clocks: percentiles of latencies, processor time of all that takes part, busy time of the stages of a pipeline."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import psutil


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Return `p50_ms` and `p99_ms`."""
    p50, p99 = np.percentile(np.asarray(seconds) * 1000, [50, 99])
    return {"p50_ms": float(p50), "p99_ms": float(p99)}


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return float(np.median(values))


class CpuClock:
    """Processor seconds of this process, its children and the PostgreSQL server of a connection, ended ones included.

    Args:
        server_pid: A process of the server, such as a connection's backend; None: the server is elsewhere.
    """

    def __init__(self, server_pid: int | None) -> None:
        self._postmaster: psutil.Process | None = None
        try:
            self._postmaster = psutil.Process(server_pid).parent() if server_pid else None
        except psutil.Error:
            self._postmaster = None

    @property
    def sees_database(self) -> bool:
        """Whether the database's share is counted: its server runs on this machine."""
        return self._postmaster is not None

    def seconds(self) -> float:
        """Return the processor seconds used so far."""
        own = psutil.Process().cpu_times()
        return own.user + own.system + own.children_user + own.children_system + self.database_seconds()

    def database_seconds(self) -> float:
        """Return those of the PostgreSQL server alone."""
        total = 0.0
        if self._postmaster is not None:
            for process in (self._postmaster, *self._postmaster.children()):
                try:
                    used = process.cpu_times()
                except psutil.Error:
                    continue
                total += used.user + used.system
                if process == self._postmaster:
                    total += used.children_user + used.children_system
        return total


class Stages:
    """Seconds during which each stage of a pipeline was at work; stages may overlap."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def add(self, stage: str, seconds: float) -> None:
        """Count time to a stage."""
        with self._lock:
            self.seconds[stage] += seconds

    @contextmanager
    def watching(self, *calls: tuple[Any, str, str]) -> Iterator[None]:
        """Time every call of the given (owner, name of the function, stage) inside the block.

        Of a function that returns an iterator, the time to its next elements counts.
        """
        with ExitStack() as stack:
            for owner, name, stage in calls:
                before = getattr(owner, name)
                setattr(owner, name, self._timed(before, stage))
                stack.callback(setattr, owner, name, before)
            yield

    def _timed(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = function(*args, **kwargs)
            self.add(stage, time.perf_counter() - began)
            return self._timed_iterator(result, stage) if isinstance(result, Iterator) else result

        return timed

    def _timed_iterator(self, iterator: Iterator[Any], stage: str) -> Iterator[Any]:
        while True:
            began = time.perf_counter()
            try:
                element = next(iterator)
            except StopIteration:
                return
            finally:
                self.add(stage, time.perf_counter() - began)
            yield element
