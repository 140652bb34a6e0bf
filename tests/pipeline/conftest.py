"""A small shop: a table, a plugin with a small random model, and a clickstream."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from estudio_core import database
from estudio_core.clickstream.store import ClickstreamStore
from estudio_core.clickstream.ubi import UbiEvent, UbiQuery
from estudio_core.context import context
from estudio_core.inference.opening import close_embedders
from estudio_core.settings import get_settings
from tests.database_templates import DatabaseTemplates
from tests.pipeline.steps import build_release

KINDS = ("lamp", "chair", "kettle", "radio", "camera", "tent")
PLUGIN = """
from estudio_core import DagSettings, FineTuneParams, PostgresItems, TextModel, TextTraining, create_text_plugin
from estudio_core import GateSettings

plugin = create_text_plugin(
    "shop",
    items=PostgresItems(table="products", text="title", payload=("title", "kind")),
    model=TextModel(name={model!r}, max_tokens=48),
    training=TextTraining(num_fixed_layers=1, test_size_ratio=0.4),
    fine_tune=FineTuneParams(min_sessions=10, num_epochs=1),
    gate=GateSettings(minimum_queries=2),
    dag=DagSettings(shards=2),
)
"""


@dataclass(frozen=True)
class Shop:
    """What a test may change: the table's database and the plugin's file."""

    database_url: str
    plugin_file: Path
    model: Path

    def sql(self, statement: str, *values: Any) -> None:
        """Run one statement in the shop's database."""
        with psycopg.connect(self.database_url) as connection:
            connection.execute(statement, values)

    def rewrite_plugin(self, old: str, new: str) -> None:
        """Change the plugin's file and forget what was loaded from it."""
        text = self.plugin_file.read_text()
        assert old in text
        self.plugin_file.write_text(text.replace(old, new))
        forget_plugins()

    def search_sessions(self, sessions: int, clicks: bool = True, variants: int = 4) -> None:
        """Log searches for kinds of products, in so many wordings of each, with clicks on products of that kind."""
        rng = random.Random(5)
        queries, events = [], []
        for number in range(sessions):
            kind = KINDS[number % len(KINDS)]
            shown = [str(rng.randrange(60)) for _ in range(8)]
            shown = list(dict.fromkeys([*shown, str(6 * rng.randrange(10) + KINDS.index(kind))]))
            at = datetime.now(UTC) - timedelta(hours=1, seconds=sessions - number)
            queries.append(
                UbiQuery(
                    f"q{number}", f"{kind} {rng.randrange(variants)}", at, "shop", query_response_hit_ids=tuple(shown)
                )
            )
            events += [
                UbiEvent(f"e{number}-{i}", "click", f"q{number}", at, "shop", object_id=i)
                for i in shown
                if clicks and KINDS[int(i) % len(KINDS)] == kind
            ]
        with database.connect() as connection:
            store = ClickstreamStore(connection)
            store.log_queries(queries)
            store.log_events(events)
            connection.commit()


def forget_plugins() -> None:
    """Let the next use read plugin files and settings anew."""
    for name in [name for name in sys.modules if name.startswith("estudio_plugins")]:
        del sys.modules[name]
    get_settings.cache_clear()
    context.reset()
    close_embedders()


@pytest.fixture(scope="session")
def small_model_folder(small_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a random model of 32 dimensions, as a base model would come."""
    folder = tmp_path_factory.mktemp("small-model")
    model = small_model(seed=1)
    model.backbone.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_entry(small_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published entry `shop_v1` of the same model, made once."""
    from estudio_core.export.triton_repository import publish_entry

    root = tmp_path_factory.mktemp("published")
    publish_entry(root, "shop_v1", small_model(seed=1), {"registered_version": 1})
    return root / "shop_v1"


@pytest.fixture(scope="session")
def indexed_database(
    database_templates: DatabaseTemplates,
    small_entry: Path,
    small_model_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[], str]:
    """Gives the name of a database with the shop's products and a live release; it is made when first asked for."""

    def fill(url: str) -> None:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("ESTUDIO_HOME", str(tmp_path_factory.mktemp("indexed")))
            patched.setenv("ESTUDIO_DATABASE_URL", url)
            patched.setenv("ESTUDIO_TRITON_REPOSITORY", str(small_entry.parent))
            plugin_file = _write_plugin(tmp_path_factory.mktemp("plugins"), small_model_folder)
            patched.setenv("ESTUDIO_PLUGINS_PATH", str(plugin_file.parent))
            forget_plugins()
            database.migrate(url)
            made = Shop(url, plugin_file, small_model_folder)
            _fill_table(made)
            made.sql("ALTER TABLE products ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now()")
            build_release("shop", small_entry.name, "first")
        forget_plugins()

    return lambda: database_templates.made("indexed_shop", fill)


@pytest.fixture
def database_template(request: pytest.FixtureRequest, database_template: str | None) -> str | None:
    """That of all tests, and another one for tests with an `indexed_shop`."""
    if "indexed_shop" not in request.fixturenames:
        return database_template
    return str(request.getfixturevalue("indexed_database")())


@pytest.fixture
def indexed_shop(shop: Shop, small_entry: Path) -> Shop:
    """The shop with times of change in its table, and a live release that did not need MLflow."""
    shutil.copytree(small_entry, get_settings().triton_repository / small_entry.name)
    return shop


@pytest.fixture
def shop(
    request: pytest.FixtureRequest,
    estudio_home: Path,
    database_url: str,
    small_model_folder: Path,
    empty_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Shop]:
    """Sixty products and their plugin."""
    shutil.copy(empty_store, estudio_home / "mlflow.db")
    plugin_file = _write_plugin(tmp_path / "plugins", small_model_folder)
    monkeypatch.setenv("ESTUDIO_PLUGINS_PATH", str(plugin_file.parent))
    forget_plugins()
    made = Shop(database_url, plugin_file, small_model_folder)
    if "indexed_shop" not in request.fixturenames:  # whose database comes with it
        _fill_table(made)
    yield made
    forget_plugins()


def _write_plugin(folder: Path, model: Path) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "shop.py"
    file.write_text(PLUGIN.format(model=str(model)))
    return file


def _fill_table(shop: Shop) -> None:
    rng = random.Random(1)
    kinds = [KINDS[number % len(KINDS)] for number in range(60)]
    titles = [f"{rng.choice(['red', 'old', 'small', 'fine'])} {kind} number {n}" for n, kind in enumerate(kinds)]
    shop.sql("CREATE TABLE products (id int PRIMARY KEY, title text, kind text)")
    shop.sql(
        "INSERT INTO products SELECT * FROM unnest(%s::int[], %s::text[], %s::text[])", [*range(60)], titles, kinds
    )
