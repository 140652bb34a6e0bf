"""How texts of different lengths become batches: sorted by length, padded little, put back in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from estudio_core.errors import DataError
from estudio_core.inference.embedder import TokenisedTexts, Vectors

TokenIds = NDArray[np.int64]

LEAST_FILL = 0.75
PADDING_SLACK = 8
"""A text shorter than this share of its batch, and shorter by more than these tokens, starts a batch of its own: one
more computation costs less than the padding."""


def length_sorted_batches(lengths: Sequence[int], *, max_rows: int, max_tokens: int) -> list[list[int]]:
    """Divide texts into batches of similar length, longest first.

    A batch also ends where the next text is so much shorter that it would be padding for the most part.

    Args:
        lengths: Tokens of each text.
        max_rows: Most texts in one batch.
        max_tokens: Most tokens in one batch, padding counted; a single longer text is a batch of its own.

    Returns:
        Indices into `lengths`, batch by batch; each index once.

    >>> length_sorted_batches([3, 9, 4, 8], max_rows=2, max_tokens=100)
    [[1, 3], [2, 0]]
    >>> length_sorted_batches([3, 9, 4, 8], max_rows=4, max_tokens=10)
    [[1], [3], [2, 0]]
    >>> length_sorted_batches([500, 10, 480], max_rows=4, max_tokens=10_000)
    [[0, 2], [1]]
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    longest = 0
    for index in order:
        full = not batches or len(batches[-1]) >= min(max_rows, max_tokens // max(1, longest))
        if full or lengths[index] + PADDING_SLACK < longest * LEAST_FILL:
            batches.append([])
            longest = lengths[index]
        batches[-1].append(index)
    return batches


def bucket_length(length: int, buckets: Sequence[int]) -> int:
    """Return the smallest of the ascending `buckets` that holds `length` tokens, or `length` where none does.

    >>> bucket_length(17, (16, 32, 64))
    32
    """
    return next((bucket for bucket in buckets if bucket >= length), length)


def padded(token_ids: Sequence[Sequence[int]], *, length: int, pad_id: int) -> tuple[TokenIds, TokenIds]:
    """Return input ids and attention mask, both int64 [texts, length].

    >>> ids, mask = padded([[5, 6], [7]], length=3, pad_id=0)
    >>> ids.tolist(), mask.tolist()
    ([[5, 6, 0], [7, 0, 0]], [[1, 1, 0], [1, 0, 0]])
    """
    input_ids = np.full((len(token_ids), length), pad_id, dtype=np.int64)
    attention_mask = np.zeros((len(token_ids), length), dtype=np.int64)
    for row, ids in enumerate(token_ids):
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
    return input_ids, attention_mask


def tokenise_texts(texts: Sequence[str], tokenise: Callable[[list[str]], list[list[int]]]) -> TokenisedTexts:
    """Return what `tokenise` gives for `texts`, each distinct text tokenised once.

    Raises:
        DataError: `texts` is one string, or holds something that is none.
    """
    if isinstance(texts, str):
        raise DataError(f"A list of texts is needed, got the single text {texts[:80]!r}. Write [text].")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"Only texts can be embedded; element {position} is {type(text).__name__}.")
    rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    return TokenisedTexts(tokenise(list(rows)) if rows else [], [rows[text] for text in texts])


class MapBatches(Protocol):
    """`map`, or that of a thread pool, which computes several batches at once."""

    def __call__(self, compute: Callable[[list[int]], Vectors], batches: Iterable[list[int]], /) -> Iterable[Vectors]:
        """Return what `compute` gives for each batch, in the order of `batches`."""
        ...


def embed_in_batches(
    texts: TokenisedTexts,
    *,
    compute: Callable[[list[list[int]]], Vectors],
    dimensions: int,
    max_rows: int,
    max_tokens: int,
    map_batches: MapBatches = map,
) -> Vectors:
    """Return the vectors of texts, float32 [texts, dimensions], in their order.

    Args:
        texts: Any number of texts.
        compute: Vectors of one batch of token ids, longest first.
        dimensions: Length of one vector.
        max_rows: Most texts in one batch.
        max_tokens: Most tokens in one batch, padding counted.
        map_batches: How `compute` is applied to the batches.
    """
    token_ids = texts.token_ids
    vectors = np.empty((len(token_ids), dimensions), dtype=np.float32)
    batches = length_sorted_batches([len(ids) for ids in token_ids], max_rows=max_rows, max_tokens=max_tokens)
    computed = map_batches(lambda batch: compute([token_ids[index] for index in batch]), batches)
    for batch, rows in zip(batches, computed, strict=True):
        vectors[batch] = rows
    return vectors if len(token_ids) == len(texts.rows) else vectors[texts.rows]
