"""Rows of the item source, brought into the live collection and the change log: what is new, changed or gone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from estudio_core.errors import DataError, ItemError
from estudio_core.pipeline.items.embed_writes import embed_writes
from estudio_core.pipeline.items.parts import as_write
from estudio_core.sources.data_loader import duplicate_reason
from estudio_core.streams import batched
from estudio_core.vectordb.change_log import ItemWrite, WriteResult, write
from estudio_core.vectordb.releases import Release, require_live

if TYPE_CHECKING:
    from estudio_core.sources.data_loader import DataLoader, LoadResult

WRITE_BATCH = 128
"""Items of one transaction: some tenths of a second, which is what a switch may have to wait for."""
READ_BATCH = 1000
"""Items that are read by their ids at once."""
DELETE_BATCH = 256
"""Items that are deleted in one transaction, which holds a lock for nearly each."""


@dataclass
class WriteCounts:
    """What became of the rows that were looked at."""

    read: int = 0
    embedded: int = 0
    payload_only: int = 0
    unchanged: int = 0
    deleted: int = 0
    invalid: dict[str, str] = field(default_factory=dict)
    duplicates: dict[str, int] = field(default_factory=dict)
    """Rows left out because another one of their id is used, by id."""

    @property
    def left_out(self) -> dict[str, str]:
        """What was left out, by id, with the reason."""
        return self.invalid | {item_id: duplicate_reason(rows) for item_id, rows in self.duplicates.items()}

    @property
    def numbers(self) -> dict[str, int]:
        """The counts, as they are stored and reported."""
        return {
            "read": self.read,
            "embedded": self.embedded,
            "payload_only": self.payload_only,
            "unchanged": self.unchanged,
            "deleted": self.deleted,
            "invalid_items": len(self.invalid) + sum(self.duplicates.values()),
        }


class ItemWriter:
    """Writes rows of a plugin's source, each batch in one transaction that is acknowledged when it returns.

    Rows whose object comes from the same row already are left alone, so that repeating a batch costs a look. What an
    application wrote since a row was read stays: such an item is looked at again.

    Args:
        connection: Autocommit connection to Estudio's database.
        plugin: Name of the plugin.
        loader: The plugin's source.
    """

    def __init__(self, connection: psycopg.Connection, plugin: str, loader: DataLoader) -> None:
        self.counts = WriteCounts()
        self.releases: set[int] = set()
        """Releases whose collections rows were compared with, each by the one that its collection was built for."""
        self.going: dict[str, str] = {}
        """Live items that `bring` found gone or unusable, and why. It deletes none: whoever brings rows sees first how
        many they are, and then calls `refresh` with them."""
        self.most_deleted = math.inf
        """Deletions beyond which the next one is refused."""
        self._connection = connection
        self._plugin = plugin
        self._loader = loader
        self._embed = embed_writes(plugin)

    def live(self) -> Release:
        """Return the live release, to compare rows with it.

        Raises:
            NothingLiveError: the plugin has none.
        """
        live = require_live(self._connection, self._plugin)
        self.releases.add(live.built_by)
        return live

    def refresh(self, object_ids: Sequence[str]) -> None:
        """Bring these items as they are in the source now; those that it does not have, or unusable, are deleted.

        Raises:
            NothingLiveError: the plugin has no live release.
            DataError: more would be deleted than `most_deleted`.
        """
        for ids in batched(list(dict.fromkeys(object_ids)), READ_BATCH):
            self.counts.read += len(ids)
            self._settle(ids)

    def delete_orphans(self, originals: Sequence[str]) -> None:
        """Delete the personal rows that stand for objects which neither the source nor the collection has."""
        for ids in batched(originals, READ_BATCH):
            self._settle(ids, orphaned=True)

    def bring(self, rows: LoadResult) -> None:
        """Bring the items whose row in `rows` is new or changed, as they are in the source now; see also `going`.

        A row may be as old as the stream that it comes from: it only tells which items to read again.

        Raises: as `refresh`.
        """
        writes = _writes(rows)
        gone = [*rows.missing, *rows.invalid]
        known = self._source_hashes([*(item.object_id for item in writes), *gone])
        changed = [item.object_id for item in writes if not _is_known(item, known)]
        self.counts.read += len(writes) + len(gone)
        self.counts.unchanged += len(writes) - len(changed)
        self.counts.invalid.update(rows.invalid)
        self.counts.duplicates.update(rows.duplicates)
        self.going |= {each: rows.invalid.get(each, "it is not there") for each in gone if each in known}
        self._settle(changed, deleting=False)

    def _settle(self, object_ids: Sequence[str], *, orphaned: bool = False, deleting: bool = True) -> None:
        """Read items and write them, those again that somebody else wrote in between.

        What the source does not have is deleted where it was known, and where only personal rows of it are left;
        without `deleting`, what was known is noted in `going`.
        """
        from estudio_core.sources.item_meta import ItemMeta

        while object_ids:
            # The hashes before the rows: what is written after this look is not taken for what the source had then.
            known = self._source_hashes(object_ids)
            rows = self._loader.find_items([ItemMeta(object_id=object_id) for object_id in object_ids])
            self.counts.invalid.update(rows.invalid)
            self.counts.duplicates.update(rows.duplicates)
            writes = _writes(rows)
            changed = [item for item in writes if not _is_known(item, known)]
            self.counts.unchanged += len(writes) - len(changed)
            stale: list[str] = []
            for batch in batched(changed, WRITE_BATCH):
                stale += self._write(batch, [], known, deleting)
            gone = [each for each in (*rows.missing, *rows.invalid) if orphaned or each in known]
            if deleting:
                for ids in batched(gone, DELETE_BATCH):
                    stale += self._write([], ids, known, deleting)
            else:
                self.going |= {each: rows.invalid.get(each, "it is not there") for each in gone}
            object_ids = stale

    def _source_hashes(self, object_ids: Sequence[str]) -> dict[str, str | None]:
        with self._connection.transaction():
            return self.live().collection.source_hashes(self._connection, object_ids)

    def _write(
        self, items: Sequence[ItemWrite], deletes: Sequence[str], known: Mapping[str, str | None], deleting: bool
    ) -> tuple[str, ...]:
        """Write in one transaction what is still as `known`; return the ids of the rest.

        Items that cannot be used are not found any more afterwards; without `deleting`, they are noted in `going`.
        """
        usable = list(items)
        gone = list(deletes)
        while True:
            self._refuse_too_many(gone, known)
            try:
                result = write(self._connection, self._plugin, usable, gone, self._embed, known)
            except ItemError as error:
                bad = {item.object_id for item in usable} & set(error.item_ids)
                if not bad:
                    raise
                self.counts.invalid.update(dict.fromkeys(sorted(bad), str(error)))
                usable = [item for item in usable if item.object_id not in bad]
                if deleting:
                    gone += sorted(bad)
                else:
                    self.going |= {each: str(error) for each in sorted(bad) if each in known}
            else:
                self.counts.embedded += result.upserted - result.kept
                self.counts.payload_only += result.kept
                self.counts.deleted += result.deleted
                return result.stale

    def _refuse_too_many(self, gone: Sequence[str], known: Mapping[str, str | None]) -> None:
        deleted = self.counts.deleted + sum(each in known for each in gone)
        if deleted > self.most_deleted:
            unusable = next((f"; of {each!r}, {why}" for each, why in self.counts.invalid.items() if each in gone), "")
            raise DataError(
                f"{deleted} live items of plugin {self._plugin!r} would be deleted: they are not in its source any "
                f"more or cannot be used{unusable}. At most {self.most_deleted:g} may go in one sync. Check the table "
                "and the preprocessors. If they are right, sync again with a higher most_deleted_share."
            )


def write_items(
    connection: psycopg.Connection, plugin: str, items: Sequence[ItemWrite], deletes: Sequence[str]
) -> WriteResult:
    """Write items and delete others, batch by batch, each in one transaction that is acknowledged when it returns.

    Args:
        connection: Autocommit connection to Estudio's database.
        plugin: Name of the plugin.
        items: Items to write, each id once.
        deletes: Ids of objects to delete.

    Raises:
        NothingLiveError: the plugin has no live release.
        ItemError: an item cannot be embedded or stored; its batch was not written.
    """
    embed = embed_writes(plugin)
    live = require_live(connection, plugin)
    results = [write(connection, plugin, batch, [], embed) for batch in batched(items, WRITE_BATCH)]
    results += [write(connection, plugin, [], ids, embed) for ids in batched(deletes, DELETE_BATCH)]
    return WriteResult(
        results[-1].release_id if results else live.release_id,
        sum(result.upserted for result in results),
        sum(result.kept for result in results),
        sum(result.deleted for result in results),
    )


def _writes(rows: LoadResult) -> list[ItemWrite]:
    return [as_write(row) for row in rows.items]


def _is_known(item: ItemWrite, known: Mapping[str, str | None]) -> bool:
    stored = known.get(item.object_id)
    return stored is not None and stored == item.source_hash
