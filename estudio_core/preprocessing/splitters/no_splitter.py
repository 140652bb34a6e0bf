"""Items that stay whole."""

from __future__ import annotations

from estudio_core.errors import ItemError
from estudio_core.preprocessing.splitters.item_splitter import ItemSplitter


class NoSplitter(ItemSplitter):
    """One part per item: its whole text. What exceeds the model's limit is cut by the model.

    >>> NoSplitter()(" A lamp. ")
    ['A lamp.']
    """

    def __call__(self, text: str) -> list[str]:
        """Return `[text]`."""
        stripped = text.strip()
        if not stripped:
            raise ItemError("The text is empty. Fill the column, or leave the row out of the source.")
        return [stripped]
