"""New, changed and deleted rows of the item source, into the live collection and, by the change log, every other.

How changes are found, the cheapest way that the source offers:

- by its queue of changed ids, which a trigger feeds;
- by `updated_at`: rows changed since the last sync, and the ids of all rows, for what came or went unnoticed;
- by comparing the hashes of all rows, which is also what a first sync does.

An item is embedded only when the text of its parts has changed. A sync that is killed leaves whole batches; the next
one finds them unchanged and goes on.

Whatever tells of changes may miss some: triggers switched off for a load, an item put back with the time that it had.
So everything is compared after `compare_hours` at the latest, which bounds how stale an item can be; at once where the
catalog tells of it (`table_layout`), and each time while the queue's triggers are missing.

Rows that the live collection has already are not logged, so that what a sync has seen holds for that one alone: after a
switch or a rollback to another collection, the next sync compares everything.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from estudio_core import database
from estudio_core.errors import DataError
from estudio_core.log_context import bind_release
from estudio_core.pipeline.items.embed_writes import embed_writes
from estudio_core.pipeline.items.garbage import spare_what_is_loaded
from estudio_core.pipeline.items.writer import READ_BATCH, ItemWriter
from estudio_core.pipeline.manifests import SyncManifest
from estudio_core.plugin.registry import open_plugin
from estudio_core.plugin.run_params import SyncParams
from estudio_core.progress import report
from estudio_core.streams import prefetched
from estudio_core.vectordb.locks import sync_lock
from estudio_core.vectordb.search import count
from estudio_core.vectordb.switching import keep_log_short
from estudio_core.vectordb.sync_state import (
    SyncState,
    forget_release,
    id_difference,
    read_sync_state,
    save_sync_state,
)
from estudio_core.vectordb.words import compact_terms

if TYPE_CHECKING:
    import psycopg

    from estudio_core.sources.change_queue import ChangeQueue
    from estudio_core.sources.data_loader import DataLoader, LoadResult

logger = logging.getLogger(__name__)

Method = Literal["queue", "updated_at", "everything"]
_LISTED_INVALID = 200
_LISTED_TABLES = 5
_FEW_OBJECTS = 20
"""Up to so many objects may go at once whatever their share."""


def sync(plugin_name: str, params: dict[str, Any]) -> SyncManifest:
    """Bring the live items of a plugin to the state of its source.

    Raises:
        NothingLiveError: the plugin has no live release yet.
        ConcurrentReleaseError: another sync of this plugin is running.
        DataError: more items would be deleted than `most_deleted_share` allows: they are gone, or cannot be used.
        SourceSchemaError: table, column or queue do not exist.
    """
    wanted = SyncParams.model_validate(params)
    began = time.monotonic()
    loader = open_plugin(plugin_name).loader
    spare_what_is_loaded()
    with database.connect(autocommit=True) as connection:
        database.require_schema(connection)
        with sync_lock(connection, plugin_name):
            writer = ItemWriter(connection, plugin_name, loader)
            serving = writer.live()
            begun = serving.built_by
            bind_release(serving.release_id)
            state = read_sync_state(connection, plugin_name)
            source = f"{_cheapest(loader)} {loader.fingerprint}"
            note = _gap(plugin_name, loader)
            method = "everything" if note else _method(loader, state, source, begun, wanted)
            if method == "everything":
                forget_release(connection, plugin_name)
            # Read before the rows: what changes from now on is for the next sync.
            watermark = loader.clock() if loader.tracks_changes else None
            if method == "everything":
                _bring(writer, loader.iter_items(batch_size=READ_BATCH))
            elif method == "updated_at":
                assert state is not None
                assert state.watermark is not None
                since = state.watermark - timedelta(minutes=wanted.overlap_minutes)
                _bring(writer, loader.iter_changed(since, batch_size=READ_BATCH))
            if method != "queue":
                _reconcile(connection, plugin_name, loader, writer, wanted)
            if loader.change_queue is not None:
                _drain(connection, plugin_name, loader, loader.change_queue, writer, wanted)
            counts = writer.counts
            live = writer.live()
            if counts.embedded or counts.deleted:
                compact_terms(connection, live.collection)
            keep_log_short(connection, plugin_name, embed_writes(plugin_name))
            save_sync_state(
                connection,
                plugin_name,
                source,
                watermark,
                compared=method == "everything",
                release_id=begun if writer.releases == {begun} else None,
                counts=counts.numbers | {"method": method},
            )
            done = read_sync_state(connection, plugin_name)
            assert done is not None
    return SyncManifest(
        release_id=live.release_id,
        method=method,
        compared_at=done.compared_at.astimezone(UTC).isoformat(timespec="seconds"),
        compare_hours=wanted.compare_hours,
        note=note,
        invalid=dict(list(counts.left_out.items())[:_LISTED_INVALID]),
        seconds=round(time.monotonic() - began, 2),
        **counts.numbers,
    )


def _cheapest(loader: DataLoader) -> Method:
    if loader.change_queue is not None:
        return "queue"
    return "updated_at" if loader.tracks_changes else "everything"


def _gap(plugin: str, loader: DataLoader) -> str:
    """Say which tables the queue of changes does not follow: made anew, they have no triggers; others switched off."""
    unfed = loader.unfed()
    if not unfed:
        return ""
    listed = ", ".join(unfed[:_LISTED_TABLES]) + (
        f" and {more} more" if (more := len(unfed) - _LISTED_TABLES) > 0 else ""
    )
    note = (
        f"No trigger queues the changes of {listed}, so that every sync compares all rows. Run what this prints in the "
        f"items' database: estudio plugins queue-sql {plugin}"
    )
    logger.warning("%s", note)
    return note


def _method(loader: DataLoader, state: SyncState | None, source: str, release_id: int, wanted: SyncParams) -> Method:
    """Return how this sync finds changes: everything is compared where nothing tells what the last one saw."""
    if wanted.everything or state is None or state.source != source or state.release_id != release_id:
        return "everything"
    if datetime.now(UTC) - state.compared_at >= timedelta(hours=wanted.compare_hours):
        return "everything"
    cheapest = _cheapest(loader)
    return "everything" if cheapest == "updated_at" and state.watermark is None else cheapest


def _bring(writer: ItemWriter, batches: Iterable[LoadResult]) -> None:
    for batch in prefetched(batches):
        writer.bring(batch)
        report("Sync", writer.counts.read, None, "items", f"{writer.counts.embedded} embedded")


def _reconcile(
    connection: psycopg.Connection, plugin: str, loader: DataLoader, writer: ItemWriter, wanted: SyncParams
) -> None:
    """Bring ids that only one side has: new rows whatever their time, and rows that are gone or unusable."""
    difference = id_difference(connection, writer.live().collection, loader.iter_ids())
    _limit_deletions(writer, difference.objects, wanted)
    going = list(dict.fromkeys([*difference.surplus, *writer.going]))
    if writer.counts.deleted + len(going) > writer.most_deleted:
        raise DataError(
            f"{len(going)} of {difference.objects} live items of plugin {plugin!r} are not in its source any more"
            f"{_unusable(writer)}; {wanted.most_deleted_share:.0%} may go in one sync. Check the table. If it is "
            "right, sync again with a higher most_deleted_share."
        )
    # Looked up once more before anything is deleted: an item may have come since the ids were read.
    writer.refresh([*difference.lacking, *going])
    writer.going.clear()
    writer.delete_orphans(difference.orphaned)


def _unusable(writer: ItemWriter) -> str:
    """Say how many of the items that would go have a row that cannot be used."""
    if not writer.going:
        return ""
    first, reason = next(iter(writer.going.items()))
    return f", or their rows cannot be used ({len(writer.going)}, such as {first!r}: {reason})"


def _limit_deletions(writer: ItemWriter, objects: int, wanted: SyncParams) -> None:
    """Note how many may go, of the objects that there are before the first one does."""
    if writer.most_deleted == math.inf:
        writer.most_deleted = max(_FEW_OBJECTS, wanted.most_deleted_share * objects)


def _drain(
    connection: psycopg.Connection,
    plugin: str,
    loader: DataLoader,
    queue: ChangeQueue,
    writer: ItemWriter,
    wanted: SyncParams,
) -> None:
    """Bring what waits in the queue, batch by batch; each is acknowledged when its writes are committed."""
    waiting = queue.depth()
    _limit_deletions(writer, count(connection, writer.live().collection), wanted)
    if waiting > writer.most_deleted:
        # So many entries might all be deletions, or unusable: whether they are is seen before the first one goes.
        _bring(writer, loader.iter_items(batch_size=READ_BATCH))
        _reconcile(connection, plugin, loader, writer, wanted)
    # What comes in meanwhile is left to the next sync, so that this one ends however busy the table is.
    while waiting > 0 and (changes := queue.read(min(waiting, READ_BATCH))).entries:
        if changes.whole_table:
            _reconcile(connection, plugin, loader, writer, wanted)
        writer.refresh(changes.object_ids)
        if len(writer.releases) > 1:
            forget_release(connection, plugin)
        queue.acknowledge(changes.entries)
        waiting -= len(changes.entries)
        report("Sync", writer.counts.read, writer.counts.read + waiting, "items", f"{writer.counts.embedded} embedded")
