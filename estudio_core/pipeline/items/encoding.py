"""From the parts of items to objects of a collection, nothing encoded twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from estudio_core.pipeline.items.parts import SplitItem, content_hash
from estudio_core.streams import batched, prefetched
from estudio_core.vectordb.objects import IndexedObject

if TYPE_CHECKING:
    from estudio_core.inference.embedder import Embedder, TokenisedTexts, Vectors
    from estudio_core.pipeline.items.vector_store import ServedVectors, VectorStore

ENCODE_BATCH = 1024
"""Items encoded in one call: enough to sort texts by length, little enough to overlap with reading."""


def encode(
    items: Sequence[SplitItem], embedder: Embedder, digest: str, known: VectorStore | ServedVectors | None = None
) -> list[IndexedObject]:
    """Return `items` with their vectors, in one call of the encoder.

    Args:
        items: Items with their parts.
        embedder: The model.
        digest: That of the model's entry, which the content hashes are made with.
        known: Vectors that need not be computed again.

    Raises:
        ModelError, InferenceUnavailableError: the model cannot compute.
    """
    batch = _tokenised(items, embedder, digest, known)
    return list(_indexed(batch, _vectors(batch, embedder)))


class EncodedItems:
    """A stream of items with their vectors, as `encode` gives them, to be gone through once.

    Reading and splitting, tokenising, encoding, and what the caller does with the objects (COPY) go on side by side,
    each in a thread of its own: the database, the tokenizer and the model all work outside of Python's lock.

    Attributes:
        reused: Items so far whose vectors were known.
    """

    def __init__(
        self, items: Iterable[SplitItem], embedder: Embedder, digest: str, known: VectorStore | ServedVectors | None
    ) -> None:
        self.reused = 0
        self._split, self._embedder, self._digest, self._known = items, embedder, digest, known

    def __iter__(self) -> Iterator[IndexedObject]:
        """Iterate over the items, in their order. Raises: as `encode`, and what `items` raises."""
        read = prefetched(batched(self._split, ENCODE_BATCH))
        tokenised = prefetched(_tokenised(items, self._embedder, self._digest, self._known) for items in read)
        for batch, vectors in prefetched((batch, _vectors(batch, self._embedder)) for batch in tokenised):
            for index, item in enumerate(_indexed(batch, vectors)):
                self.reused += index in batch.known
                yield item


@dataclass(frozen=True)
class _Tokenised:
    """A batch of items: their content hashes, the vectors that are known, by index, and the parts of the others."""

    items: Sequence[SplitItem]
    hashes: list[str]
    known: dict[int, Vectors]
    texts: TokenisedTexts


def _tokenised(
    items: Sequence[SplitItem], embedder: Embedder, digest: str, known: VectorStore | ServedVectors | None
) -> _Tokenised:
    hashes = [content_hash(digest, split.parts) for split in items]
    found: dict[int, Vectors] = {}
    if known is not None:
        ids = [split.item.object_id for split in items]
        found = known.find(list(zip(ids, hashes, strict=True)))
    fresh = [part for index, split in enumerate(items) if index not in found for part in split.parts]
    return _Tokenised(items, hashes, found, embedder.tokenise_items(fresh))


def _vectors(batch: _Tokenised, embedder: Embedder) -> list[Vectors]:
    """Return the part vectors [parts, dimensions] of each item of a batch."""
    if len(batch.known) == len(batch.items):
        return [batch.known[index] for index in range(len(batch.items))]
    encoded = embedder.embed_tokenised(batch.texts)
    vectors = []
    start = 0
    for index, split in enumerate(batch.items):
        if index in batch.known:
            vectors.append(batch.known[index])
        else:
            vectors.append(encoded[start : start + len(split.parts)])
            start += len(split.parts)
    return vectors


def _indexed(batch: _Tokenised, vectors: list[Vectors]) -> Iterator[IndexedObject]:
    for split, content, own in zip(batch.items, batch.hashes, vectors, strict=True):
        item = split.item
        yield IndexedObject(
            item.object_id,
            item.payload,
            content,
            own,
            item.user_id,
            item.original_id,
            text=split.text,
            source_hash=item.source_hash,
        )
