"""Many short texts in two arrays: a `str` of 32 letters takes 81 bytes and a place in a list, here 40."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

_CHUNK = 100_000


class Texts(Sequence[str]):
    """Texts one after another, as UTF-8.

    >>> texts = Texts.of(["lamp", "", "Öl"])
    >>> list(texts), texts[2], texts.at(np.array([2, 0]))
    (['lamp', '', 'Öl'], 'Öl', ['Öl', 'lamp'])

    Args:
        data: uint8 [bytes].
        starts: int64 [texts + 1], where each begins, and the end of the last one.
    """

    __slots__ = ("data", "starts")

    def __init__(self, data: NDArray[np.uint8], starts: NDArray[np.int64]) -> None:
        self.data = data
        self.starts = starts

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Return the texts given; what cannot be encoded is kept as Python holds it."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        starts = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(one) for one in encoded], out=starts[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), starts)

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.starts) - 1

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        """Return a text, or a list of some."""
        if isinstance(row, slice):
            return self.at(np.arange(*row.indices(len(self))))
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        return self.data[self.starts[row] : self.starts[row + 1]].tobytes().decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        """Yield the texts in order."""
        for start in range(0, len(self), _CHUNK):
            yield from self.at(np.arange(start, min(start + _CHUNK, len(self))))

    def at(self, rows: NDArray[np.integer]) -> list[str]:
        """Return the texts of some rows."""
        if len(rows) == 0:
            return []
        starts, ends = self.starts[rows], self.starts[rows + 1]
        low = int(starts.min())
        if int(ends.max()) - low <= 2 * int((ends - starts).sum()) + _CHUNK:  # they lie close together
            data = self.data[low : int(ends.max())].tobytes()
            places = zip((starts - low).tolist(), (ends - low).tolist(), strict=True)
            return [data[start:end].decode("utf-8", "surrogatepass") for start, end in places]
        whole = memoryview(np.ascontiguousarray(self.data).data)
        places = zip(starts.tolist(), ends.tolist(), strict=True)
        return [str(whole[start:end], "utf-8", "surrogatepass") for start, end in places]
