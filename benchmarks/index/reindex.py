"""A whole re-index with the steps of the DAG: how fast, and which stage is busy for how long."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

from benchmarks.index.timing import CpuClock, Stages
from estudio_core import database
from estudio_core.inference.entry_tokenizer import EntryTokenizer
from estudio_core.inference.manifest import EntryManifest
from estudio_core.inference.opening import open_bulk_embedder
from estudio_core.pipeline import embed_shard as embed
from estudio_core.pipeline.build_index import build_index
from estudio_core.pipeline.items.embed_writes import embed_writes
from estudio_core.pipeline.items.parts import ItemParts
from estudio_core.pipeline.items.vector_store import VectorStore
from estudio_core.pipeline.manifests import BuiltManifest, PublishedManifest
from estudio_core.pipeline.start_collection import start_collection
from estudio_core.pipeline.verify import verify
from estudio_core.plugin.registry import open_plugin
from estudio_core.settings import get_settings
from estudio_core.vectordb import collection as collections
from estudio_core.vectordb import releases, switching
from estudio_core.vectordb.objects import IndexedObject
from estudio_core.vectordb.releases import Release, live_release


def part_texts(plugin: str) -> tuple[list[str], list[str]]:
    """Return the part texts of all items, and the id of the item of each."""
    opened = open_plugin(plugin)
    texts, owners = [], []
    for split in ItemParts(opened).of_rows(opened.loader.iter_items()):
        texts += split.parts
        owners += [split.item.object_id] * len(split.parts)
    return texts, owners


def measure_reindex(plugin: str, entry: EntryManifest, run_id: str) -> dict[str, Any]:
    """Build a release of `plugin`, as its DAG does in one shard, between two halves of an encoding of the same texts.

    Returns:
        Items/s of the whole, of the load alone and of the encoder alone; busy seconds of each stage; the release.
    """
    texts, owners = part_texts(plugin)
    embedder = open_bulk_embedder(entry.name)
    embedder.embed_items(texts[:32])
    middle = len(texts) // 2
    encoder_s = _encode(embedder, texts[:middle])
    stages = Stages()
    with database.connect(autocommit=True) as connection:
        clock = CpuClock(connection.info.backend_pid if is_local(connection) else None)
        used = clock.seconds()
        began = time.perf_counter()
        shards = start_collection(plugin, _step_manifest(entry), 1, run_id)
        with (
            nothing_known(),
            stages.watching(
                (type(open_plugin(plugin).loader), "iter_items", "reading"),
                (ItemParts, "split", "splitting"),
                (EntryTokenizer, "items", "tokenising"),
                (type(embedder), "embed_tokenised", "encoding"),
                (collections, "send", "COPY"),
            ),
        ):
            loaded = [embed.embed_shard(plugin, shard.as_dict()) for shard in shards]
        load_s = time.perf_counter() - began
        built = build_index(plugin, [shard.as_dict() for shard in loaded])
        total_s = time.perf_counter() - began
        cpu_s = clock.seconds() - used
    encoder_s += _encode(embedder, texts[middle:])
    items = len(set(owners))
    reused = sum(shard.reused for shard in loaded)
    if reused:
        raise RuntimeError(f"{reused} items were not encoded, because their vectors were known.")
    return {
        "items": items,
        "parts": len(texts),
        "release_id": built.release_id,
        "items_per_s": items / total_s,
        "load_items_per_s": items / load_s,
        "encoder_items_per_s": items / encoder_s,
        "seconds": total_s,
        "cpu_seconds": cpu_s,
        "database_cpu_counted": clock.sees_database,
        "stage_seconds": {**stages.seconds, "index build": total_s - load_s},
    }


def make_live(plugin: str, built: BuiltManifest) -> dict[str, Any]:
    """Verify a built release and let it serve; return recall and breadth."""
    verified = verify(plugin, built.as_dict())
    with database.connect(autocommit=True) as connection:
        switching.switch(connection, releases.get_release(connection, verified.release_id), embed_writes(plugin))
    return {"recall_at_10": verified.recall_at_10, "ef_search": verified.ef_search}


def ensure_live(plugin: str, entry: EntryManifest) -> Release:
    """Return the live release, built now where none serves."""
    with database.connect(autocommit=True) as connection:
        live = live_release(connection, plugin)
    if live is None:
        make_live(plugin, build(plugin, entry, "first"))
        with database.connect(autocommit=True) as connection:
            live = live_release(connection, plugin)
    assert live is not None
    return live


def build(plugin: str, entry: EntryManifest, run_id: str) -> BuiltManifest:
    """Build a release, with stored vectors where there are any."""
    loaded = [
        embed.embed_shard(plugin, shard.as_dict())
        for shard in start_collection(plugin, _step_manifest(entry), 1, run_id)
    ]
    return build_index(plugin, [shard.as_dict() for shard in loaded])


@contextmanager
def nothing_known() -> Iterator[None]:
    """Have everything encoded inside the block, though releases of an earlier measurement hold the vectors."""
    with mock.patch.object(embed, "ServedVectors", lambda stored, release: stored):
        yield


@contextmanager
def vectors_kept(plugin: str, entry: EntryManifest) -> Iterator[None]:
    """Have the vectors of the live collection stored inside the block, so that builds in it encode nothing."""
    known = VectorStore.from_live_collection(plugin, entry.digest)
    VectorStore.save(plugin, entry.digest, (IndexedObject(key, {}, key, vectors) for key, vectors in known))
    try:
        yield
    finally:
        for stored in (get_settings().home / "artifacts" / plugin).glob("model-*"):
            shutil.rmtree(stored)


def _encode(embedder: Any, texts: Sequence[str]) -> float:
    """Return the seconds in which the texts are encoded, in groups of the size of a re-index."""
    from estudio_core.pipeline.items.encoding import ENCODE_BATCH

    began = time.perf_counter()
    for start in range(0, len(texts), ENCODE_BATCH):
        embedder.embed_items(texts[start : start + ENCODE_BATCH])
    return time.perf_counter() - began


def _step_manifest(entry: EntryManifest) -> dict[str, Any]:
    return PublishedManifest(
        name=entry.name, version=entry.version, digest=entry.digest, dimensions=entry.dimensions
    ).as_dict()


def is_local(connection: Any) -> bool:
    """Return whether the server of a connection runs on this machine."""
    return str(connection.info.host).startswith("/") or connection.info.host in {"localhost", "127.0.0.1", "::1"}
