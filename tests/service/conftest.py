"""A running service over a small shop, for all tests of a file: real database, real model, real HTTP."""

from __future__ import annotations

import json
import random
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import uvicorn
from psycopg import sql

from estudio_core import database
from estudio_core.clickstream.sessions import SessionWithEvents
from estudio_core.clickstream.store import ClickstreamStore
from estudio_core.database import migrate
from estudio_core.service.keys import create_key
from estudio_core.settings import get_settings
from tests.pipeline.conftest import forget_plugins, small_entry, small_model_folder
from tests.pipeline.steps import build_release

__all__ = ["small_entry", "small_model_folder"]

KINDS = ("lamp", "chair", "kettle", "radio", "camera", "tent")
BRANDS = ("acme", "zeta", "nord")
PLUGIN = """
from estudio_core import PostgresItems, TextModel, create_text_plugin

plugin = create_text_plugin(
    {name!r},
    items=PostgresItems(
        table={name!r}, text=("title", "blurb"), payload=("title", "blurb", "kind", "brand", "price", "tags")
    ),
    model=TextModel(name={model!r}, max_tokens=48),
    public={public!r},
)
"""


@dataclass(frozen=True)
class Service:
    """A running service and its database."""

    address: str
    database_url: str

    def client(self, *scopes: str, plugins: tuple[str, ...] = ("shop",), **options: Any) -> httpx.Client:
        """Return a client with a new key of these scopes; without any, one without a key."""
        headers = {"Authorization": f"Bearer {self.key(*scopes, plugins=plugins, **options)}"} if scopes else {}
        return httpx.Client(base_url=self.address, headers=headers, timeout=30)

    def key(self, *scopes: str, plugins: tuple[str, ...] = ("shop",), **options: Any) -> str:
        """Make a key and return its text."""
        with database.connect() as connection:
            return create_key(connection, "test", scopes, plugins, **options)[1]

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement; return its rows."""
        with psycopg.connect(self.database_url) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def sessions(self, application: str = "shop") -> dict[str, SessionWithEvents]:
        """Return what a training would read, by query id."""
        with database.connect() as connection:
            return {found.session_id: found for found in ClickstreamStore(connection).sessions(application)}


@pytest.fixture(scope="module")
def service(
    postgres_server: str, small_entry: Path, small_model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The shop (with a key) and the library (public), each with a live release, served on a free port."""
    root = tmp_path_factory.mktemp("service")
    name = f"t_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = postgres_server.replace("/postgres?", f"/{name}?")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESTUDIO_HOME", str(root / "home"))
        patch.setenv("ESTUDIO_DATABASE_URL", url)
        patch.setenv("ESTUDIO_TRITON_REPOSITORY", str(root / "triton_repo"))
        patch.setenv("ESTUDIO_PLUGINS_PATH", str(root / "plugins"))
        (root / "plugins").mkdir()
        for plugin in ("shop", "library"):
            text = PLUGIN.format(name=plugin, model=str(small_model_folder), public=plugin == "library")
            (root / "plugins" / f"{plugin}.py").write_text(text)
        get_settings.cache_clear()
        forget_plugins()
        migrate(url)
        _fill(url)
        shutil.copytree(small_entry, root / "triton_repo" / "shop_v1")
        for plugin in ("shop", "library"):
            build_release(plugin, "shop_v1", "first")
        with running() as address:
            yield Service(address, url)
        database.forget_pools()
        forget_plugins()
    get_settings.cache_clear()
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


class running:  # noqa: N801 - used as a function
    """Serves in a thread of this process while the block runs; gives the address."""

    def __enter__(self) -> str:
        from estudio_core.service.app import create_app

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = uvicorn.Config(create_app(), host="127.0.0.1", port=port, log_config=None, access_log=False, ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        until = time.monotonic() + 30
        while not self._server.started:
            assert self._thread.is_alive(), "the service does not start"
            assert time.monotonic() < until, "the service does not start"
            time.sleep(0.02)
        return f"http://127.0.0.1:{port}"

    def __exit__(self, *error: object) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()


def _fill(url: str) -> None:
    rng = random.Random(1)
    with psycopg.connect(url) as connection:
        for table in ("shop", "library"):
            connection.execute(
                sql.SQL(
                    "CREATE TABLE {} (id text PRIMARY KEY, title text, blurb text, kind text, brand text,"
                    " price numeric, tags jsonb)"
                ).format(sql.Identifier(table))
            )
            for number in range(60):
                kind = KINDS[number % len(KINDS)]
                word = rng.choice(["red", "old", "small", "fine"])
                row = (
                    str(number),
                    f"{word} {kind} number {number}",
                    f"a {kind} for every day",
                    kind,
                    BRANDS[number % len(BRANDS)],
                    10 + number / 4,
                    json.dumps([word, "all"]),
                )
                connection.execute(
                    sql.SQL("INSERT INTO {} VALUES (%s, %s, %s, %s, %s, %s, %s)").format(sql.Identifier(table)), row
                )


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    """A client that may search the shop."""
    with service.client("search") as found:
        yield found


@pytest.fixture
def make_client(service: Service) -> Iterator[Callable[..., httpx.Client]]:
    """Makes clients, see `Service.client`, and closes them."""
    made: list[httpx.Client] = []

    def make(*scopes: str, **options: Any) -> httpx.Client:
        made.append(service.client(*scopes, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()
