"""What every splitter of item texts is."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import ClassVar


class ItemSplitter(ABC):
    """Cuts the text of an item into the parts that are embedded.

    The same splitter has to serve training and the index; `fingerprint` tells whether two are the same.
    """

    keeps_text: ClassVar[bool] = False
    """Whether the parts are always slices of the text, in order, with nothing but whitespace between them. A subclass
    that changes texts has to say False again."""

    @abstractmethod
    def __call__(self, text: str) -> list[str]:
        """Return the parts of `text`, in order, none of them empty.

        Raises:
            ItemError: there is nothing to embed in `text`.
        """

    def fingerprint(self) -> str:
        """Return a short text that is equal for splitters that cut equally, in every process.

        Covers the class and its settings (`_settings`).
        """
        described = f"{type(self).__module__}.{type(self).__qualname__}\x1f{self._settings()!r}"
        return hashlib.sha256(described.encode()).hexdigest()[:16]

    def _settings(self) -> tuple[object, ...]:
        """Return everything that the result of a call depends on, apart from the text."""
        return tuple(sorted((k, v) for k, v in vars(self).items() if isinstance(v, str | int | float | bool | None)))
