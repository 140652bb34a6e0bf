"""Shared parts of all tests: a real PostgreSQL with pgvector, the real model, settings of their own."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tests run side by side, one to a core: more threads each would only take turns. Set before anything reads it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A machine that runs tests side by side answers some searches late; what deadlines do is tested with their own.
os.environ.setdefault("ESTUDIO_SEARCH_TIMEOUT_S", "60")
# Ray's workers are nice to others by default: beside a second test process they would hardly come to run.
os.environ.setdefault("RAY_worker_niceness", "0")

import psycopg
import pytest
from psycopg import sql

from estudio_core import embedded_postgres
from estudio_core.context import context
from estudio_core.database import migrate
from estudio_core.settings import get_settings
from tests.database_templates import DatabaseTemplates
from tests.small_model import minilm_folder

TESTS = Path(__file__).parent
LONGEST_FIRST = [
    TESTS / file
    for file in (
        "running/test_running.py",
        "e2e/test_dags.py",
        "acceptance/test_tutorial.py",
        "experiments/test_search.py",
    )
]
"""Files of a minute and more, by what they took last."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with long tests first: begun last, one of them would keep one core busy and leave the others idle."""
    long = {item.path for item in items if item.get_closest_marker("e2e")}
    place = {path: number for number, path in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path, len(place) + (item.path not in long)))


@pytest.fixture(scope="session")
def databases_folder() -> Iterator[Path]:
    """Where embedded databases live.

    Not in pytest's own folder: run by root, PostgreSQL works as another user, and every pytest that starts on the
    machine closes that folder to others.
    """
    folder = Path(tempfile.mkdtemp(prefix="estudio-pg-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(databases_folder: Path) -> Iterator[str]:
    """URL of an embedded PostgreSQL that lives as long as the test session."""
    url = embedded_postgres.start(databases_folder / "postgres")
    yield url
    embedded_postgres.stop(databases_folder / "postgres")


@pytest.fixture(scope="session")
def database_templates(postgres_server: str) -> DatabaseTemplates:
    """Databases that are filled once per test session and copied for each test: a copy takes 40 ms."""
    return DatabaseTemplates(postgres_server)


@pytest.fixture
def database_template(request: pytest.FixtureRequest, database_templates: DatabaseTemplates) -> str | None:
    """Name of the database that `database_url` is a copy of: Estudio's tables for tests with an `estudio_home`."""
    return database_templates.made("tables", migrate) if "estudio_home" in request.fixturenames else None


@pytest.fixture
def database_url(postgres_server: str, database_template: str | None) -> Iterator[str]:
    """URL of a new database, dropped after the test; empty where no `database_template` says otherwise."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    copied = sql.SQL(" TEMPLATE {}").format(sql.Identifier(database_template)) if database_template else sql.SQL("")
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}{}").format(sql.Identifier(name), copied))
    yield postgres_server.replace("/postgres?", f"/{name}?")
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def estudio_home(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installation of its own: new database with Estudio's schema, MLflow store, artifacts, model repository."""
    monkeypatch.setenv("ESTUDIO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ESTUDIO_DATABASE_URL", database_url)
    monkeypatch.setenv("ESTUDIO_TRITON_REPOSITORY", str(tmp_path / "triton_repo"))
    (tmp_path / "home").mkdir()
    (tmp_path / "triton_repo").mkdir()
    get_settings.cache_clear()
    migrate(database_url)
    yield tmp_path / "home"
    get_settings.cache_clear()


@pytest.fixture
def shop_plugin(estudio_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A plugin called `shop`, for steps that ask it what it says of its runs; its table is nowhere."""
    plugins = estudio_home / "plugins"
    plugins.mkdir()
    (plugins / "shop.py").write_text(
        "from estudio_core import PostgresItems, create_text_plugin\n\n"
        'plugin = create_text_plugin("shop", items=PostgresItems(table="t", text="body"), model="some-model")\n'
    )
    monkeypatch.setenv("ESTUDIO_PLUGINS_PATH", str(plugins))
    get_settings.cache_clear()
    context.reset()
    yield
    context.reset()


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    """Folder of the all-MiniLM-L6-v2 model that comes as a package (384 dimensions, 6 layers)."""
    return minilm_folder()


@pytest.fixture(scope="session")
def small_model() -> Callable[..., Any]:
    """`tests.small_model.build_small_model`: arguments `seed`, which decides the weights, and `kind`."""
    from tests.small_model import build_small_model

    return build_small_model


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store of MLflow with all tables and nothing in it: creating one takes MLflow over a second."""
    from estudio_core.experiments.mlflow_client import MLflowClientWrapper

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    assert MLflowClientWrapper(f"sqlite:///{file}").client
    return file


@pytest.fixture(scope="session")
def write_model() -> Callable[[Path, str], Path]:
    """Writes files that stand for a saved model into a folder."""

    def write(folder: Path, content: str) -> Path:
        (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").write_bytes(content.encode() * 100)
        (folder / "tokenizer" / "tokenizer.json").write_text("{}")
        return folder

    return write
