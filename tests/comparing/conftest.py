"""A shop with a registered model that serves, and another one to compare it with; the service over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from estudio_core import database
from estudio_core.models.storage import save_model
from estudio_core.pipeline.challenging.building import build_challenger
from estudio_core.plugin.registry import open_plugin
from estudio_core.service.keys import create_key
from tests.pipeline.conftest import Shop, forget_plugins, shop, small_model_folder
from tests.pipeline.steps import initialize
from tests.service.conftest import running
from tests.snapshot import Snapshot, estudio_home

__all__ = ["estudio_home", "shop", "small_model_folder"]


@dataclass(frozen=True)
class Two:
    """A live release, and a verified one of another model."""

    shop: Shop
    champion: int
    challenger: int


@pytest.fixture(scope="module")
def snapshot(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Snapshot]:
    made = Snapshot(postgres_server, tmp_path_factory.mktemp("two"))
    yield made
    made.drop()


@pytest.fixture
def two(shop: Shop, small_model: Callable[..., Any], snapshot: Snapshot, tmp_path: Path) -> Two:
    """Version 1 is live; version 2, with other weights, is built and verified."""
    if snapshot.kept is None:
        champion = initialize("shop").release_id
        folder = tmp_path / "second"
        save_model(small_model(seed=2), folder)
        manager = open_plugin("shop").experiments
        manager.register_model(folder, manager.start_iteration("second").run_id)
        snapshot.keep(shop.database_url, (champion, build_challenger("shop", "2", "second").release_id))
        forget_plugins()
    snapshot.restore(shop.database_url)
    return Two(shop, *snapshot.kept)


@pytest.fixture
def client(two: Two) -> Iterator[httpx.Client]:
    """Somebody with all rights at a running service over the shop."""
    with database.connect() as connection:
        key = create_key(connection, "test", ("search", "events", "items", "admin"), ("shop",))[1]
    with running() as address, httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}) as found:
        yield found
