"""A switch and a rollback: in all, with the registry's alias, and the time in which writers have to wait."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.index.reindex import build, ensure_live, vectors_kept
from benchmarks.index.timing import median
from estudio_core import database
from estudio_core.export.manifest import EntryManifest
from estudio_core.pipeline.rollback import rollback
from estudio_core.pipeline.switch import switch
from estudio_core.pipeline.verify import verify
from estudio_core.vectordb import deployments
from estudio_core.vectordb.locks import share_switch


def measure_switch(plugin: str, entry: EntryManifest, *, rounds: int = 3) -> dict[str, Any]:
    """Build releases of the same model and switch to each, and back, as the DAGs do.

    Returns:
        For `switch` and `rollback`: seconds of each step in all, milliseconds under the exclusive lock, and the longest
        wait of a writer that asked for the shared lock all the time.
    """
    ensure_live(plugin, entry)
    measured: dict[str, list[dict[str, float]]] = {"switch": [], "rollback": []}
    with vectors_kept(plugin, entry):
        for number in range(rounds):
            run_id = f"switch-{uuid.uuid4().hex[:8]}"
            verified = verify(plugin, build(plugin, entry, run_id).as_dict()).as_dict()
            if number == 0:
                _connect_registry(plugin)
            measured["switch"].append(_timed(plugin, lambda verified=verified: switch(plugin, verified)))
            measured["rollback"].append(
                _timed(plugin, lambda run_id=run_id: rollback(plugin, {}, f"back-{run_id}", "benchmark"))
            )
    return {
        "objects": ensure_live(plugin, entry).stats["objects"],
        **{
            name: {
                **{key: median([values[key] for values in all_rounds]) for key in all_rounds[0]},
                "rounds": all_rounds,
            }
            for name, all_rounds in measured.items()
        },
    }


def _connect_registry(plugin: str) -> None:
    """Import MLflow and open its store: seconds that belong to the start of a process, not to a switch."""
    from estudio_core.pipeline.plugin_access import open_plugin

    open_plugin(plugin).get_manager().registry.versions()


def _timed(plugin: str, step: Callable[[], Any]) -> dict[str, float]:
    with _lock_times() as under_lock, _waiting_writer(plugin) as waits:
        began = time.perf_counter()
        step()
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "lock_ms": max(under_lock) * 1000, "longest_wait_ms": max(waits) * 1000}


@contextmanager
def _lock_times() -> Iterator[list[float]]:
    """Yield the seconds from each exclusive lock that is taken to the end of its transaction."""
    times: list[float] = []
    taken: list[float] = []
    own, point_to = deployments.own_switch, deployments._point_to

    def noted_own(*args: Any) -> None:
        own(*args)
        taken.append(time.perf_counter())

    def noted_point_to(*args: Any) -> Any:
        result = point_to(*args)
        times.append(time.perf_counter() - taken[-1])
        return result

    deployments.own_switch, deployments._point_to = noted_own, noted_point_to
    try:
        yield times
    finally:
        deployments.own_switch, deployments._point_to = own, point_to


@contextmanager
def _waiting_writer(plugin: str) -> Iterator[list[float]]:
    """Yield how long a writer waited each time that it asked for the lock which writers share."""
    waits: list[float] = []
    stop = threading.Event()
    ready = threading.Event()

    def write() -> None:
        with database.connect(autocommit=True) as connection:
            while not stop.is_set():
                began = time.perf_counter()
                with connection.transaction():
                    share_switch(connection, plugin)
                waits.append(time.perf_counter() - began)
                ready.set()
                stop.wait(0.0005)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    ready.wait(30)
    try:
        yield waits
    finally:
        stop.set()
        writer.join()
