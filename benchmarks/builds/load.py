"""The load of a release, shard by shard in processes of their own, as Airflow runs them: killed, watched, compared."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import psutil
import psycopg
from psycopg import sql

from benchmarks.builds.catalog import PLUGIN, prepare
from benchmarks.index.timing import CpuClock
from estudio_core import database
from estudio_core.pipeline.build_index import build_index
from estudio_core.pipeline.manifests import PublishedManifest, ShardManifest
from estudio_core.pipeline.start_collection import start_collection
from estudio_core.vectordb.releases import Release, release_of_run
from estudio_core.vectordb.sizing import server, size_of

KILLS = 5
LOOK_S = 0.25
WORKER = """
import json, sys
from benchmarks.builds.catalog import PLUGIN, use_own_installation
use_own_installation()
from estudio_core.pipeline.embed_shard import embed_shard
print(json.dumps(embed_shard(PLUGIN, json.loads(sys.argv[1])).as_dict()))
"""


@dataclass
class Watch:
    """What was seen while items were loaded.

    Attributes:
        release: What they are loaded for.
        seen: (attempt, seconds, items committed, processor seconds), wherever further items were committed.
        most_bytes: Most memory of the loading process.
        process: That one.
        attempts: Its number.
    """

    release: Release
    seen: list[tuple[int, float, int, float]] = field(default_factory=list)
    most_bytes: int = 0
    attempts: int = 0
    process: subprocess.Popen[str] | None = None

    def look(self, connection: psycopg.Connection, began: float, clock: CpuClock) -> None:
        """Note how far it is."""
        row = connection.execute(
            sql.SQL("SELECT coalesce(sum(items), 0) FROM {}").format(self.release.collection.loading)
        ).fetchone()
        assert row is not None
        used = clock.seconds()  # of ended children too
        if self.process is not None:
            try:
                busy = psutil.Process(self.process.pid)
                self.most_bytes = max(self.most_bytes, busy.memory_full_info().uss)
                used += sum(busy.cpu_times()[:2])
            except psutil.Error:
                pass
        if row[0] > (self.seen[-1][2] if self.seen else 0):
            self.seen.append((self.attempts, time.monotonic() - began, int(row[0]), used))


def measure_load(items: int, run_id: str, kills: int = KILLS, shard_items: int = 250_000) -> dict[str, Any]:
    """Load `items` items into a new collection, the loading process killed at moments drawn by lot.

    Returns:
        Items/s of the tenths of the load by the clock and by processor time, kills, attempts, most memory of a process,
        what was lost and doubled.
    """
    entry = prepare(items)
    published = PublishedManifest(
        name=entry.name, version=entry.version, digest=entry.digest, dimensions=entry.dimensions
    )
    shards = start_collection(PLUGIN, published.as_dict(), 1, run_id, shard_items)
    lot = random.Random(7)
    at = sorted(lot.sample(range(1, 20 * len(shards)), kills))  # twentieths of shards
    stopped = threading.Event()
    with database.connect(autocommit=True) as connection:
        release = release_of_run(connection, PLUGIN, run_id)
        assert release is not None
        watch, clock = Watch(release), CpuClock(connection.info.backend_pid)
        began = time.monotonic()
        watcher = threading.Thread(target=_watch, args=(watch, connection, began, clock, stopped))
        watcher.start()
        try:
            loaded = []
            for number, shard in enumerate(shards):
                due = [items * twentieth // (20 * len(shards)) for twentieth in at if twentieth // 20 == number]
                loaded.append(_attempts(watch, shard, due))
        finally:
            stopped.set()
            watcher.join()
        load_s = time.monotonic() - began
        lost, doubled = _compared(connection, release)
    return {
        "items": items,
        "loaded_items": sum(each["items"] for each in loaded),
        "reused_items": sum(each["reused"] for each in loaded),
        "shards": len(shards),
        "kills": kills,
        "attempts": watch.attempts,
        "load_s": load_s,
        "tenths": _tenths(watch.seen, items),
        "most_mb": watch.most_bytes / 2**20,
        "lost": lost,
        "doubled": doubled,
        "manifests": loaded,
    }


def measure_index(items: int, run_id: str, manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """Build the index of the loaded collection; return its time and size beside what the preflight says of them."""
    with database.connect(autocommit=True) as connection:
        release = release_of_run(connection, PLUGIN, run_id)
        assert release is not None
        told = size_of(items, items, 350, release.index_info, server(connection))
        began = time.monotonic()
        built = build_index(PLUGIN, manifests)
        seconds = time.monotonic() - began
        size = release.collection.stats(connection).size_bytes
    return {
        "items": built.items,
        "release_id": built.release_id,
        "index_s": seconds,
        "told_index_s": told.seconds,
        "told_memory_mb": told.memory_mb,
        "disk_mb": size / 2**20,
        "told_disk_mb": told.disk_mb,
    }


def _attempts(watch: Watch, shard: ShardManifest, due: list[int]) -> dict[str, Any]:
    """Run a shard until it ends; kill it (SIGKILL) once so many items of all are committed."""
    while True:
        with subprocess.Popen(
            [sys.executable, "-c", WORKER, json.dumps(shard.as_dict())], stdout=subprocess.PIPE, text=True
        ) as process:
            watch.process, watch.attempts = process, watch.attempts + 1
            while process.poll() is None and due:
                if watch.seen and watch.seen[-1][2] >= due[0]:
                    due.pop(0)
                    process.kill()
                    break
                time.sleep(LOOK_S / 2)
            out, _ = process.communicate()
        watch.process = None
        if process.returncode == 0:
            manifest: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
            return manifest
        if process.returncode != -9:
            raise RuntimeError(f"Shard {shard.label} ended with {process.returncode}.")


def _watch(
    watch: Watch, connection: psycopg.Connection, began: float, clock: CpuClock, stopped: threading.Event
) -> None:
    while not stopped.wait(LOOK_S):
        watch.look(connection, began, clock)
    watch.look(connection, began, clock)


def _tenths(seen: list[tuple[int, float, int, float]], items: int) -> list[dict[str, float]]:
    """Return items/s of each tenth, by the clock and by processor time.

    From one committed chunk to the next of the same process: how long one takes to start is not counted, neither the
    first nor one that follows a killed one.
    """
    sums = [[0.0, 0.0, 0.0] for _ in range(10)]
    for before, after in pairwise(seen):
        if before[0] == after[0]:
            tenth = sums[min(9, 10 * before[2] // items)]
            for place, value in enumerate((after[2] - before[2], after[1] - before[1], after[3] - before[3])):
                tenth[place] += value
    return [
        {"items_per_s": count / max(1e-9, seconds), "items_per_cpu_s": count / max(1e-9, cpu)}
        for count, seconds, cpu in sums
    ]


def _compared(connection: psycopg.Connection, release: Release) -> tuple[int, int]:
    """Return how many rows of the table the collection lacks or has otherwise, and how many it has too often."""
    row = connection.execute(
        sql.SQL(
            "SELECT (SELECT count(*) FROM generated g LEFT JOIN {objects} o ON o.object_id = g.id::text"
            " WHERE o.body IS DISTINCT FROM g.title),"
            " (SELECT count(*) FROM {objects}) - (SELECT count(*) FROM generated)"
            " + abs((SELECT count(*) FROM {parts}) - (SELECT count(*) FROM generated))"
        ).format(objects=release.collection.objects, parts=release.collection.parts)
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])
