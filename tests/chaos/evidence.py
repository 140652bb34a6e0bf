"""Reads what is left at the end: collections, pointer, model repository, registry."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from estudio_core import database
from estudio_core.errors import RepositoryError
from estudio_core.export.triton_repository import read_entry
from estudio_core.inference import staging
from estudio_core.inference.onnx_embedder import OnnxEmbedder
from estudio_core.plugin.registry import open_plugin
from estudio_core.settings import get_settings
from estudio_core.vectordb.collection import register_vectors
from estudio_core.vectordb.releases import Release, list_releases, require_live
from tests.chaos.shop import PLUGIN, Shop
from tests.chaos.verdict import Stored, Violation


class ReferenceModels:
    """The models, read from the repository that no fault reaches; every text is encoded once."""

    def __init__(self, shop: Shop) -> None:
        self._embedder = cache(lambda version: OnnxEmbedder(shop.reference / f"{PLUGIN}_v{version}"))
        self._known: dict[tuple[str, str], NDArray[np.float32]] = {}

    def vectors(self, version: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return normalised vectors [texts, dimensions]; queries and items have no prefix here."""
        new = list(dict.fromkeys(text for text in texts if (version, text) not in self._known))
        for text, vector in zip(new, self._embedder(version).embed_items(new), strict=True):
            self._known[version, text] = vector
        return np.stack([self._known[version, text] for text in texts])

    def similarities(self, version: str, query: str, texts: Sequence[str]) -> list[float]:
        """Return the cosines of a query to texts."""
        query_vector, *others = self.vectors(version, [query, *texts])
        return [float(query_vector @ other) for other in others]


def live_content(models: ReferenceModels) -> list[Stored]:
    """Return all objects of the live collection."""
    with database.connect(autocommit=True) as connection:
        register_vectors(connection)
        release = require_live(connection, PLUGIN)
        rows = connection.execute(
            # No join that a lost part or a second copy could hide behind.
            sql.SQL(
                "SELECT o.object_id, count(DISTINCT o.ctid), min(o.payload->>'title'), count(p.part),"
                " (array_agg(p.embedding ORDER BY p.part))[1]"
                " FROM {} o LEFT JOIN {} p ON p.object_id = o.object_id AND NOT p.is_average GROUP BY o.object_id"
            ).format(release.collection.objects, release.collection.parts)
        ).fetchall()
    expected = models.vectors(release.model_version, [row[2] for row in rows])
    return [
        Stored(object_id, copies, text, parts, _cosine(vector, own))
        for (object_id, copies, text, parts, vector), own in zip(rows, expected, strict=True)
    ]


def _cosine(stored: object, own: NDArray[np.float32]) -> float:
    if stored is None:
        return -1.0
    vector = np.asarray(stored.to_numpy() if hasattr(stored, "to_numpy") else stored, dtype=np.float32)
    return float(vector @ own / np.linalg.norm(vector))


def releases() -> list[Release]:
    """Return all releases."""
    with database.connect(autocommit=True) as connection:
        return list_releases(connection, PLUGIN)


def check_state() -> list[Violation]:
    """Check pointer, tables, repository and registry against the list of releases."""
    with database.connect(autocommit=True) as connection:
        known = list_releases(connection, PLUGIN)
        found = [*_pointer(connection, known), *_tables(connection, known)]
    kept = [release for release in known if release.state in {"live", "previous"}]
    found += _repository({release.model_name for release in kept})
    [live] = [release for release in known if release.state == "live"]
    champion = open_plugin(PLUGIN).experiments.aliases().get("champion")
    if str(champion) != live.model_version:
        found.append(f"The alias champion names version {champion}; version {live.model_version} serves.")
    return [Violation("state", None, text) for text in found]


def _pointer(connection: psycopg.Connection, known: list[Release]) -> list[str]:
    row = connection.execute(
        "SELECT release_id, previous_release_id FROM estudio.pointers WHERE plugin = %s", (PLUGIN,)
    ).fetchone()
    states = {release.release_id: release.state for release in known}
    named = None if row is None else (states.get(row[0]), states.get(row[1]))
    found = [] if named == ("live", "previous") else [f"The pointer {row} names releases that are {named}."]
    undecided = {i: state for i, state in states.items() if state in {"building", "built", "verified", "failed"}}
    return [*found, *([f"Releases are left over: {undecided}."] if undecided else [])]


def _tables(connection: psycopg.Connection, known: list[Release]) -> list[str]:
    rows = connection.execute(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'estudio' AND c.relkind = 'r' AND c.relname LIKE 'c\\_%'"
    )
    wanted = {
        release.collection.name(suffix)
        for release in known
        if release.state in {"live", "previous"}
        for suffix in ("objects", "parts", "words", "terms")
    }
    tables = {row[0] for row in rows}
    return [] if tables == wanted else [f"Tables {sorted(tables)}; the releases kept have {sorted(wanted)}."]


def _repository(wanted: set[str]) -> list[str]:
    repository = get_settings().triton_repository
    found = []
    names = {path.name for path in repository.iterdir() if path.name != ".work"}
    if names != wanted:
        found.append(f"The model repository has {sorted(names)}; the releases kept use {sorted(wanted)}.")
    for name in sorted(names):
        try:
            read_entry(repository, name)
        except RepositoryError as error:
            found.append(str(error))
    left = [path.name for path in staging.work_folder(repository).iterdir() if path.suffix != ".lock"]
    return [*found, *([f"Unfinished entries are left over: {left}."] if left else [])]
