"""Vectors that were computed once already, by the hash of what they were computed from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estudio_core.artifacts import ArtifactStore

if TYPE_CHECKING:
    import psycopg

    from estudio_core.inference.embedder import Vectors
    from estudio_core.vectordb.collection import Collection
    from estudio_core.vectordb.objects import IndexedObject
    from estudio_core.vectordb.releases import Release

_STEP = "vectors"
_VECTORS, _HASHES, _STARTS, _COUNTS = "vectors.f32", "hashes.npy", "starts.npy", "counts.npy"
"""Files: the part vectors of all items below each other, and, in the order of their content hashes, where those of each
begin and how many they are. They are mapped into memory and not read: shards look up some of many."""


class VectorStore:
    """Part vectors [parts, dimensions] by content hash, as evaluation computed them for a release to use again."""

    def __init__(self, vectors: Mapping[str, Vectors]) -> None:
        self._vectors = vectors

    def find(self, items: Sequence[tuple[str, str]]) -> dict[int, Vectors]:
        """Return the vectors that are known, by index in `items`, which are pairs of object id and content hash."""
        return {
            index: vectors
            for index, (_, content_hash) in enumerate(items)
            if (vectors := self._vectors.get(content_hash)) is not None
        }

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._vectors)

    def __iter__(self) -> Iterator[tuple[str, Vectors]]:
        """Iterate over content hashes and part vectors."""
        return iter(self._vectors.items())

    @classmethod
    def save(cls, plugin: str, digest: str, items: Iterable[IndexedObject]) -> None:
        """Store the vectors of `items` for the model with this digest."""
        import numpy as np

        hashes: list[str] = []
        counts: list[int] = []
        with ArtifactStore().publish(plugin, _run(digest), _STEP) as folder:
            with (folder / _VECTORS).open("wb") as file:
                for item in items:
                    hashes.append(item.content_hash)
                    counts.append(len(item.vectors))
                    file.write(np.ascontiguousarray(item.vectors, np.float32).data)
            sorted_hashes, first = np.unique(np.array(hashes, "S32"), return_index=True)
            of_item = np.array(counts, np.int64)
            np.save(folder / _HASHES, sorted_hashes)
            np.save(folder / _STARTS, (np.cumsum(of_item) - of_item)[first])
            np.save(folder / _COUNTS, of_item[first])

    @classmethod
    def from_live_collection(cls, plugin: str, digest: str) -> VectorStore:
        """Return the vectors that serve now, where they come from the model with this digest; else nothing."""
        from estudio_core import database
        from estudio_core.inference.model_store import entry_of
        from estudio_core.vectordb.collection import Collection, register_vectors
        from estudio_core.vectordb.releases import live_release

        with database.transaction() as connection:
            release = live_release(connection, plugin)
            if release is None or entry_of(release.item_model_name).digest != digest:
                return cls({})
            register_vectors(connection)
            return cls(_stored_vectors(connection, Collection(release.collection_id, release.index_info)))

    @classmethod
    def load(cls, plugin: str, digest: str) -> VectorStore:
        """Return what is stored for the model with this digest; empty where nothing is. It takes no memory."""
        store = ArtifactStore()
        uri = store.uri(plugin, _run(digest), _STEP)
        if not store.exists(uri):
            return cls({})
        with store.fetch(uri) as folder:
            if not (folder / _HASHES).exists():  # of the version before
                return cls({})
            return cls(_MappedVectors(folder))


class _MappedVectors(Mapping[str, "Vectors"]):
    """What `VectorStore.save` has written into a folder; it may be deleted as soon as this was made."""

    def __init__(self, folder: Path) -> None:
        import numpy as np

        self._hashes, self._starts, self._counts = (
            np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (_HASHES, _STARTS, _COUNTS)
        )
        parts = int((self._starts + self._counts).max(initial=0))
        size = (folder / _VECTORS).stat().st_size // 4
        shape = (parts, size // parts) if parts else (0, 0)
        empty: Vectors = np.empty(shape, np.float32)
        self._vectors = np.memmap(folder / _VECTORS, np.float32, "r", shape=shape) if parts else empty

    def __getitem__(self, content_hash: str) -> Vectors:
        wanted = content_hash.encode()
        place = int(self._hashes.searchsorted(wanted))
        if place == len(self._hashes) or self._hashes[place] != wanted:
            raise KeyError(content_hash)
        start = int(self._starts[place])
        vectors: Vectors = self._vectors[start : start + int(self._counts[place])]
        return vectors

    def __len__(self) -> int:
        return len(self._hashes)

    def __iter__(self) -> Iterator[str]:
        return (str(each, "ascii") for each in self._hashes)


class ServedVectors:
    """Part vectors of collections that serve, or would after a rollback, from the model of a release being built.

    What `improve` has moved is left out: a release starts from what the model gives. So are vectors in half precision,
    where the release stores whole ones.

    Args:
        stored: Vectors that are known besides, and go first.
        release: The release that is being built.
    """

    def __init__(self, stored: VectorStore, release: Release) -> None:
        from estudio_core import database
        from estudio_core.vectordb.releases import list_releases

        self._stored = stored
        with database.connection() as connection:
            served = [
                other
                for other in list_releases(connection, release.plugin)
                if other.state in ("live", "challenger", "previous")
                and other.item_model_name == release.item_model_name
                and other.index_info.number_bytes >= release.index_info.number_bytes
            ]
        self._releases = list({other.collection_id: other for other in served}.values())

    def find(self, items: Sequence[tuple[str, str]]) -> dict[int, Vectors]:
        """Return the vectors that are known, by index in `items`, which are pairs of object id and content hash."""
        found = self._stored.find(items)
        for release in self._releases:
            places = {items[i][0]: i for i in range(len(items)) if i not in found}
            for object_id, content_hash, vectors in _unmoved(release, list(places)):
                if content_hash == items[places[object_id]][1]:
                    found[places[object_id]] = vectors
        return found


def _unmoved(release: Release, object_ids: list[str]) -> list[tuple[str, str, Vectors]]:
    """Return id, content hash and vectors of these objects, as far as the collection holds what the model gave."""
    import psycopg

    from estudio_core import database
    from estudio_core.vectordb.search import find_by_ids

    try:
        with database.connection() as connection:
            rows = connection.execute(
                "SELECT stored_id FROM estudio.improved_objects WHERE release_id = %s AND stored_id = ANY(%s)",
                (release.built_by, object_ids),
            )
            moved = {row[0] for row in rows}
            unmoved = [object_id for object_id in object_ids if object_id not in moved]
            stored = find_by_ids(connection, release.collection, unmoved, with_vectors=True)
    except psycopg.errors.UndefinedTable:
        return []  # it has been cleaned up meanwhile
    return [(each.object_id, each.content_hash, each.vectors) for each in stored if each.vectors is not None]


def _stored_vectors(connection: psycopg.Connection, collection: Collection) -> dict[str, Vectors]:
    import numpy as np
    from psycopg import sql

    statement = sql.SQL(
        "SELECT o.object_id, o.content_hash, p.embedding FROM {} o JOIN {} p USING (object_id) "
        "WHERE o.user_id IS NULL AND NOT p.is_average ORDER BY o.object_id, p.part"
    ).format(collection.objects, collection.parts)
    found: dict[str, Vectors] = {}
    with connection.cursor(name="estudio_live_vectors") as cursor:
        for (_, content_hash), rows in groupby(cursor.execute(statement), key=itemgetter(0, 1)):
            if content_hash not in found:  # objects of the same text have the same vectors
                found[content_hash] = np.stack([_as_array(embedding) for _, _, embedding in rows])
    return found


def _as_array(embedding: Any) -> Vectors:
    import numpy as np

    values = embedding.to_numpy() if hasattr(embedding, "to_numpy") else embedding
    return np.asarray(values, dtype=np.float32)


def _run(digest: str) -> str:
    return f"model-{digest[:24]}"
