"""From loaded items to the texts that are embedded: preprocessing, splitting, augmentation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from estudio_core import progress
from estudio_core.clickstream.ranking_data import SPLITS, FineTuningInput, ItemsSet, Split
from estudio_core.clickstream.table_builder import table_of
from estudio_core.errors import ItemError
from estudio_core.preprocessing.augmentations import ItemsSetAugmentationApplier
from estudio_core.preprocessing.preprocessor import ItemPreprocessor
from estudio_core.preprocessing.splitters import ItemSplitter, ItemsSetSplitter, NoSplitter

if TYPE_CHECKING:
    from estudio_core.sources.data_loader import DownloadedItem

_REPORT_EVERY = 500


@dataclass(frozen=True)
class PreparedItems:
    """Text and parts by object id, and why the other ids have none."""

    texts: dict[str, str]
    parts: dict[str, tuple[str, ...]]
    invalid: dict[str, str]

    def update(self, others: PreparedItems) -> None:
        """Add further items.

        Raises:
            ItemError: an id stands on both sides.
        """
        twice = [key for key in (*others.texts, *others.invalid) if key in self.texts]
        if twice:
            raise _twice(twice)
        self.texts.update(others.texts)
        self.parts.update(others.parts)
        self.invalid.update(others.invalid)


class ItemSetManager:
    """Makes the set of items that a model is trained on.

    Args:
        preprocessor: Turns an item into text.
        items_set_splitter: Cuts texts into parts; None keeps them whole.
        augmenter: Makes variants of the texts of items that occur in training sessions.
        do_augment_test: Also of those that occur in dev and holdout sessions only.
    """

    def __init__(
        self,
        preprocessor: ItemPreprocessor,
        items_set_splitter: ItemsSetSplitter | None = None,
        augmenter: ItemsSetAugmentationApplier | None = None,
        do_augment_test: bool = False,
    ) -> None:
        self.preprocessor = preprocessor
        self.items_set_splitter = items_set_splitter or ItemsSetSplitter(NoSplitter())
        self.augmenter = augmenter
        self.do_augment_test = do_augment_test

    @property
    def item_splitter(self) -> ItemSplitter:
        """What cuts one text into parts, in training and in the index alike."""
        return self.items_set_splitter.item_splitter

    def prepare(self, items: Iterable[DownloadedItem]) -> PreparedItems:
        """Return texts and parts of `items`; those that cannot be used are reported and stop no other.

        Raises:
            ItemError: an id stands twice.
        """
        texts: dict[str, str] = {}
        invalid: dict[str, str] = {}
        twice = []
        for item in items:
            if item.id in texts or item.id in invalid:
                twice.append(item.id)
                continue
            try:
                texts[item.id] = self.preprocessor(item.data)
            except ItemError as error:
                invalid[item.id] = str(error)
        if twice:
            raise _twice(twice)
        split = self.items_set_splitter(texts)
        usable = {object_id: texts[object_id] for object_id in split.parts}
        return PreparedItems(usable, split.parts, invalid | split.invalid)

    def items_set(self, prepared: PreparedItems, splits: Mapping[Split, Sequence[FineTuningInput]]) -> ItemsSet:
        """Return parts and variants of the prepared items that occur in `splits`.

        Raises:
            ItemError: an item that occurs is not among them; names the ids.
        """
        occurring = {split: table_of(splits.get(split, ())).shown_ids() for split in SPLITS}
        every = dict.fromkeys(object_id for split in SPLITS for object_id in occurring[split])
        lacking = [object_id for object_id in every if object_id not in prepared.parts]
        if lacking:
            raise ItemError(
                f"{len(lacking)} items occur in sessions and have no text: {lacking[:10]}. "
                "Remove them from the sessions, or load them.",
                lacking,
            )
        augmented = every if self.do_augment_test else occurring["train"]
        variants = self._variants({object_id: prepared.texts[object_id] for object_id in augmented})
        return ItemsSet({object_id: prepared.parts[object_id] for object_id in every}, variants)

    def _variants(self, texts: Mapping[str, str]) -> dict[str, list[tuple[str, ...]]]:
        if self.augmenter is None:
            return {}
        made: dict[tuple[str, int], str] = {}
        for done, (object_id, text) in enumerate(texts.items(), start=1):
            for number, variant in enumerate(self.augmenter.variants(text)):
                made[object_id, number] = variant
            if done % _REPORT_EVERY == 0 or done == len(texts):
                progress.report("augment", done, len(texts), "items")
        result: dict[str, list[tuple[str, ...]]] = {}
        for (object_id, _), parts in self.items_set_splitter(made).parts.items():
            result.setdefault(object_id, []).append(parts)
        return result


def _twice(ids: list[str]) -> ItemError:
    return ItemError(f"{len(ids)} items have an id that another item has: {ids[:10]}. Choose a unique id column.", ids)
