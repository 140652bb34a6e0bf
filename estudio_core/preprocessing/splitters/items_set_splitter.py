"""Splitting all texts of a set, where single ones may fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from estudio_core import progress
from estudio_core.errors import ItemError
from estudio_core.preprocessing.splitters.item_splitter import ItemSplitter

_REPORT_EVERY = 500


K = TypeVar("K")


@dataclass(frozen=True)
class SplitTexts(Generic[K]):
    """Parts by key (object id), and why the other keys have none."""

    parts: dict[K, tuple[str, ...]] = field(default_factory=dict)
    invalid: dict[K, str] = field(default_factory=dict)


class ItemsSetSplitter:
    """Applies an `ItemSplitter` to each text of a set.

    Args:
        item_splitter: Cuts one text into parts.
    """

    def __init__(self, item_splitter: ItemSplitter) -> None:
        self.item_splitter = item_splitter

    def __call__(self, texts: Mapping[K, str]) -> SplitTexts[K]:
        """Return the parts of each text; an item whose text cannot be split is reported and stops no other."""
        result: SplitTexts[K] = SplitTexts()
        for done, (key, text) in enumerate(texts.items(), start=1):
            try:
                parts = self.item_splitter(text)
                if not parts:
                    raise ItemError(f"{type(self.item_splitter).__name__} returned no part.")
                result.parts[key] = tuple(parts)
            except ItemError as error:
                result.invalid[key] = str(error)
            if done % _REPORT_EVERY == 0 or done == len(texts):
                progress.report("split", done, len(texts), "items")
        return result
