"""A new collection beside the live one, empty, and the items that it is to hold in shards; or the live one itself."""

from __future__ import annotations

from typing import Any

from estudio_core import database
from estudio_core.errors import DataError
from estudio_core.log_context import bind_release
from estudio_core.pipeline.manifests import PublishedManifest, ShardManifest
from estudio_core.plugin.registry import open_plugin
from estudio_core.promotion.ledger import require_open_run


def start_collection(plugin_name: str, entry: dict[str, Any], shards: int, run_id: str) -> list[ShardManifest]:
    """Open the release of this run and divide the items of the source; a rerun returns the same release.

    No shard is returned, and none is to be built, where the live collection holds what the version's model makes of
    items, compared as the plugin says, and queries get another model: then the release takes it as it is. A version
    that is live already gets a new collection, however its queries are encoded.

    Raises:
        SupersededError: a later promotion has taken the place of this run's.
        ConcurrentReleaseError: another release of this plugin is being built.
        DataError: the source has no items.
    """
    from estudio_core.vectordb.releases import ItemModel, live_release, start_release

    published = PublishedManifest.model_validate(entry)
    plugin = open_plugin(plugin_name)
    with database.connect(autocommit=True) as connection:
        database.require_schema(connection)
        require_open_run(connection, plugin_name, run_id)
        items = ItemModel(published.item_name or published.name, published.item_version or published.version)
        live = live_release(connection, plugin_name)
        fits = live is not None and (live.item_model_name, live.index_info) == (items.name, plugin.index)
        release = start_release(
            connection,
            plugin_name,
            published.name,
            published.version,
            plugin.index,
            run_id,
            ranking=published.ranking,
            items=items,
            over=live if fits and live is not None and live.model_name != published.name else None,
        )
    bind_release(release.release_id)
    if release.built_by != release.release_id:
        return []
    ranges = plugin.loader.key_ranges(shards)
    if not ranges:
        raise DataError(f"The item source of plugin {plugin_name!r} has no rows. Fill the table, then run this again.")
    return [
        ShardManifest(
            label=f"{number} of {len(ranges)}",
            release_id=release.release_id,
            after=keys.after,
            until=keys.until,
            count=keys.count,
        )
        for number, keys in enumerate(ranges, start=1)
    ]
