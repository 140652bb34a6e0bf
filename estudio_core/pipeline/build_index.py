"""A loaded collection gets its index."""

from __future__ import annotations

import time
from typing import Any

from estudio_core import database
from estudio_core.errors import DataError, VerificationError
from estudio_core.log_context import bind_release
from estudio_core.pipeline.manifests import BuiltManifest, LoadedShard
from estudio_core.plugin.registry import open_plugin
from estudio_core.promotion.ledger import require_open_run

MOST_INVALID_SHARE = 0.5
"""A build of which more items than this cannot be used is refused: the plugin reads the wrong column."""


def build_index(plugin_name: str, shards: list[dict[str, Any]]) -> BuiltManifest:
    """Index the loaded collection, apply the plugin's optimizations, and mark the release as built.

    Raises:
        SupersededError: a later promotion has taken the place of this run's.
        DataError: more than half of the items could not be used.
        VerificationError: the collection does not hold what the shards have loaded.
    """
    from estudio_core.vectordb.index_build import build_index as build
    from estudio_core.vectordb.locks import build_lock
    from estudio_core.vectordb.optimization import apply_optimizations
    from estudio_core.vectordb.releases import get_release, mark_built

    loaded = [LoadedShard.model_validate(shard) for shard in shards]
    began = time.monotonic()
    invalid = {item_id: reason for shard in loaded for item_id, reason in shard.invalid.items()}
    items = sum(shard.items for shard in loaded)
    invalid_items = sum(shard.invalid_items for shard in loaded)
    if invalid_items > MOST_INVALID_SHARE * (items + invalid_items):
        examples = "; ".join(f"{item_id}: {reason}" for item_id, reason in list(invalid.items())[:3])
        raise DataError(
            f"{invalid_items} of {items + invalid_items} items of plugin {plugin_name!r} cannot be used ({examples}). "
            "Check the text column of the plugin."
        )
    with database.connect(autocommit=True) as connection, build_lock(connection, plugin_name):
        bind_release(loaded[0].release_id)
        release = get_release(connection, loaded[0].release_id)
        require_open_run(connection, plugin_name, release.run_id)
        collection = release.collection
        stats = collection.stats(connection)
        # More is possible: a shard that was run again after an item of its range had been deleted.
        if release.state == "building" and stats.objects < items:
            raise VerificationError(
                f"Release {release.release_id} holds {stats.objects} objects; its shards have loaded {items}. "
                "Run the shards again."
            )
        notices = build(connection, collection)
        apply_optimizations(connection, collection, open_plugin(plugin_name).optimizations)
        stats = collection.stats(connection)
        if release.state == "building":
            mark_built(
                connection,
                release,
                {
                    "objects": stats.objects,
                    "parts": stats.parts,
                    "size_bytes": stats.size_bytes,
                    "invalid_items": invalid_items,
                    "notices": notices,
                },
            )
    return BuiltManifest(
        release_id=release.release_id,
        items=stats.objects,
        parts=stats.parts,
        invalid_items=invalid_items,
        seconds=round(time.monotonic() - began, 1),
    )
