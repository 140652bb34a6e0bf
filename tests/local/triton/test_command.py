from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from estudio_core.errors import MissingDependencyError
from estudio_core.export.triton_repository import publish_entry
from estudio_core.local.triton.__main__ import app
from estudio_core.local.triton.environment import prepare
from estudio_core.local.triton.server import TritonServer, _checked_port
from estudio_core.settings import get_settings

ENVIRONMENT = Path(__file__).parents[3] / ".venv-triton"


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ESTUDIO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ESTUDIO_TRITON_REPOSITORY", str(tmp_path / "triton_repo"))
    monkeypatch.setenv("ESTUDIO_TRITON_ENVIRONMENT", str(ENVIRONMENT))
    monkeypatch.setenv("ESTUDIO_INFERENCE_GRPC_PORT", str(_checked_port(None)))
    get_settings.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    get_settings.cache_clear()


def test_without_a_server_status_says_how_to_start_one(home):
    result = CliRunner().invoke(app, ["status"])
    assert result.exit_code == 1
    assert "python -m estudio_core.local.triton start" in result.output
    assert "not running" in CliRunner().invoke(app, ["stop"]).output


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_start_serves_the_newest_entries_and_stop_ends_it(home, small_model):
    try:
        prepare(ENVIRONMENT)
    except MissingDependencyError as error:
        pytest.skip(f"no local Triton server: {error}")
    for number in (1, 2, 3, 4):
        publish_entry(home / "triton_repo", f"shop_v{number}", small_model(seed=number))
    shutil.copyfile(home / "triton_repo/shop_v1/tokenizer.json", home / "triton_repo/shop_v4/config.pbtxt")
    runner = CliRunner()
    try:
        started = runner.invoke(app, ["start"])
        assert started.exit_code == 0, started.output
        status = runner.invoke(app, ["status"])
        assert "shop_v3: READY" in status.output
        assert "shop_v4" not in status.output, "damaged: never loaded"
        assert "shop_v2" not in status.output, "older than keep_releases"
        server = TritonServer.load(home / "home/triton/server.json")
        assert server is not None
        assert runner.invoke(app, ["start"]).output == started.output, "the running one is kept"
    finally:
        assert "Stopped" in runner.invoke(app, ["stop"]).output
    assert not server.is_running()
