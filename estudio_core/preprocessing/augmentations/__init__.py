"""Variants of texts for training: other cases, typing errors, and what a plugin adds."""

from estudio_core.preprocessing.augmentations.appliers import (
    ClickstreamQueryAugmentationApplier,
    ItemsSetAugmentationApplier,
)
from estudio_core.preprocessing.augmentations.cases import ChangeCases
from estudio_core.preprocessing.augmentations.composition import AugmentationsComposition
from estudio_core.preprocessing.augmentations.misspellings import Misspellings
from estudio_core.preprocessing.augmentations.random_selection import AugmentationWithRandomSelection

__all__ = [
    "AugmentationWithRandomSelection",
    "AugmentationsComposition",
    "ChangeCases",
    "ClickstreamQueryAugmentationApplier",
    "ItemsSetAugmentationApplier",
    "Misspellings",
]
