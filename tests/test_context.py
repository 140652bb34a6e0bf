from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from estudio_core import settings
from estudio_core.context import Context


def test_parts_are_made_once_and_again_after_a_reset() -> None:
    context = Context()
    assert context.mlflow_client is context.mlflow_client
    assert context.model_downloader is context.model_downloader
    assert context.plugin_manager is context.plugin_manager
    before = context.mlflow_client
    context.reset()
    assert context.mlflow_client is not before


def test_making_the_light_parts_loads_nothing_heavy() -> None:
    code = (
        "import sys; from estudio_core.context import context; "
        "context.mlflow_client, context.model_downloader, context.plugin_manager; "
        "print(sorted({'torch', 'mlflow', 'ray', 'pandas', 'pyarrow', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_settings_that_are_read_while_they_are_cleared_are_not_kept(
    estudio_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, cleared = threading.Event(), threading.Event()
    read = settings._read_settings

    def slow() -> settings.Settings:
        made = read()
        reading.set()
        assert cleared.wait(10)
        return made

    monkeypatch.setenv("ESTUDIO_SEARCH_TIMEOUT_S", "7")
    with monkeypatch.context() as patched:
        patched.setattr(settings, "_read_settings", slow)
        other = threading.Thread(target=settings.get_settings)
        other.start()
        assert reading.wait(10)
    monkeypatch.setenv("ESTUDIO_SEARCH_TIMEOUT_S", "8")
    settings.get_settings.cache_clear()
    cleared.set()
    other.join()
    assert settings.get_settings().search_timeout_s == 8
