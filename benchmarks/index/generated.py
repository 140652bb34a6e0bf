"""Releases of generated vectors of any number: clustered as those of texts are, built with the product's own steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from rich.console import Console

from estudio_core import database
from estudio_core.database import migrate
from estudio_core.demo.catalog import products
from estudio_core.errors import ReleaseError
from estudio_core.vectordb import locks, switching
from estudio_core.vectordb.index_build import build_index
from estudio_core.vectordb.index_info import SearchIndexInfo
from estudio_core.vectordb.objects import IndexedObject
from estudio_core.vectordb.releases import Release, live_release, mark_built, start_release
from estudio_core.vectordb.verification import verify_release

CLUSTERS, LATENT = 2_000, 48
"""Vectors of sentence models lie near a surface of some dozen dimensions, in clusters. Uniform ones, all equally far
from each other, would be a task that no search has."""
SPREAD = 0.8
"""Deviation from the middle of the cluster, by that of the middles."""
BATCH = 10_000
"""Items that are generated, and committed, together: a killed load goes on behind them."""
OWN_WORDS, OWN_SHARE = 12, 1 / 3
"""Words that the items of a cluster share, and their share of a text: what is near in meaning is near in words too."""

Vectors = NDArray[np.float32]
console = Console()


@dataclass(frozen=True)
class Surface:
    """Middles of the clusters [clusters, latent], and how the surface lies in space [latent, dimensions]."""

    middles: NDArray[np.float64]
    basis: NDArray[np.float64]

    def vectors(self, seed: Sequence[int], count: int) -> Vectors:
        """Return `count` vectors of length one, float32 [count, dimensions]."""
        rng = np.random.default_rng(seed)
        latent = self.middles[rng.integers(0, len(self.middles), count)]
        latent = latent + SPREAD * rng.standard_normal(latent.shape)
        found = latent @ self.basis + 0.05 * rng.standard_normal((count, self.basis.shape[1]))
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=2)
def surface(dimensions: int) -> Surface:
    """Return the surface that all generated vectors of a dimension lie near."""
    rng = np.random.default_rng(7)
    basis = rng.standard_normal((LATENT, dimensions)) / np.sqrt(LATENT)
    return Surface(rng.standard_normal((CLUSTERS, LATENT)), basis)


def stored_vectors(batch: int, dimensions: int, count: int = BATCH) -> Vectors:
    """Return the vectors of one batch of items."""
    return surface(dimensions).vectors((1, batch), count)


def query_vectors(count: int, dimensions: int, seed: int = 0) -> Vectors:
    """Return vectors to search for, none of which is stored."""
    return surface(dimensions).vectors((2, seed), count)


@lru_cache(maxsize=1)
def vocabulary() -> tuple[NDArray[np.str_], NDArray[np.float64]]:
    """Return the words of the demo's catalog, and how often each occurs there, as shares."""
    counts = Counter(word for row in products() for word in f"{row['title']} {row['short_description']}".split())
    return np.array(list(counts)), np.array(list(counts.values())) / counts.total()


@lru_cache(maxsize=1)
def own_words() -> NDArray[np.str_]:
    """Return the words that the items of each cluster share, [clusters, OWN_WORDS]."""
    words, shares = vocabulary()
    flat = np.sqrt(shares) / np.sqrt(shares).sum()
    return words[np.random.default_rng(4).choice(len(words), (CLUSTERS, OWN_WORDS), p=flat)]


def clusters(seed: Sequence[int], count: int) -> NDArray[np.int64]:
    """Return the cluster of each vector that `Surface.vectors` makes of the same arguments."""
    return np.random.default_rng(seed).integers(0, CLUSTERS, count)


def texts_of(members: NDArray[np.int64], lengths: NDArray[np.int64], seed: Sequence[int]) -> list[str]:
    """Return a text for each member of a cluster: words as often as a real catalog has them, a third the cluster's."""
    words, shares = vocabulary()
    rng = np.random.default_rng(seed)
    drawn = words[rng.choice(len(words), lengths.sum(), p=shares)]
    owned = rng.random(len(drawn)) < OWN_SHARE
    drawn[owned] = own_words()[np.repeat(members, lengths)[owned], rng.integers(0, OWN_WORDS, owned.sum())]
    return [" ".join(of_text) for of_text in np.split(drawn, np.cumsum(lengths)[:-1])]


