"""Between Arrow's columns, which files are read and written in, and those of a session table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.session_table import NOBODY, Codes, Floats, Ints, Vocabulary
from estudio_core.clickstream.texts import Texts

if TYPE_CHECKING:
    import pyarrow as pa


def numbered(names: Vocabulary, values: pa.Array) -> Codes:
    """Return the numbers of texts, negative where there is none; each distinct one is made a `str` once."""
    import pyarrow as pa

    found = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    codes = np.append(names.codes(found.dictionary.to_pylist()), np.int32(NOBODY))
    result: Codes = codes[found.indices.fill_null(len(codes) - 1).to_numpy(zero_copy_only=False)]
    return result


def texts_of(values: pa.Array) -> Texts:
    """Return texts without a null, their bytes taken as they are."""
    import pyarrow as pa

    _, starts, data = values.cast(pa.large_string()).buffers()
    if len(values) == 0 or starts is None:
        return Texts.of(values.to_pylist())
    found = np.frombuffer(starts, dtype=np.int64)[values.offset : values.offset + len(values) + 1]
    held = np.frombuffer(data or b"", dtype=np.uint8)[found[0] : found[-1]]
    return Texts(held.copy(), found - found[0])


def text_array(texts: Texts, rows: Ints) -> pa.Array:
    """Return some texts as Arrow has them."""
    import pyarrow as pa

    return pa.array(texts.at(rows), pa.string())


def named_array(names: Sequence[str], codes: Codes) -> pa.Array:
    """Return the names of numbers; null for negative ones."""
    import pyarrow as pa

    used, number = np.unique(codes, return_inverse=True)
    texts = pa.array([None if code < 0 else names[code] for code in used.tolist()], pa.string())
    return texts.take(pa.array(number))


def list_array(lengths: Ints, values: pa.Array) -> pa.Array:
    """Return lists of so many of the values each."""
    import pyarrow as pa

    starts = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=starts[1:])
    return pa.ListArray.from_arrays(pa.array(starts), values)


def lengths_of(lists: pa.Array) -> Ints:
    """Return how many values each list has; 0 for a null."""
    import pyarrow.compute as pc

    found: NDArray[Any] = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    return found.astype(np.int64)


def floats_of(values: pa.Array) -> Floats:
    """Return numbers; NaN for a null."""
    import pyarrow as pa

    found: NDArray[Any] = values.cast(pa.float64()).fill_null(float("nan")).to_numpy(zero_copy_only=False)
    return found.astype(np.float64)
