"""One shard of items: read, split, encoded and loaded, as one transaction."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from estudio_core import database
from estudio_core.errors import ItemError
from estudio_core.pipeline.items.encoding import EncodedItems
from estudio_core.pipeline.items.garbage import spare_what_is_loaded
from estudio_core.pipeline.items.parts import ItemParts
from estudio_core.pipeline.items.vector_store import ServedVectors, VectorStore
from estudio_core.pipeline.manifests import LoadedShard, ShardManifest
from estudio_core.plugin.registry import open_plugin
from estudio_core.progress import report
from estudio_core.promotion.ledger import require_open_run
from estudio_core.vectordb.locks import build_lock
from estudio_core.vectordb.objects import IndexedObject, check_object
from estudio_core.vectordb.releases import Release, get_release

_REPORT_EACH = 256
_LISTED_INVALID = 200

CHECK_S = 2.0
"""Seconds after which a shard asks again whether its release is still wanted."""


def embed_shard(plugin_name: str, shard: dict[str, Any]) -> LoadedShard:
    """Load the items of one key range into the collection of a release that is being built.

    All or nothing: a killed attempt leaves no row, and a rerun replaces what a finished one wrote. A release that is
    built already is left as it is. Vectors that evaluation computed, or that a collection of the same model holds for
    the same content, are taken from there.

    Raises:
        SupersededError: a later promotion has taken the place of the release's, also while items are embedded.
        ReleaseError: there is no such release, or another one of this plugin is being built.
        RepositoryError, ModelError: the published model cannot be used.
    """
    from estudio_core.inference.manifest import entry_of
    from estudio_core.inference.opening import open_bulk_embedder
    from estudio_core.sources.data_loader import KeyRange

    wanted = ShardManifest.model_validate(shard)
    began = time.monotonic()
    plugin = open_plugin(plugin_name)
    items = parts = reused = 0
    parts_of = ItemParts(plugin)
    with database.connect(autocommit=True) as connection, build_lock(connection, plugin_name, shared=True):
        release = get_release(connection, wanted.release_id)
        require_open_run(connection, plugin_name, release.run_id)
        if release.state == "building":
            digest = entry_of(release.item_model_name).digest
            batches = plugin.loader.iter_items(KeyRange(wanted.after, wanted.until, wanted.count))
            embedder = open_bulk_embedder(release.item_model_name)
            spare_what_is_loaded()
            known = ServedVectors(VectorStore.load(plugin_name, digest), release)
            encoded = EncodedItems(parts_of.of_rows(batches), embedder, digest, known)
            usable = _usable(encoded, release, parts_of)
            release.collection.copy_objects(connection, _while_wanted(_reported(usable, wanted.count), release))
            items, parts, reused = encoded.items, encoded.parts, encoded.reused
    return LoadedShard(
        release_id=wanted.release_id,
        label=wanted.label,
        items=items,
        parts=parts,
        reused=reused,
        invalid=dict(list(parts_of.invalid.items())[:_LISTED_INVALID]),
        invalid_items=len(parts_of.invalid),
        seconds=round(time.monotonic() - began, 1),
    )


def _usable(items: EncodedItems, release: Release, parts_of: ItemParts) -> Iterator[IndexedObject]:
    """Leave out, and note, what cannot be stored."""
    for item in items:
        try:
            check_object(item, release.index_info)
        except ItemError as error:
            parts_of.invalid[item.object_id] = str(error)
            items.items -= 1
            items.parts -= len(item.vectors)
        else:
            yield item


def _while_wanted(items: Iterator[IndexedObject], release: Release) -> Iterator[IndexedObject]:
    asked = time.monotonic()
    for item in items:
        if time.monotonic() - asked >= CHECK_S:
            with database.transaction() as connection:  # the one that copies is busy with that
                require_open_run(connection, release.plugin, release.run_id)
            asked = time.monotonic()
        yield item


def _reported(items: Iterable[IndexedObject], total: int) -> Iterator[IndexedObject]:
    count = 0
    for count, item in enumerate(items, start=1):
        if count % _REPORT_EACH == 0:
            report("Embed", count, total, "items")
        yield item
    report("Embed", count, count, "items")
