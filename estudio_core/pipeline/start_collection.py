"""A new collection beside the live one, empty, and the items that it is to hold in shards; or the live one itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from estudio_core import database
from estudio_core.errors import DataError, ReleaseError
from estudio_core.lexical.settings import Fusion
from estudio_core.log_context import bind_release
from estudio_core.pipeline.manifests import PublishedManifest, ShardManifest
from estudio_core.plugin.registry import open_plugin
from estudio_core.promotion.ledger import require_open_run

if TYPE_CHECKING:
    from estudio_core.plugin.plugin import Plugin


MOST_SHARDS = 1_000
"""Mapped tasks that Airflow makes of one list, unless its configuration allows more than 1,024."""


def start_collection(
    plugin_name: str,
    entry: dict[str, Any],
    shards: int,
    run_id: str,
    shard_items: int | None = None,
    words_weight: float | None = None,
) -> list[ShardManifest]:
    """Open the release of this run and divide the items of the source; a rerun returns the same release.

    There are `shards` shards, and more where one would have more than `shard_items` items.

    No shard is returned, and none is to be built, where the live collection holds what the version's model makes of
    items, compared as the plugin says, and queries get another model, or words another weight: then the release takes
    it as it is. A version that is live already, with the same weight, gets a new collection, however its queries are
    encoded.

    Args:
        plugin_name: The plugin.
        entry: What `publish_model` returned.
        shards: Pieces.
        run_id: Names the release.
        shard_items: Most items of a shard.
        words_weight: Of BM25 beside similarity (`Fusion.weight`); None: what the version was trained for.

    Raises:
        SupersededError: a later promotion has taken the place of this run's.
        ConcurrentReleaseError: another release of this plugin is being built.
        DataError: the source has no items.
        ReleaseError: `words_weight` is that of the live release already, or the plugin's index has no words.
    """
    from estudio_core.vectordb.releases import ItemModel, live_release, start_release

    published = PublishedManifest.model_validate(entry)
    plugin = open_plugin(plugin_name)
    ranking = published.ranking if words_weight is None else Fusion(weight=words_weight)
    if words_weight is not None and plugin.index.lexical is None:
        raise ReleaseError(f"The index of {plugin_name!r} has no words, so that there is nothing to weigh.")
    with database.connect(autocommit=True) as connection:
        database.require_schema(connection)
        require_open_run(connection, plugin_name, run_id)
        items = ItemModel(published.item_name or published.name, published.item_version or published.version)
        live = live_release(connection, plugin_name)
        fits = live is not None and (live.item_model_name, live.index_info) == (items.name, plugin.index)
        same = live is not None and live.model_name == published.name
        weighed = words_weight is not None and live is not None and live.ranking != ranking
        if words_weight is not None and same and not weighed and live is not None and live.run_id != run_id:
            raise ReleaseError(
                f"Release {live.release_id} of {plugin_name!r} is live with this version and the weight "
                f"{words_weight:g} already. Choose another weight, or another version."
            )
        release = start_release(
            connection,
            plugin_name,
            published.name,
            published.version,
            plugin.index,
            run_id,
            ranking=ranking,
            items=items,
            item_texts=_item_texts(plugin, items.name),
            over=live if fits and (weighed or not same) else None,
        )
    bind_release(release.release_id)
    if release.built_by != release.release_id:
        return []
    if shard_items is not None:
        shards = min(MOST_SHARDS, max(shards, -(-plugin.loader.total_count() // shard_items)))
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


def _item_texts(plugin: Plugin, item_model: str) -> dict[str, Any] | None:
    """Return how items become texts, as data, where the plugin's parts are Estudio's own."""
    from estudio_core.inference.model_store import local_entry
    from estudio_core.pipeline.items.recipe import ItemTexts

    recipe = ItemTexts.of(plugin.item_texts, local_entry(item_model))
    return None if recipe is None else recipe.model_dump(mode="json")
