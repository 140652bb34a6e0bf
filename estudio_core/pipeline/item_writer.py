"""Rows of the item source, brought into the live collection and the change log: what is new, changed or gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from estudio_core.errors import ItemError
from estudio_core.pipeline.embed_writes import embed_writes
from estudio_core.pipeline.item_vectors import groups, payload_of
from estudio_core.vectordb.change_log import ItemWrite, write
from estudio_core.vectordb.releases import Release, require_live

if TYPE_CHECKING:
    from estudio_core.sources.data_loader import DataLoader, LoadResult

WRITE_BATCH = 128
"""Items of one transaction: some tenths of a second, which is what a switch may have to wait for."""
READ_BATCH = 1000
"""Items that are read by their ids at once."""


@dataclass
class WriteCounts:
    """What became of the rows that were looked at."""

    read: int = 0
    embedded: int = 0
    payload_only: int = 0
    unchanged: int = 0
    deleted: int = 0
    invalid: dict[str, str] = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, int]:
        """The counts, as they are stored and reported."""
        return {
            "read": self.read,
            "embedded": self.embedded,
            "payload_only": self.payload_only,
            "unchanged": self.unchanged,
            "deleted": self.deleted,
            "invalid_items": len(self.invalid),
        }


class ItemWriter:
    """Writes rows of a plugin's source, each batch in one transaction that is acknowledged when it returns.

    Rows whose object comes from the same row already are left alone, so that repeating a batch costs a look.

    Args:
        connection: Autocommit connection to Estudio's database.
        plugin: Name of the plugin.
    """

    def __init__(self, connection: psycopg.Connection, plugin: str) -> None:
        self.counts = WriteCounts()
        self.releases: set[int] = set()
        """Releases that rows were compared with."""
        self._connection = connection
        self._plugin = plugin
        self._embed = embed_writes(plugin)

    def live(self) -> Release:
        """Return the live release, to compare rows with it.

        Raises:
            NothingLiveError: the plugin has none.
        """
        live = require_live(self._connection, self._plugin)
        self.releases.add(live.release_id)
        return live

    def refresh(self, loader: DataLoader, object_ids: Sequence[str]) -> None:
        """Bring these items as they are in the source now; those that it does not have are deleted."""
        from estudio_core.sources.item_meta import ItemMeta

        for ids in groups(object_ids, READ_BATCH):
            self.bring(loader.find_items([ItemMeta(object_id=object_id) for object_id in ids]))

    def bring(self, rows: LoadResult) -> None:
        """Write what is new or changed among `rows`; delete what is missing or cannot be used any more.

        Raises:
            NothingLiveError: the plugin has no live release.
        """
        writes = [ItemWrite(item.id, item.data, payload_of(item)) for item in rows.items]
        gone = [*rows.missing, *rows.invalid]
        with self._connection.transaction():
            known = self.live().collection.source_hashes(
                self._connection, [*(item.object_id for item in writes), *gone]
            )
        self.counts.read += len(writes) + len(gone)
        self.counts.invalid.update(rows.invalid)
        changed = [item for item in writes if not _is_known(item, known)]
        self.counts.unchanged += len(writes) - len(changed)
        for batch in groups(changed, WRITE_BATCH):
            self.upsert(batch)
        for ids in groups([object_id for object_id in gone if object_id in known], READ_BATCH):
            self.delete(ids)

    def upsert(self, items: Sequence[ItemWrite]) -> None:
        """Write items in one transaction, but those that cannot be used, which are not found any more afterwards."""
        usable = list(items)
        refused: list[str] = []
        while True:
            try:
                result = write(self._connection, self._plugin, usable, refused, self._embed)
            except ItemError as error:
                bad = {item.object_id for item in usable} & set(error.item_ids)
                if not bad:
                    raise
                self.counts.invalid.update(dict.fromkeys(sorted(bad), str(error)))
                usable = [item for item in usable if item.object_id not in bad]
                refused += sorted(bad)
            else:
                self.counts.embedded += result.upserted - result.kept
                self.counts.payload_only += result.kept
                self.counts.deleted += result.deleted
                return

    def delete(self, object_ids: Sequence[str]) -> None:
        """Delete objects in one transaction."""
        self.counts.deleted += write(self._connection, self._plugin, [], object_ids, self._embed).deleted


def _is_known(item: ItemWrite, known: Mapping[str, str | None]) -> bool:
    stored = known.get(item.object_id)
    return stored is not None and stored == item.source_hash
