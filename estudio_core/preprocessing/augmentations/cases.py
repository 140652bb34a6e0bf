"""Text in other cases."""

from __future__ import annotations

from estudio_core.preprocessing.augmentations.random_selection import AugmentationWithRandomSelection


class ChangeCases(AugmentationWithRandomSelection):
    """The text in lower and in upper case. Makes no difference to an uncased tokenizer.

    >>> ChangeCases().transform("USB charger")
    ['usb charger', 'USB CHARGER']
    """

    def _raw_transform(self, object: str) -> list[str]:
        return [object.lower(), object.upper()]
