"""Where augmentations are applied: to the items of a set, and to the queries of sessions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from estudio_core.clickstream.ranking_data import FineTuningInput
from estudio_core.preprocessing.augmentations.random_selection import AugmentationWithRandomSelection


class ItemsSetAugmentationApplier:
    """Makes variants of item texts.

    Args:
        augmentation: Makes variants of one text.
    """

    def __init__(self, augmentation: AugmentationWithRandomSelection) -> None:
        self.augmentation = augmentation

    def variants(self, text: str) -> list[str]:
        """Return variants of `text`: all different, never the text itself."""
        return self.augmentation.transform(text)


class ClickstreamQueryAugmentationApplier:
    """Gives the queries of sessions variants, such as typing errors.

    Args:
        augmentation: Makes variants of one query.
    """

    def __init__(self, augmentation: AugmentationWithRandomSelection) -> None:
        self.augmentation = augmentation

    def apply(self, inputs: Iterable[FineTuningInput]) -> list[FineTuningInput]:
        """Return the sessions with `query_variants` filled; a query has the same ones in all of its sessions."""
        by_query: dict[str, tuple[str, ...]] = {}
        augmented = []
        for session in inputs:
            if session.query not in by_query:
                by_query[session.query] = tuple(self.augmentation.transform(session.query))
            augmented.append(replace(session, query_variants=by_query[session.query]))
        return augmented
