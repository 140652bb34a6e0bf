"""Embedding of single writes: for the live collection, and for one that catches up from the change log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from estudio_core.errors import ItemError
from estudio_core.pipeline.items.parts import ItemParts, content_hash
from estudio_core.plugin.registry import open_plugin
from estudio_core.vectordb.change_log import EmbedWrites, ItemWrite
from estudio_core.vectordb.items import IndexedItem, KeptItem

if TYPE_CHECKING:
    from estudio_core.vectordb.releases import Release


@dataclass(frozen=True)
class _SplitWrite:
    write: ItemWrite
    text: str
    parts: list[str]
    content_hash: str


def embed_writes(plugin_name: str) -> EmbedWrites:
    """Return what embeds written items with the model of a release; unchanged content keeps its vectors."""

    def embed(release: Release, writes: Sequence[ItemWrite], stored: Mapping[str, str]) -> list[IndexedItem | KeptItem]:
        from estudio_core.inference.manifest import read_manifest
        from estudio_core.settings import get_settings

        digest = read_manifest(get_settings().triton_repository / release.model_name).digest
        split = _split(ItemParts(open_plugin(plugin_name)), writes, digest)
        fresh = [
            each
            for each in split
            # A personal row is no shared object with other contents: it is written as a whole.
            if each.write.user_id is not None or stored.get(each.write.object_id) != each.content_hash
        ]
        encoded = {item.object_id: item for item in _encoded(release.model_name, fresh)}
        return [encoded.get(each.write.object_id) or _kept(each) for each in split]

    return embed


def _split(parts_of: ItemParts, writes: Sequence[ItemWrite], digest: str) -> list[_SplitWrite]:
    from estudio_core.sources.data_loader import DownloadedItem
    from estudio_core.sources.item_meta import ItemMeta

    split, unusable = [], {}
    for write in writes:
        try:
            text, parts = parts_of.split(
                DownloadedItem(write.object_id, write.data, ItemMeta(object_id=write.object_id))
            )
        except ItemError as error:
            unusable[write.object_id] = str(error)
        else:
            split.append(_SplitWrite(write, text, parts, content_hash(digest, parts)))
    if unusable:
        raise ItemError("; ".join(unusable.values()), unusable)
    return split


def _encoded(model_name: str, split: Sequence[_SplitWrite]) -> list[IndexedItem]:
    from estudio_core.inference.opening import open_bulk_embedder

    if not split:
        return []
    vectors = open_bulk_embedder(model_name).embed_items([part for each in split for part in each.parts])
    items = []
    start = 0
    for each in split:
        end = start + len(each.parts)
        write = each.write
        items.append(
            IndexedItem(
                write.object_id,
                write.payload,
                each.content_hash,
                vectors[start:end],
                write.user_id,
                write.original_id,
                text=each.text,
                source_hash=write.source_hash,
            )
        )
        start = end
    return items


def _kept(split: _SplitWrite) -> KeptItem:
    write = split.write
    return KeptItem(write.object_id, write.payload or {}, split.content_hash, write.source_hash)
