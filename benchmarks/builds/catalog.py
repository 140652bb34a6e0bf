"""A table of generated items, and their vectors, stored as an evaluation would leave them for a release."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
from rich.console import Console

from benchmarks.index.generated import BATCH, generated_texts, stored_vectors
from estudio_core import database
from estudio_core.database import migrate
from estudio_core.inference.manifest import EntryManifest, entry_name
from estudio_core.inference.model_store import entry_of
from estudio_core.pipeline.items.parts import content_hash
from estudio_core.pipeline.items.vector_store import VectorStore
from estudio_core.pipeline.publish_model import publish_model
from estudio_core.pipeline.register_base_model import register_base_model
from estudio_core.settings import get_settings
from estudio_core.vectordb.objects import IndexedObject

PLUGIN, TABLE = "bench_build", "generated"
BUCKETS = 1_000
"""Values of the field that searches filter by: one is 0.1 % of the items."""
FOLDER = Path(".estudio") / "bench-build"
console = Console()


def use_own_installation() -> None:
    """Point this process at the benchmark's installation; a database that the environment names is kept."""
    os.environ["ESTUDIO_HOME"] = str(FOLDER.resolve())
    os.environ["ESTUDIO_TRITON_REPOSITORY"] = str((FOLDER / "triton_repo").resolve())
    os.environ["ESTUDIO_PLUGINS_PATH"] = str(Path(__file__).parent / "plugins")
    os.environ.pop("ESTUDIO_MLFLOW_TRACKING_URI", None)
    os.environ.setdefault("ESTUDIO_SEARCH_TIMEOUT_S", "60")  # a first page from a cold disk is measured, not refused
    (FOLDER / "triton_repo").mkdir(parents=True, exist_ok=True)
    get_settings.cache_clear()


def prepare(items: int) -> EntryManifest:
    """Fill the table with `items` rows, store their vectors, register and publish the model; return its entry."""
    migrate()
    with database.connect(autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS generated (id bigint PRIMARY KEY, title text NOT NULL, bucket int NOT NULL)"
        )
        entry = _entry()
        row = connection.execute("SELECT count(*) FROM generated").fetchone()
        assert row is not None
        if row[0] == items:
            return entry
        connection.execute("TRUNCATE generated")
        VectorStore.save(PLUGIN, entry.digest, _stored(items, entry, connection))
        connection.execute("ANALYZE generated")
    return entry


def bucket(number: int) -> int:
    """Return the value of an item's field: every one as often, and near items in different ones."""
    return number * 7_919 % BUCKETS


def _entry() -> EntryManifest:
    version = register_base_model(PLUGIN, "initialize", "benchmark") if not _published() else "1"
    name = entry_name(PLUGIN, version)
    if not _published():
        publish_model(PLUGIN, version)
    return entry_of(name)


def _published() -> bool:
    return (get_settings().triton_repository / entry_name(PLUGIN, "1")).is_dir()


def _stored(items: int, entry: EntryManifest, connection: psycopg.Connection) -> Iterator[IndexedObject]:
    for first in range(0, items, BATCH):
        count = min(BATCH, items - first)
        texts = generated_texts(first // BATCH)[:count]
        vectors = stored_vectors(first // BATCH, entry.dimensions)[:count]
        with connection.cursor() as cursor, cursor.copy("COPY generated FROM STDIN") as copy:
            for row, text in enumerate(texts):
                copy.write_row((first + row, text, bucket(first + row)))
        console.print(f"[dim]{first + count:,} of {items:,} items generated[/]", end="\r")
        for text, vector in zip(texts, vectors, strict=True):
            yield IndexedObject("", {}, content_hash(entry.digest, [text]), np.asarray(vector)[None, :])
