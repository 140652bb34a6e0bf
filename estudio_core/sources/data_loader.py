"""What every item source offers: items by id, all items in ranges of keys, counts."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from estudio_core.errors import ConfigurationError
from estudio_core.sources.item_meta import ItemMeta

if TYPE_CHECKING:
    from estudio_core.sources.change_queue import ChangeQueue

logger = logging.getLogger(__name__)

_IDS_IN_A_MESSAGE = 10


@dataclass(frozen=True)
class DownloadedItem:
    """One loaded item. `data` is what the loader makes of it: a text, or a dict of fields."""

    id: str
    data: Any
    meta: ItemMeta


@dataclass(frozen=True)
class LoadResult:
    """Usable items, ids that the source does not have, and ids of unusable items with the reason."""

    items: list[DownloadedItem] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    invalid: dict[str, str] = field(default_factory=dict)
    watermark: datetime | None = None
    """Latest change time among these rows; set by `iter_changed` only."""
    duplicates: dict[str, int] = field(default_factory=dict)
    """Ids that stand in several rows, with the number of rows left out: one of them is among `items` or `invalid`."""
    checkpoint: str | None = None
    """Key behind which `iter_items(KeyRange(after=…))` goes on after these rows, whenever; None: not from here."""


@dataclass(frozen=True)
class KeyRange:
    """Keys greater than `after` and up to and including `until`, in key order; None is no bound.

    `count` is about the number of rows it held when it was made. `dataclasses.asdict` gives its JSON form.
    """

    after: str | None = None
    until: str | None = None
    count: int = 0


class DataLoader(ABC):
    """A source of items. Constructing one opens no connection."""

    item_meta_cls: ClassVar[type[ItemMeta]] = ItemMeta
    tracks_changes: bool = False
    """Whether `iter_changed` works."""
    change_queue: ChangeQueue | None = None
    """Queue of changed ids that a trigger feeds, where there is one."""

    @property
    def fingerprint(self) -> str:
        """What is read: items loaded under another fingerprint may differ though nothing told of a change."""
        return type(self).__qualname__

    def unfed(self) -> list[str]:
        """Return the tables whose changes the queue does not get, though it is there for them."""
        return []

    @abstractmethod
    def find_items(self, metas: Sequence[ItemMeta]) -> LoadResult:
        """Load the items of `metas` in their order, each id once; of several rows of an id always the same one.

        Raises:
            SourceSchemaError: a table or column does not exist.
            UnavailableError: the source does not answer.
        """

    @abstractmethod
    def iter_items(self, key_range: KeyRange | None = None, batch_size: int = 1000) -> Iterator[LoadResult]:
        """Yield all items of a range (of the whole source by default) in key order.

        A row that changes meanwhile may come as it was before or after. No transaction on the source stays open while
        the caller works with what was yielded. Raises: as `find_items`.
        """

    def first_items(self, rows: int) -> LoadResult:
        """Return the items of about the first `rows` rows, to look at what there is. Raises: as `find_items`."""
        return next(self.iter_items(batch_size=rows), LoadResult())

    @abstractmethod
    def key_ranges(self, shards: int) -> list[KeyRange]:
        """Divide the keys into at most `shards` disjoint ranges of almost equal size that cover all keys.

        An empty source has none.
        """

    @abstractmethod
    def total_count(self) -> int:
        """Return the number of rows, or an estimate where counting takes too long: it tells how much there is to do."""

    @abstractmethod
    def check(self) -> None:
        """Find out cheaply whether the source can be used.

        Raises:
            SourceSchemaError: a table or column does not exist.
            UnavailableError: the source does not answer.
        """

    def iter_ids(self) -> Iterator[str]:
        """Yield the ids of all rows, those of unusable items included, in no certain order."""
        for batch in self.iter_items():
            yield from (item.id for item in batch.items)
            yield from batch.invalid

    def iter_changed(self, since: datetime, batch_size: int = 1000) -> Iterator[LoadResult]:
        """Yield the items changed after `since`, oldest change first.

        Raises:
            ConfigurationError: the loader knows no time of change.
        """
        raise ConfigurationError(
            f"{type(self).__name__} knows no time of change of its items (asked for {since.isoformat()}, "
            f"{batch_size} at a time). Compare all items with iter_items() instead."
        )

    def clock(self) -> datetime:
        """Return the time by the clock that times of change are from."""
        return datetime.now(UTC)

    def close(self) -> None:  # noqa: B027 (a loader that holds nothing has nothing to release)
        """Release connections. The loader can be used again afterwards."""

    def load_items(self, metas: Sequence[ItemMeta]) -> list[DownloadedItem]:
        """Return the usable items of `metas` in their order, each id once; log the ids of the others.

        Raises: as `find_items`.
        """
        found = self.find_items(metas)
        if found.missing:
            logger.warning("%d items are not in the source: %s", len(found.missing), shorten_ids(found.missing))
        if found.duplicates:
            reasons = [f"{item_id}: {duplicate_reason(rows)}" for item_id, rows in found.duplicates.items()]
            logger.warning("%d ids stand in several rows: %s", len(reasons), shorten_ids(reasons))
        if found.invalid:
            reasons = [f"{item_id}: {reason}" for item_id, reason in found.invalid.items()]
            logger.warning("%d items cannot be used: %s", len(reasons), shorten_ids(reasons))
        return found.items


def duplicate_reason(left_out: int) -> str:
    """Say what became of the rows of one id.

    >>> duplicate_reason(1)
    '2 rows have this id: one is used, the same at each reading, the others are left out'
    """
    return f"{left_out + 1} rows have this id: one is used, the same at each reading, the others are left out"


def shorten_ids(ids: Sequence[str]) -> str:
    """Return the first ten of `ids`, for a message.

    >>> shorten_ids(["a", "b"])
    "'a', 'b'"
    """
    shown = ", ".join(repr(item_id) for item_id in ids[:_IDS_IN_A_MESSAGE])
    rest = len(ids) - _IDS_IN_A_MESSAGE
    return f"{shown} and {rest} more" if rest > 0 else shown
