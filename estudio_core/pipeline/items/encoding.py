"""From rows of the source to objects of a collection, nothing encoded twice.

Reading and splitting, tokenising, encoding, and what the caller does with the objects (COPY) go on side by side, each
in a thread of its own: the database, the tokenizer and the model all work outside of Python's lock.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from estudio_core.errors import ItemError
from estudio_core.pipeline.items.parts import ItemParts, content_hash
from estudio_core.vectordb.items import IndexedItem, source_hash

if TYPE_CHECKING:
    from estudio_core.inference.embedder import Embedder, TokenisedTexts, Vectors
    from estudio_core.pipeline.items.vector_store import ServedVectors, VectorStore
    from estudio_core.sources.data_loader import DownloadedItem, LoadResult

T = TypeVar("T")

ENCODE_BATCH = 1024
"""Items encoded in one call: enough to sort texts by length, little enough to overlap with reading."""


@dataclass(frozen=True)
class SplitItem:
    """An item, its text, its part texts, and the hash of what its vectors are computed from."""

    item: DownloadedItem
    text: str
    parts: list[str]
    content_hash: str

    def with_digest(self, digest: str) -> SplitItem:
        """Return the item with the hash it has for the model with this digest."""
        return SplitItem(self.item, self.text, self.parts, content_hash(digest, self.parts))


@dataclass
class Encoding:
    """What happened while items were encoded."""

    items: int = 0
    parts: int = 0
    reused: int = 0
    invalid: dict[str, str] = field(default_factory=dict)


def split_items(batches: Iterable[LoadResult], parts_of: ItemParts, digest: str, done: Encoding) -> Iterator[SplitItem]:
    """Yield the usable items of `batches` with their parts; note the others with the reason."""
    for batch in batches:
        done.invalid.update(batch.invalid)
        for item in batch.items:
            try:
                text, parts = parts_of.split(item)
            except ItemError as error:
                done.invalid[item.id] = str(error)
                continue
            yield SplitItem(item, text, parts, content_hash(digest, parts))


def encode_items(
    items: Iterable[SplitItem], embedder: Embedder, done: Encoding, known: VectorStore | ServedVectors | None = None
) -> Iterator[IndexedItem]:
    """Yield the items with their vectors, taking those that are known already from `known`."""
    read = prefetched(groups(items, ENCODE_BATCH))
    tokenised = prefetched(_tokenised(read, embedder, known))
    for group, vectors, reused in prefetched(_encoded(tokenised, embedder)):
        done.reused += reused
        for i, split in enumerate(group):
            done.items += 1
            done.parts += len(split.parts)
            payload = payload_of(split.item)
            yield IndexedItem(
                split.item.id,
                payload,
                split.content_hash,
                vectors[i],
                text=split.text,
                source_hash=source_hash(split.item.data, payload),
            )


@dataclass(frozen=True)
class _Tokenised:
    """A group of items: the vectors that are known, by place, and the parts of the others."""

    group: list[SplitItem]
    known: dict[int, Vectors]
    fresh: list[int]
    texts: TokenisedTexts


def _tokenised(
    read: Iterable[list[SplitItem]], embedder: Embedder, known: VectorStore | ServedVectors | None
) -> Iterator[_Tokenised]:
    for group in read:
        found: dict[int, Vectors] = {}
        if known is not None:
            found = known.find([(split.item.id, split.content_hash) for split in group])
        fresh = [i for i in range(len(group)) if i not in found]
        texts = embedder.tokenise_items([part for i in fresh for part in group[i].parts])
        yield _Tokenised(group, found, fresh, texts)


def _encoded(
    tokenised: Iterable[_Tokenised], embedder: Embedder
) -> Iterator[tuple[list[SplitItem], dict[int, Vectors], int]]:
    """Yield groups with the vectors of all their items, by place, and how many of these were known."""
    for each in tokenised:
        vectors = dict(each.known)
        if each.fresh:
            encoded = embedder.embed_tokenised(each.texts)
            start = 0
            for i in each.fresh:
                end = start + len(each.group[i].parts)
                vectors[i] = encoded[start:end]
                start = end
        yield each.group, vectors, len(each.known)


def payload_of(item: DownloadedItem) -> dict[str, Any]:
    """Return what is kept beside the vectors of an item."""
    return item.meta.payload or {}


def prefetched(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Yield `items`, which a thread produces up to `depth` ahead; its exception is raised here.

    >>> list(prefetched(range(3)))
    [0, 1, 2]
    """
    queue: Queue[tuple[bool, Any]] = Queue(maxsize=depth)
    stopped = False

    def produce() -> None:
        try:
            for item in items:
                queue.put((True, item))
                if stopped:
                    break
            queue.put((False, None))
        except BaseException as error:  # handed over to the consumer, which raises it
            queue.put((False, error))
        finally:
            if isinstance(items, Generator):  # one that reads from another thread ends that too
                items.close()

    thread = Thread(target=produce, name="estudio-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            more, value = queue.get()
            if more:
                yield value
            elif value is not None:
                raise value
            else:
                return
    finally:
        stopped = True
        while thread.is_alive():
            if not queue.empty():
                queue.get_nowait()
            thread.join(0.01)


def groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of up to `size` items.

    >>> list(groups("abc", 2))
    [['a', 'b'], ['c']]
    """
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group
