"""Samples that are the same in every process and every run."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from estudio_core.pipeline.items.parts import ItemParts, SplitItem

if TYPE_CHECKING:
    from estudio_core.plugin.plugin import Plugin


def sampled_items(plugin: Plugin, needed: Collection[str], most: int) -> Iterator[SplitItem]:
    """Yield the items of the source: all of them, or of a large catalog those `needed` and a sample of about `most`."""
    loader = plugin.loader
    share = most / max(loader.total_count(), 1)
    for split in ItemParts(plugin).of_rows(loader.iter_items()):
        if split.item.object_id in needed or hash_share(split.item.object_id) < share:
            yield split


def hash_share(text: str) -> float:
    """Return a number from 0 to below 1 that depends on `text` alone and is as good as random.

    >>> hash_share("lamp"), hash_share("lamps")
    (0.6014300822280347, 0.7471768977120519)
    """
    return zlib.crc32(text.encode()) / 2**32
