"""The database's line in `estudio status`: where it is, without its password, and whether it answers."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from estudio_core.local.commands import status
from estudio_core.local.database_part import DatabaseStatus, database_status
from estudio_core.postgres_url import describe
from estudio_core.settings import get_settings


def line(home: Path) -> str:
    console = Console(file=io.StringIO(), width=300)
    status(console, home=home, project=home)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    [found] = [row for row in text.splitlines() if row.startswith("database")]
    return found


def test_a_configured_database_is_shown_without_its_password(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESTUDIO_HOME", str(tmp_path))
    monkeypatch.setenv("ESTUDIO_DATABASE_URL", database_url)
    get_settings.cache_clear()
    assert database_status(tmp_path) == DatabaseStatus(describe(database_url), True)
    assert "running" in line(tmp_path)
    monkeypatch.setenv("ESTUDIO_DATABASE_URL", "postgresql://shop:hunter2@127.0.0.1:1/shop")
    get_settings.cache_clear()
    found = line(tmp_path)
    assert "stopped" in found
    assert "shop@127.0.0.1:1/shop" in found
    assert "hunter2" not in found
    get_settings.cache_clear()


def test_looking_at_an_embedded_database_starts_none(
    databases_folder: Path, postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ESTUDIO_DATABASE_URL", raising=False)
    get_settings.cache_clear()
    running = database_status(databases_folder)  # where the tests' own server is
    assert running.answers
    assert running.address.startswith("postgres@")
    nowhere = databases_folder / "nowhere"
    assert database_status(nowhere) == DatabaseStatus(str(nowhere / "postgres"), False)
    assert not nowhere.exists()
    get_settings.cache_clear()
