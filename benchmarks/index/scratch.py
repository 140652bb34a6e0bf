"""The benchmark's own installation, kept under `.estudio/`, so that a long benchmark goes on where it was stopped."""

from __future__ import annotations

import os
from pathlib import Path

from estudio_core import database
from estudio_core.database import migrate
from estudio_core.demo.catalog import load_catalog, load_judgments, products
from estudio_core.inference.manifest import EntryManifest, entry_name
from estudio_core.inference.model_store import entry_of
from estudio_core.pipeline.publish_model import publish_model
from estudio_core.pipeline.register_base_model import register_base_model
from estudio_core.settings import get_settings

PLUGIN = "bench_index"
PLUGINS = Path(__file__).parent / "plugins"
FOLDER = Path(".estudio") / "bench-index"


def use_scratch_installation() -> None:
    """Point this process at the benchmark's installation; a database that the environment names is kept."""
    os.environ["ESTUDIO_HOME"] = str(FOLDER.resolve())
    os.environ["ESTUDIO_TRITON_REPOSITORY"] = str((FOLDER / "triton_repo").resolve())
    os.environ["ESTUDIO_PLUGINS_PATH"] = str(PLUGINS)
    os.environ.pop("ESTUDIO_MLFLOW_TRACKING_URI", None)
    (FOLDER / "triton_repo").mkdir(parents=True, exist_ok=True)
    get_settings.cache_clear()


def fill_catalog(items: int) -> None:
    """Let the table hold `items` products, the judged ones first."""
    judged = load_judgments().object_ids
    ids = sorted((str(product["id"]) for product in products()), key=lambda key: (key not in judged, int(key)))
    migrate()
    with database.connect() as connection:
        load_catalog(connection, set(map(int, ids[:items])) | set(ids[:items]))
        connection.execute("DELETE FROM products WHERE id <> ALL(%s)", ([int(key) for key in ids[:items]],))
        connection.commit()


def prepare_catalog(items: int) -> EntryManifest:
    """Fill the table with `items` products, register and publish the plugin's model, and return its entry."""
    fill_catalog(items)
    version = register_base_model(PLUGIN, "initialize", "benchmark")
    name = entry_name(PLUGIN, version)
    publish_model(PLUGIN, version)
    return entry_of(name)
