"""One shard of items: read, split, encoded and loaded, committed as it goes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from estudio_core import database
from estudio_core.errors import ReleaseError
from estudio_core.pipeline.items.encoding import EncodedItems
from estudio_core.pipeline.items.garbage import spare_what_is_loaded
from estudio_core.pipeline.items.parts import ItemParts
from estudio_core.pipeline.items.shard_load import SplitRows, chunks
from estudio_core.pipeline.items.vector_store import ServedVectors, VectorStore
from estudio_core.pipeline.manifests import LoadedShard, ShardManifest
from estudio_core.plugin.registry import open_plugin
from estudio_core.progress import report
from estudio_core.promotion.ledger import require_open_run
from estudio_core.streams import prefetched
from estudio_core.vectordb.cluster import settle_cluster
from estudio_core.vectordb.copying import CopyChunk, pack
from estudio_core.vectordb.loading import ShardMark, move_mark, take_mark
from estudio_core.vectordb.locks import build_lock
from estudio_core.vectordb.objects import IndexedObject
from estudio_core.vectordb.releases import Release, get_release

if TYPE_CHECKING:
    import psycopg

_REPORT_EACH = 256
READ_ITEMS = 1_000
"""Items of a batch of the source: behind each a chunk may end."""

CHECK_S = 2.0
"""Seconds after which a shard asks again whether its release is still wanted."""


def embed_shard(plugin_name: str, shard: dict[str, Any]) -> LoadedShard:
    """Load the items of one key range into the collection of a release that is being built.

    Chunks of some thousand items are committed, each with a mark of how far the shard has come. An attempt that was
    killed, or ran out of its time, is followed by one that goes on there; rows that it wrote behind its mark are
    replaced. A shard that came to its end and is run again is read anew. A release that is built already is left as it
    is. Vectors that evaluation computed, or that a collection of the same model holds for the same content, are taken
    from there.

    Raises:
        SupersededError: a later promotion has taken the place of the release's, also while items are embedded.
        ConcurrentReleaseError: another release of this plugin is being built, or this shard by another attempt.
        ReleaseError: there is no such release, or it has failed: the database was moved meanwhile, for example.
        RepositoryError, ModelError: the published model cannot be used.
    """
    wanted = ShardManifest.model_validate(shard)
    began = time.monotonic()
    mark = ShardMark(wanted.label, wanted.after, wanted.until)
    with database.connect(autocommit=True) as connection, build_lock(connection, plugin_name, shared=True):
        settle_cluster(connection)
        release = get_release(connection, wanted.release_id)
        require_open_run(connection, plugin_name, release.run_id)
        if release.state == "failed":
            raise ReleaseError(f"Release {release.release_id} has failed: {release.reason}. Start a new release run.")
        if release.state == "building":
            mark = take_mark(connection, release.collection, mark)
            mark = _load(connection, plugin_name, release, mark, wanted.count)
    return LoadedShard(
        release_id=wanted.release_id,
        label=wanted.label,
        items=mark.items,
        parts=mark.parts,
        reused=mark.reused,
        invalid=dict(mark.invalid),
        invalid_items=mark.invalid_items,
        seconds=round(time.monotonic() - began, 1),
    )


def _load(connection: psycopg.Connection, plugin_name: str, release: Release, mark: ShardMark, total: int) -> ShardMark:
    """Load what lies behind the mark; return the mark of the whole shard."""
    from estudio_core.inference.model_store import entry_of
    from estudio_core.inference.opening import open_bulk_embedder
    from estudio_core.sources.data_loader import KeyRange

    plugin = open_plugin(plugin_name)
    digest = entry_of(release.item_model_name).digest
    embedder = open_bulk_embedder(release.item_model_name)
    spare_what_is_loaded()
    behind = KeyRange(mark.after if mark.done is None else mark.done, mark.until, max(0, total - mark.items))
    rows = SplitRows(plugin.loader.iter_items(behind, READ_ITEMS), ItemParts(plugin))
    encoded = EncodedItems(rows, embedder, digest, ServedVectors(VectorStore.load(plugin_name, digest), release))
    items = _while_wanted(_reported(encoded, mark.items, total), release)
    empty = release.collection.is_empty(connection)
    made = chunks(encoded, items, rows, mark, release.index_info)
    for chunk, reached in prefetched(_packed(made, release, connection.info.encoding), ahead=1):
        with connection.transaction():
            mark = move_mark(connection, release.collection, replace(reached, step=mark.step))
            if chunk is not None:
                release.collection.copy_chunk(connection, chunk, empty=empty)
    return mark


def _packed(
    loaded: Iterable[tuple[list[IndexedObject], ShardMark]], release: Release, encoding: str
) -> Iterator[tuple[CopyChunk | None, ShardMark]]:
    for objects, mark in loaded:
        yield (pack(objects, release.index_info, encoding) if objects else None), mark


def _while_wanted(items: Iterator[IndexedObject], release: Release) -> Iterator[IndexedObject]:
    asked = time.monotonic()
    for item in items:
        if time.monotonic() - asked >= CHECK_S:
            with database.transaction() as connection:  # the one that copies is busy with that
                require_open_run(connection, release.plugin, release.run_id)
            asked = time.monotonic()
        yield item


def _reported(items: Iterable[IndexedObject], before: int, total: int) -> Iterator[IndexedObject]:
    count = before
    for count, item in enumerate(items, start=before + 1):
        if count % _REPORT_EACH == 0:
            report("Embed", count, total, "items")
        yield item
    report("Embed", count, count, "items")
