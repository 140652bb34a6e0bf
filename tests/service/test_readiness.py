"""Whether searches would be answered: as a function, and as the service tells it."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest

from estudio_core import database
from estudio_core.inference import opening
from estudio_core.readiness import PluginReadiness, readiness
from estudio_core.settings import get_settings
from tests.service.conftest import Service


def test_a_process_says_what_it_would_answer_from(service: Service, client: httpx.Client) -> None:
    found = readiness()
    releases = dict(service.sql("SELECT plugin, release_id FROM estudio.pointers"))
    assert found.ready
    assert found.plugins == {name: PluginReadiness(number, "1") for name, number in releases.items()}
    assert client.get("/readyz").json() == found.told()


def test_a_model_that_is_gone_is_told_by_its_plugin(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = get_settings().triton_repository
    moved = Path(shutil.move(repository / "shop_v1", repository / "away"))
    opening.close_embedders()
    try:
        found = readiness()
        assert not found.ready
        assert found.told()["plugins"]["shop"]["why"] == "RepositoryError"
    finally:
        shutil.move(moved, repository / "shop_v1")
    assert readiness().ready


def test_a_database_that_is_away_is_told(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESTUDIO_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setattr(database, "CONNECTION_TIMEOUT_S", 0.2)
    get_settings.cache_clear()
    try:
        assert readiness().told() == {"status": "unready", "database": "away", "plugins": {}}
    finally:
        monkeypatch.undo()
        get_settings.cache_clear()
