"""The models that a server has to hold, as the releases say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from estudio_core import database, doctor
from estudio_core.inference.released import live_models, released_models
from estudio_core.local.triton.__main__ import models_to_load
from estudio_core.settings import get_settings
from estudio_core.vectordb.switching import rollback
from tests.vectordb.test_releases import embed, live


@pytest.fixture
def repository(estudio_home: Path, served: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository with `shop_v1` and `shop_v2`."""
    monkeypatch.setenv("ESTUDIO_TRITON_REPOSITORY", str(served[1].parent))
    get_settings.cache_clear()
    return served[1].parent


def test_the_models_of_the_live_release_and_the_one_before_it_are_needed_live_first(estudio_home: Path) -> None:
    assert released_models() == {}
    with database.connect(autocommit=True) as connection:
        for run in ("v1", "v2", "v3"):
            live(connection, run, {"a": "x"})
        assert released_models() == {"shop": ["shop_v3", "shop_v2"]}
        rollback(connection, "shop", embed)
    assert released_models() == {"shop": ["shop_v2", "shop_v3"]}
    assert live_models() == {"shop_v2"}


def test_a_server_that_starts_loads_what_serves_and_the_newest_where_nothing_does(repository: Path) -> None:
    assert models_to_load() == ["shop_v1", "shop_v2"]
    with database.connect(autocommit=True) as connection:
        live(connection, "v1", {"a": "x"})
    assert models_to_load() == ["shop_v1"]


def test_the_doctor_tries_the_live_model_in_this_process(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor._inference().detail == "ONNX Runtime, in process, serving no model yet"
    with database.connect(autocommit=True) as connection:
        live(connection, "v1", {"a": "x"})
    assert doctor._inference().detail == "ONNX Runtime, in process, serving shop_v1"
    monkeypatch.setenv("ESTUDIO_TRITON_REPOSITORY", str(tmp_path / "empty"))
    get_settings.cache_clear()
    finding = doctor._inference()
    assert (finding.state, "has no entry 'shop_v1'" in finding.detail) == ("missing", True)


def test_without_a_database_the_newest_are_loaded_and_none_is_started(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.connect(autocommit=True) as connection:
        live(connection, "v1", {"a": "x"})
    monkeypatch.setenv("ESTUDIO_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    get_settings.cache_clear()
    assert models_to_load() == ["shop_v1", "shop_v2"]
    monkeypatch.delenv("ESTUDIO_DATABASE_URL")
    get_settings.cache_clear()
    assert models_to_load() == ["shop_v1", "shop_v2"]
    assert not (get_settings().home / "postgres").exists()
