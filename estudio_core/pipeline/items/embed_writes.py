"""Embedding of single writes: for the live collection, and for one that catches up from the change log."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from estudio_core import telemetry
from estudio_core.errors import ItemError
from estudio_core.pipeline.items.encoding import encode
from estudio_core.pipeline.items.parts import ItemParts, content_hash
from estudio_core.pipeline.items.recipe import ItemTexts
from estudio_core.vectordb.change_log import EmbedWrites, ItemWrite
from estudio_core.vectordb.objects import IndexedObject, KeptObject, check_object, check_title

if TYPE_CHECKING:
    from estudio_core.preprocessing.preprocessor import ItemPreprocessor
    from estudio_core.preprocessing.splitters import ItemSplitter
    from estudio_core.vectordb.releases import Release


def embed_writes(plugin_name: str) -> EmbedWrites:
    """Return what embeds written items with the model of a release; unchanged content keeps its vectors."""

    def embed(
        release: Release, writes: Sequence[ItemWrite], stored: Mapping[str, str]
    ) -> list[IndexedObject | KeptObject]:
        from estudio_core.inference.model_store import entry_of
        from estudio_core.inference.opening import open_bulk_embedder

        digest = entry_of(release.item_model_name).digest
        parts_of = _parts_of(plugin_name, release)
        split = list(parts_of.of_items(writes))
        if parts_of.invalid:
            raise ItemError("; ".join(parts_of.invalid.values()), parts_of.invalid)
        done: dict[str, IndexedObject | KeptObject] = {}
        fresh = []
        for each in split:
            item, content = each.item, content_hash(digest, each.parts)
            # A personal row is no shared object with other contents: it is written as a whole.
            if item.user_id is None and stored.get(item.object_id) == content:
                done[item.object_id] = KeptObject(item.object_id, item.payload or {}, content, item.source_hash)
            else:
                fresh.append(each)
        if fresh:
            embedder = open_bulk_embedder(release.item_model_name)
            attributes: dict[str, telemetry.Value] = {
                telemetry.MODEL: release.item_model_name,
                "estudio.items": len(fresh),
            }
            with telemetry.measured(telemetry.ENCODE_ITEMS, attributes):
                done |= {indexed.object_id: indexed for indexed in encode(fresh, embedder, digest)}
        unfit = {}
        for indexed in done.values():
            try:
                if isinstance(indexed, IndexedObject):
                    check_object(indexed, release.index_info)
                else:
                    check_title(indexed, release.index_info)
            except ItemError as error:
                unfit[indexed.object_id] = str(error)
        if unfit:
            raise ItemError("; ".join(unfit.values()), unfit)
        return [done[write.object_id] for write in writes]

    return embed


@lru_cache(maxsize=16)
def _told(item_texts: str, entry: Path) -> tuple[ItemPreprocessor, ItemSplitter]:
    """Return what the row of a release says, opened once: a tokenizer takes tens of milliseconds."""
    recipe = ItemTexts.model_validate_json(item_texts)
    return recipe.preprocessor, recipe.splitter(entry)


def _parts_of(plugin_name: str, release: Release) -> ItemParts:
    """Return what splits items as those of the release were: what it says itself, else what its plugin does."""
    if release.item_texts is not None:
        from estudio_core.inference.model_store import local_entry

        entry = local_entry(release.item_model_name)
        return ItemParts.of(*_told(json.dumps(release.item_texts), entry))
    from estudio_core.plugin.registry import open_plugin

    return ItemParts(open_plugin(plugin_name))
