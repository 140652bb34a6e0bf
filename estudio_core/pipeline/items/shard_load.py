"""The items of a shard on their way into a collection: in chunks, each with the mark that it is committed with."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from estudio_core.errors import ItemError
from estudio_core.pipeline.items.parts import ItemParts, SplitItem
from estudio_core.sources.data_loader import duplicate_reason
from estudio_core.vectordb.loading import ShardMark
from estudio_core.vectordb.objects import IndexedObject, check_object

if TYPE_CHECKING:
    from estudio_core.pipeline.items.encoding import EncodedItems
    from estudio_core.sources.data_loader import LoadResult
    from estudio_core.vectordb.index_info import SearchIndexInfo

CHUNK_ITEMS = 2_000
"""Objects of one transaction, about: 3 MB at one part and 384 dimensions, and half a second of encoding or more."""
_MOST_ITEMS = 4 * CHUNK_ITEMS
"""Objects after which a chunk ends where the source gives no place to go on from."""


@dataclass(frozen=True)
class _BatchEnd:
    """Behind a batch of rows: the items that were split so far, the key to go on from, and what was left out of it."""

    split: int
    checkpoint: str | None
    left_out: dict[str, str]
    rows_left_out: int


class SplitRows:
    """The usable items of a source's batches with their parts, to be gone through once.

    Attributes:
        ends: Ends of the batches whose items come next; whoever takes the items takes these away.
    """

    def __init__(self, batches: Iterable[LoadResult], parts_of: ItemParts) -> None:
        self.ends: deque[_BatchEnd] = deque()
        self._batches, self._parts_of = batches, parts_of

    def __iter__(self) -> Iterator[SplitItem]:
        """Iterate over the items; the end of their batch is known before the first of them."""
        count = 0
        for batch in self._batches:
            split = list(self._parts_of.of_rows([batch]))
            count += len(split)
            self.ends.append(_BatchEnd(count, batch.checkpoint, *self._parts_of.take_left_out()))
            yield from split


def chunks(
    encoded: EncodedItems, items: Iterable[IndexedObject], rows: SplitRows, mark: ShardMark, info: SearchIndexInfo
) -> Iterator[tuple[list[IndexedObject], ShardMark]]:
    """Yield objects that can be stored, each id once, with the mark of the shard behind them; the last is finished.

    A chunk ends with a batch of rows, where that has a place to go on from: what comes before the mark is all of the
    source up to its key. Objects of a longer chunk that ends elsewhere are loaded again where it was the last.

    Args:
        encoded: Counts whose vectors were known.
        items: What it gives.
        rows: The rows that they come from.
        mark: Where the shard begins.
        info: How vectors are stored.
    """
    now = mark  # with what was looked at, as far as the last object of the chunk
    safe = mark  # at the last end of a batch with a place to go on from
    reused = mark.reused
    chunk: list[IndexedObject] = []
    seen: set[str] = set()
    twice: dict[str, int] = {}
    for taken, item in enumerate(items, start=1):
        if item.object_id in seen:
            twice[item.object_id] = twice.get(item.object_id, 0) + 1
            now = now.and_left_out({item.object_id: duplicate_reason(twice[item.object_id])}, 1)
        else:
            seen.add(item.object_id)
            try:
                check_object(item, info)
            except ItemError as error:
                now = now.and_left_out({item.object_id: str(error)}, 1)
            else:
                now = replace(now, items=now.items + 1, parts=now.parts + len(item.vectors))
                chunk.append(item)
        while rows.ends and rows.ends[0].split <= taken:
            now, safe = _behind(rows.ends.popleft(), replace(now, reused=reused + encoded.reused), safe)
            if now is safe and len(chunk) >= CHUNK_ITEMS // 2:
                yield chunk, safe
                chunk = []
        if len(chunk) >= _MOST_ITEMS:
            yield chunk, safe
            chunk = []
    while rows.ends:  # batches without a usable item
        now, safe = _behind(rows.ends.popleft(), now, safe)
    yield chunk, replace(now, reused=reused + encoded.reused, finished=True)


def _behind(end: _BatchEnd, now: ShardMark, safe: ShardMark) -> tuple[ShardMark, ShardMark]:
    """Return the mark behind a batch, and the last one that a shard can go on from."""
    if end.left_out or end.rows_left_out:
        now = now.and_left_out(end.left_out, end.rows_left_out)
    if end.checkpoint is None:
        return now, safe
    now = replace(now, done=end.checkpoint)
    return now, now
