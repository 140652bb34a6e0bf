"""A plugin `shop` whose models are empty shells: registered versions and releases that nothing was encoded for."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from estudio_core import database
from estudio_core.context import context
from estudio_core.experiments.model_registry import ModelRegistry
from estudio_core.plugin.registry import open_plugin
from estudio_core.vectordb import releases
from estudio_core.vectordb.index_build import build_index
from estudio_core.vectordb.index_info import SearchIndexInfo
from estudio_core.vectordb.releases import Release
from estudio_core.vectordb.switching import switch

PLUGIN = """
from estudio_core import PostgresItems, TextModel, create_text_plugin

plugin = create_text_plugin(
    "shop", items=PostgresItems(table="products", text="title"), model=TextModel(name="none", max_tokens=48)
)
"""


@pytest.fixture
def conn(estudio_home: Path) -> Iterator[psycopg.Connection]:
    with database.connect(autocommit=True) as connection:
        yield connection


@pytest.fixture
def registry(
    estudio_home: Path,
    empty_store: Path,
    write_model: Callable[[Path, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[ModelRegistry]:
    """Versions 1 to 3 of the plugin's model; none has an alias but the challenger 3."""
    shutil.copy(empty_store, estudio_home / "mlflow.db")
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "config.json").write_text('{"hidden_size": 2}')
    (plugins / "shop.py").write_text(PLUGIN.replace('"none"', f'"{tmp_path / "none"}"'))
    monkeypatch.setenv("ESTUDIO_PLUGINS_PATH", str(plugins))
    _forget()
    manager = open_plugin("shop").experiments
    run = manager.start_iteration("run").run_id
    for name in ("a", "b", "c"):
        manager.register_model(write_model(tmp_path / name, name), run, metrics={"unseen_ndcg@10_gain": 0.1})
    yield manager.registry
    _forget()


@pytest.fixture
def verified(conn: psycopg.Connection) -> Callable[[str, str], Release]:
    """Takes a run and a version to a release that only waits for its switch."""

    def build(run_id: str, version: str) -> Release:
        info = SearchIndexInfo(dimensions=2)
        release = releases.start_release(conn, "shop", f"shop_v{version}", version, info, run_id)
        build_index(conn, release.collection)
        release = releases.mark_built(conn, release)
        releases.add_stats(conn, release, {"recall_at_10": 1.0, "ef_search": 40})
        return releases.set_state(conn, release, "verified", ("built",))

    return build


@pytest.fixture
def live(conn: psycopg.Connection, verified: Callable[[str, str], Release]) -> Callable[[str, str], Release]:
    """Takes a run and a version to a live release, as a benchmark or a test does without asking for a promotion."""
    return lambda run_id, version: switch(conn, verified(run_id, version), lambda release, writes, stored: [])


def _forget() -> None:
    for name in [name for name in sys.modules if name.startswith("estudio_plugins")]:
        del sys.modules[name]
    from estudio_core.settings import get_settings

    get_settings.cache_clear()
    context.reset()
