"""The installation under fire: a private PostgreSQL, a registry with several models, a table, a plugin, a Triton."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from estudio_core import database, embedded_postgres
from estudio_core.context import context
from estudio_core.database import migrate
from estudio_core.inference.opening import close_embedders
from estudio_core.settings import get_settings
from tests.small_model import build_small_model

PLUGIN = "shop"
_KINDS = ("lamp", "chair", "kettle", "radio", "camera", "tent", "clock", "drill")
_LOOKS = ("red", "old", "small", "fine", "heavy", "silent")
_SOURCE = """
from estudio_core import DagSettings, PostgresItems, TextModel, create_text_plugin

plugin = create_text_plugin(
    "shop",
    items=PostgresItems(table="products", text="title", payload=("title", "code")),
    model=TextModel(name={model!r}, max_tokens=48),
    dag=DagSettings(shards=2),
)
"""


def title(item: int, version: int) -> str:
    """Return the text of an item after the operation `version`: no two operations give the same."""
    return f"{_LOOKS[version % len(_LOOKS)]} {_KINDS[item % len(_KINDS)]} number {item} edition {version}"


def queries() -> list[str]:
    """Return what users search for."""
    return [f"{look} {kind}" for look in _LOOKS for kind in _KINDS]


@dataclass(frozen=True)
class Shop:
    """Where everything is.

    Attributes:
        folder: Of the whole installation, the PostgreSQL's excepted.
        models: How many model versions the registry has: 1 to this.
        reference: A model repository of the same models that nobody touches, to judge answers by.
    """

    folder: Path
    database_folder: Path
    models: int
    items: int

    @property
    def reference(self) -> Path:
        """Entries `shop_v<n>` of all models, published where no fault reaches them."""
        return self.folder / "reference"

    @property
    def journal(self) -> Path:
        """What the traffic writes."""
        return self.folder / "journal.jsonl"


@contextmanager
def open_shop(folder: Path, database_folder: Path, *, items: int, models: int) -> Iterator[Shop]:
    """Make an installation of its own, which this process and its children use inside the block."""
    url = embedded_postgres.start(database_folder)
    before = dict(os.environ)
    plugins = folder / "plugins"
    os.environ |= {
        "ESTUDIO_HOME": str(folder / "home"),
        "ESTUDIO_DATABASE_URL": url,
        "ESTUDIO_TRITON_REPOSITORY": str(folder / "triton_repo"),
        "ESTUDIO_PLUGINS_PATH": str(plugins),
        "ESTUDIO_KEEP_RELEASES": "2",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    for made in (folder / "home", folder / "triton_repo", plugins):
        made.mkdir(parents=True)
    try:
        shop = Shop(folder, database_folder, models, items)
        (plugins / "shop.py").write_text(_SOURCE.format(model=str(folder / "models" / "1")))
        _forget()
        _fill(shop)
        yield shop
    finally:
        os.environ.clear()
        os.environ.update(before)
        _forget()
        embedded_postgres.stop(database_folder)


def _forget() -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("estudio_plugins")]:
        del sys.modules[name]
    get_settings.cache_clear()
    context.reset()
    close_embedders()


def _fill(shop: Shop) -> None:
    from estudio_core.export.triton_repository import publish_entry
    from estudio_core.models.storage import save_model
    from estudio_core.pipeline.register_base_model import register_base_model
    from estudio_core.plugin.registry import open_plugin

    migrate()
    with database.connect() as connection:
        connection.execute("CREATE TABLE products (id int PRIMARY KEY, title text NOT NULL, code int NOT NULL)")
        with connection.cursor() as cursor:
            rows = [(item, title(item, 0), item) for item in range(shop.items)]
            cursor.executemany("INSERT INTO products VALUES (%s, %s, %s)", rows)
        connection.commit()
    for number in range(1, shop.models + 1):
        model = build_small_model(seed=number)
        folder = shop.folder / "models" / str(number)
        publish_entry(shop.reference, f"{PLUGIN}_v{number}", model)
        if number == 1:
            model.backbone.save_pretrained(folder)
            model.tokenizer.save_pretrained(folder)
            assert register_base_model(PLUGIN, "initialize", "chaos") == "1"
        else:
            save_model(model, folder)
            manager = open_plugin(PLUGIN).experiments
            version = manager.register_model(folder, manager.start_iteration(f"training-{number}").run_id)
            assert version == number


def write_source(url: str, item: int, version: int | None) -> None:
    """Bring one row of the items table to the state that an operation gives it; None deletes it."""
    with psycopg.connect(url, connect_timeout=5) as connection:
        if version is None:
            connection.execute("DELETE FROM products WHERE id = %s", (item,))
        else:
            connection.execute(
                "INSERT INTO products VALUES (%s, %s, %s) ON CONFLICT (id) DO UPDATE SET title = EXCLUDED.title",
                (item, title(item, version), item),
            )
