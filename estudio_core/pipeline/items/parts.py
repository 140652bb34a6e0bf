"""How every step gets at its plugin, and at the part texts of an item."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from estudio_core.errors import ItemError
from estudio_core.plugin.contract import FineTuningMethod
from estudio_core.sources.data_loader import DownloadedItem
from estudio_core.vectordb.items import check_id, check_text


class ItemParts:
    """Turns a loaded item into the texts of its parts, with the plugin's own preprocessor and splitter."""

    def __init__(self, plugin: FineTuningMethod) -> None:
        self._preprocess = plugin.get_items_preprocessor()
        self._split = plugin.get_items_splitter()

    def __call__(self, item: DownloadedItem) -> list[str]:
        """Return the part texts of `item`.

        Raises:
            ItemError: it has no text.
        """
        return self.split(item)[1]

    def split(self, item: DownloadedItem) -> tuple[str, list[str]]:
        """Return the text of `item`, and the texts of its parts.

        Raises:
            ItemError: it has no text, or a text or an id that PostgreSQL cannot store.
        """
        check_id(item.id, "The id", item.id)
        text = self._preprocess(item.data)
        if not text.strip():
            raise ItemError(f"Item {item.id!r} has no text. Give it one, or leave it out of the table.", [item.id])
        check_text(text, "The text", item.id)
        return text, self._split(text)


def content_hash(model_digest: str, parts: Sequence[str]) -> str:
    """Return the hash of what vectors are computed from: the model and the part texts.

    >>> content_hash("m1", ["a"]) == content_hash("m1", ["a"]), content_hash("m1", ["a"]) == content_hash("m2", ["a"])
    (True, False)
    """
    digest = hashlib.blake2b(model_digest.encode(), digest_size=16)
    for part in parts:
        digest.update(b"\x1e" + part.encode())
    return digest.hexdigest()
