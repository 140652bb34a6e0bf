"""A switch and a rollback while items are written: in all, with the registry's alias, and how long writers wait."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.index.reindex import build, ensure_live, vectors_kept
from estudio_core import database
from estudio_core.inference.manifest import EntryManifest
from estudio_core.pipeline.items.embed_writes import embed_writes
from estudio_core.pipeline.rollback import rollback
from estudio_core.pipeline.switch import switch
from estudio_core.pipeline.verify import verify
from estudio_core.vectordb import releases, switching
from estudio_core.vectordb.change_log import ItemWrite, write

LOGGED = 20_000
"""Entries that the change log holds before: some days of a busy source."""
WRITTEN = [f"written-{number}" for number in range(8)]
"""Items that the writer writes over and over."""
READY_S = 60.0
"""How long the first write may take, which opens the model."""


def measure_switch(plugin: str, entry: EntryManifest, *, rounds: int = 3) -> dict[str, Any]:
    """Build releases of the same model and switch to each, and back, as the DAGs do, while items are written.

    The change log holds `LOGGED` older entries, as it does after days without a clean-up.

    Returns:
        For `switch` and `rollback`, of the longest round: seconds of each step in all, milliseconds under the exclusive
        lock, and the longest wait of a write for the lock that writes share; and all rounds.
    """
    ensure_live(plugin, entry)
    measured: dict[str, list[dict[str, float]]] = {"switch": [], "rollback": []}
    with vectors_kept(plugin, entry), _full_log(plugin):
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
                **{key: max(values[key] for values in all_rounds) for key in all_rounds[0]},
                "rounds": all_rounds,
            }
            for name, all_rounds in measured.items()
        },
    }


@contextmanager
def _full_log(plugin: str) -> Iterator[None]:
    """Have older entries in the change log inside the block: deletions of objects that never were."""
    with database.connect(autocommit=True) as connection:
        connection.execute(
            "INSERT INTO estudio.change_log (plugin, op, object_id)"
            " SELECT %s, 'delete', 'logged-' || n FROM generate_series(1, %s) n",
            (plugin, LOGGED),
        )
        connection.execute("ANALYZE estudio.change_log")
        try:
            yield
        finally:
            connection.execute(
                "DELETE FROM estudio.change_log WHERE plugin = %s AND object_id LIKE 'logged-%%'", (plugin,)
            )


def _connect_registry(plugin: str) -> None:
    """Import MLflow and open its store: seconds that belong to the start of a process, not to a switch."""
    from estudio_core.plugin.registry import open_plugin

    open_plugin(plugin).experiments.registry.versions()


def _timed(plugin: str, step: Callable[[], Any]) -> dict[str, float]:
    with _lock_times() as under_lock, _writer(plugin) as waits:
        began = time.perf_counter()
        step()
        seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "lock_ms": max(under_lock) * 1000,
        "longest_wait_ms": max(waits) * 1000,
        "writes": len(waits),
    }


@contextmanager
def _lock_times() -> Iterator[list[float]]:
    """Yield the seconds from each exclusive lock that is taken to the end of its transaction."""
    times: list[float] = []
    taken: list[float] = []
    own, catch_up, point_to = switching.own_switch, switching.catch_up, switching._point_to

    def given_back() -> None:
        if taken:
            times.append(time.perf_counter() - taken.pop())

    def noted_own(*args: Any) -> None:
        own(*args)
        taken.append(time.perf_counter())

    def noted_catch_up(*args: Any) -> Any:
        given_back()  # the lock of a round that found too much
        return catch_up(*args)

    def noted_point_to(*args: Any) -> Any:
        result = point_to(*args)
        given_back()
        return result

    switching.own_switch, switching.catch_up, switching._point_to = noted_own, noted_catch_up, noted_point_to
    try:
        yield times
    finally:
        switching.own_switch, switching.catch_up, switching._point_to = own, catch_up, point_to


@contextmanager
def _writer(plugin: str) -> Iterator[list[float]]:
    """Write items of new content, one after another, and yield how long each write waited for the shared lock."""
    waits: list[float] = []
    failures: list[BaseException] = []
    stop, ready = threading.Event(), threading.Event()
    share_switch = releases.share_switch

    def noted_share_switch(*args: Any) -> None:
        began = time.perf_counter()
        share_switch(*args)
        waits.append(time.perf_counter() - began)

    def work() -> None:
        try:
            embed = embed_writes(plugin)
            with database.connect(autocommit=True) as connection:
                for number in itertools.count():
                    if stop.is_set():
                        break
                    text = {"title": f"Written lamp {time.time_ns()}", "short_description": ""}
                    write(connection, plugin, [ItemWrite(WRITTEN[number % len(WRITTEN)], text)], [], embed)
                    ready.set()
                write(connection, plugin, [], WRITTEN, embed)
        except BaseException as error:
            failures.append(error)
            ready.set()

    releases.share_switch = noted_share_switch
    writer = threading.Thread(target=work, daemon=True)
    writer.start()
    try:
        ready.wait(READY_S)
        waits.clear()
        yield waits
    finally:
        stop.set()
        writer.join()
        releases.share_switch = share_switch
    if failures:
        raise failures[0]
