"""What a sync costs where none, some or many of the items have changed."""

from __future__ import annotations

import time
from typing import Any, Literal

from benchmarks.index.reindex import ensure_live, is_local
from benchmarks.index.timing import CpuClock, median
from estudio_core import database
from estudio_core.inference.manifest import EntryManifest
from estudio_core.inference.opening import open_bulk_embedder
from estudio_core.pipeline.sync import sync

Method = Literal["updated_at", "everything"]


def measure_sync(
    plugin: str,
    entry: EntryManifest,
    changed_share: float,
    method: Method,
    *,
    rounds: int = 3,
) -> dict[str, Any]:
    """Change the text of a share of the products, and sync.

    Args:
        plugin: The plugin.
        entry: Its published model.
        changed_share: Of the items.
        method: `updated_at`: by the column with the time of change; `everything`: by the hashes of all rows.
        rounds: How often.

    Returns:
        Median seconds and processor seconds, those of the database included, and what the last sync did.
    """
    ensure_live(plugin, entry)
    open_bulk_embedder(entry.name).embed_items(["warm up"])
    sync(plugin, {"everything": True})  # what an earlier measurement left
    seconds, cpu_seconds = [], []
    with database.connect(autocommit=True) as connection:
        clock = CpuClock(connection.info.backend_pid if is_local(connection) else None)
        items = connection.execute("SELECT count(*) FROM products").fetchone()
        assert items is not None
        for _ in range(rounds):
            # Long ago, so that the overlap, in which rows are looked at again, has what changed now and nothing else.
            connection.execute("UPDATE products SET updated_at = now() - interval '1 day'")
            connection.execute("VACUUM ANALYZE products")
            connection.execute(
                "UPDATE products SET title = regexp_replace(title, ' \\[[0-9.]+\\]$', '') || %s, updated_at = now()"
                " WHERE id IN (SELECT id FROM products ORDER BY md5(id::text) LIMIT %s)",
                (f" [{time.time()}]", round(items[0] * changed_share)),
            )
            used, began = clock.seconds(), time.perf_counter()
            done = sync(plugin, {"everything": method == "everything"})
            seconds.append(time.perf_counter() - began)
            cpu_seconds.append(clock.seconds() - used)
            assert done.embedded == round(items[0] * changed_share), done
    return {
        "items": items[0],
        "changed_share": changed_share,
        "method": method,
        "seconds": median(seconds),
        "cpu_seconds": median(cpu_seconds),
        "all_seconds": seconds,
        "all_cpu_seconds": cpu_seconds,
        "database_cpu_counted": clock.sees_database,
        "embedded": done.embedded,
        "read": done.read,
    }