def generated_texts(batch: int, count: int = BATCH) -> list[str]:
    """Return the texts of one batch of items: 8 to 60 words and a part number."""
    lengths = np.clip(np.random.default_rng((5, batch)).lognormal(3.1, 0.5, count), 8, 60).astype(np.int64)
    texts = texts_of(clusters((1, batch), count), lengths, (3, batch))
    return [f"{text} {chr(65 + row % 26)}{batch:03d}-{row:05d}" for row, text in enumerate(texts)]


def query_texts(count: int, seed: int = 0) -> list[str]:
    """Return queries of 1 to 8 words beside the vectors of `query_vectors`; one of ten is a part number."""
    rng = np.random.default_rng((6, seed))
    texts = texts_of(clusters((2, seed), count), rng.integers(1, 9, count), (7, seed))
    numbers = rng.random(count) < 0.1
    return [f"{chr(65 + i % 26)}000-{i:05d}" if numbers[i] else text for i, text in enumerate(texts)]


def generated_items(start: int, end: int, dimensions: int) -> Iterator[IndexedObject]:
    """Yield the items with numbers from `start`, a multiple of `BATCH`, to before `end`."""
    for first in range(start, end, BATCH):
        texts = generated_texts(first // BATCH)
        for row, vector in enumerate(stored_vectors(first // BATCH, dimensions)[: end - first]):
            number, text = first + row, texts[row]
            title, supplier = " ".join(text.split()[:6]), text.split()[6]
            payload = {"title": title, "supplier": supplier, "price_cents": number % 100_000}
            yield IndexedObject(str(number), payload, f"{number:032x}", vector[None, :], text=text)


def generated_release(size: int, dimensions: int = 384) -> Release:
    """Return the live release of `size` generated items, built now as far as it is not there yet."""
    plugin = f"generated_{size}"
    migrate()
    with database.connect(autocommit=True) as connection:
        live = live_release(connection, plugin)
        if live is None:
            release = start_release(
                connection, plugin, f"{plugin}_v1", "1", SearchIndexInfo(dimensions=dimensions), "benchmark"
            )
            with locks.build_lock(connection, plugin):
                live = _built(connection, release, size, dimensions)
    return live


def _built(connection: psycopg.Connection, release: Release, size: int, dimensions: int) -> Release:
    if release.state == "building":
        loaded = release.collection.stats(connection).objects
        for start in range(loaded // BATCH * BATCH, size, BATCH):
            release.collection.copy_objects(connection, generated_items(start, min(start + BATCH, size), dimensions))
            console.print(f"[dim]{min(start + BATCH, size):,} of {size:,} vectors loaded[/]", end="\r")
        console.print(f"[dim]{size:,} vectors loaded; building their index…[/]")
        notices = build_index(connection, release.collection)
        release = mark_built(connection, release, {"notices": notices})
    if release.state == "built":
        verify_release(connection, release, query_vectors(100, dimensions, seed=1), size)
    return switching.switch(connection, release, nothing_to_embed)


def nothing_to_embed(release: Release, writes: Any, stored: Any) -> list[IndexedObject]:
    """Refuse to embed: nobody writes to generated releases."""
    raise ReleaseError(f"Generated release {release.release_id} was written to.")


def true_distances(size: int, dimensions: int, queries: Vectors, k: int = 10) -> NDArray[np.float64]:
    """Return the cosine distance of the `k`-th nearest of all stored vectors to each query, by comparing all."""
    best = np.full((len(queries), k), np.inf)
    for first in range(0, size, BATCH):
        rows = stored_vectors(first // BATCH, dimensions)[: size - first]
        distances = 1 - queries.astype(np.float64) @ rows.astype(np.float64).T
        both = np.concatenate([best, distances], axis=1)
        best = np.sort(np.partition(both, k - 1, axis=1)[:, :k], axis=1)
    return best[:, k - 1]
