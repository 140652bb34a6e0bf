"""An item, and what a model sees of it: the texts of its parts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from estudio_core.errors import ItemError
from estudio_core.sources.data_loader import duplicate_reason
from estudio_core.vectordb.change_log import ItemWrite
from estudio_core.vectordb.objects import check_id, check_payload, check_text

if TYPE_CHECKING:
    from estudio_core.plugin.plugin import Plugin
    from estudio_core.sources.data_loader import DownloadedItem, LoadResult

_TITLE_WORDS, _TITLE_CHARACTERS = 14, 120


@dataclass(frozen=True)
class SplitItem:
    """An item as it is to be written, its text, and the texts of its parts."""

    item: ItemWrite
    text: str
    parts: list[str]

    @property
    def title(self) -> str:
        """What a report shows of the item: its title, else the beginning of its text."""
        payload = self.item.payload or {}
        title = payload.get("title") or payload.get("name") or " ".join(self.parts[0].split()[:_TITLE_WORDS])
        return str(title)[:_TITLE_CHARACTERS]


class ItemParts:
    """Splits items into parts, with the plugin's own preprocessor and splitter.

    Attributes:
        invalid: The items that could not be used so far, by id, with the reason.
        duplicates: The number of rows left out so far because another one of their id is used, by id.
    """

    def __init__(self, plugin: Plugin) -> None:
        self.invalid: dict[str, str] = {}
        self.duplicates: dict[str, int] = {}
        self._preprocess: Callable[[Any], str] = plugin.item_texts.preprocessor
        self._split: Callable[[str], list[str]] = plugin.item_texts.item_splitter

    @classmethod
    def of(cls, preprocess: Callable[[Any], str], split: Callable[[str], list[str]]) -> ItemParts:
        """Return what makes the text of an item, and parts of a text, by these functions."""
        parts = cls.__new__(cls)
        parts.invalid, parts.duplicates = {}, {}
        parts._preprocess, parts._split = preprocess, split
        return parts

    def of_rows(self, batches: Iterable[LoadResult]) -> Iterator[SplitItem]:
        """Yield the usable items of the source's `batches`; note the others in `invalid`."""
        for batch in batches:
            self.invalid.update(batch.invalid)
            self.duplicates.update(batch.duplicates)
            yield from self.of_items(as_write(row) for row in batch.items)

    def of_items(self, items: Iterable[ItemWrite]) -> Iterator[SplitItem]:
        """Yield the usable ones of `items`; note the others in `invalid`."""
        for item in items:
            try:
                split = self.split(item)
            except ItemError as error:
                self.invalid[item.object_id] = str(error)
            else:
                yield split

    def take_left_out(self) -> tuple[dict[str, str], int]:
        """Return what was left out so far, by id with the reason, and the number of rows; forget it."""
        taken = self.left_out, self.rows_left_out
        self.invalid, self.duplicates = {}, {}
        return taken

    @property
    def left_out(self) -> dict[str, str]:
        """What was left out so far, by id, with the reason."""
        return self.invalid | {item_id: duplicate_reason(rows) for item_id, rows in self.duplicates.items()}

    @property
    def rows_left_out(self) -> int:
        """Number of rows that were left out so far."""
        return len(self.invalid) + sum(self.duplicates.values())

    def split(self, item: ItemWrite) -> SplitItem:
        """Return `item` with its parts.

        Raises:
            ItemError: it has no text, or a text, an id or a payload that PostgreSQL cannot store.
        """
        check_id(item.object_id, "The id", item.object_id)
        check_payload(item.payload, item.object_id)
        try:
            text = self._preprocess(item.data)
        except RecursionError as error:
            raise ItemError(f"The data of item {item.object_id!r} is nested too deeply.", [item.object_id]) from error
        if not text.strip():
            raise ItemError(
                f"Item {item.object_id!r} has no text. Give it one, or leave it out of the table.", [item.object_id]
            )
        check_text(text, "The text", item.object_id)
        return SplitItem(item, text, self._split(text))


def as_write(row: DownloadedItem) -> ItemWrite:
    """Return a row of the source as what is written of it; the payload is what is kept beside the vectors."""
    return ItemWrite(row.id, row.data, row.meta.payload or {})


def content_hash(model_digest: str, parts: Sequence[str]) -> str:
    """Return the hash of what vectors are computed from: the model and the part texts.

    >>> content_hash("m1", ["a"]), content_hash("m2", ["a"]) == content_hash("m1", ["a"])
    ('0dce77983ef79964edb409b05339b7ad', False)
    """
    digest = hashlib.blake2b(model_digest.encode(), digest_size=16)
    for part in parts:
        digest.update(b"\x1e" + part.encode())
    return digest.hexdigest()
