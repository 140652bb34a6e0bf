"""Several augmentations, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from estudio_core.preprocessing.augmentations.random_selection import AugmentationWithRandomSelection


class AugmentationsComposition(AugmentationWithRandomSelection):
    """Applies each augmentation to the text and to every variant that the ones before made of it.

    The number of variants multiplies: with 2 and 2 it is 8. `selection_size` bounds it.

    Args:
        augmentations: In order of application.
        selection_size: How many of all variants are kept, see the base class.
        seed: Of the choice; each augmentation has its own.
    """

    def __init__(
        self,
        augmentations: Sequence[AugmentationWithRandomSelection],
        selection_size: float = 1.0,
        seed: int = 42,
    ) -> None:
        super().__init__(selection_size, seed)
        self.augmentations = list(augmentations)

    def _raw_transform(self, object: str) -> list[str]:
        texts = [object]
        for augmentation in self.augmentations:
            texts += [variant for text in texts for variant in augmentation.transform(text)]
        return texts
