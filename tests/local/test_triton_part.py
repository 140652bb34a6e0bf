"""Triton as a part of the local installation: real where the machine can run it, left out with a reason where not."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from estudio_core.errors import InferenceUnavailableError, MissingDependencyError
from estudio_core.local.triton.environment import prepare
from estudio_core.local.triton.server import _checked_port
from estudio_core.local.triton_part import metrics_address, start_triton, stop_triton, triton_status
from estudio_core.settings import get_settings

ENVIRONMENT = Path(__file__).parents[2] / ".venv-triton"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("ESTUDIO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ESTUDIO_TRITON_REPOSITORY", str(tmp_path / "triton_repo"))
    monkeypatch.setenv("ESTUDIO_TRITON_ENVIRONMENT", str(ENVIRONMENT))
    monkeypatch.setenv("ESTUDIO_INFERENCE_GRPC_PORT", str(_checked_port(None)))
    (tmp_path / "triton_repo").mkdir()
    get_settings.cache_clear()
    yield tmp_path / "home"
    stop_triton(tmp_path / "home")
    get_settings.cache_clear()


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_it_starts_is_seen_and_stops(home: Path) -> None:
    try:
        prepare(ENVIRONMENT)
    except MissingDependencyError as error:
        pytest.skip(f"no local Triton server: {error}")
    assert triton_status(home) is None
    assert start_triton() is None
    status = triton_status(home)
    assert status is not None
    assert status.healthy
    assert status.address == f"grpc://127.0.0.1:{get_settings().inference_grpc_port}"
    address = metrics_address(home)
    assert address is not None
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(address, timeout=5) as answer:
        assert "nv_cpu_utilization" in answer.read().decode()
    assert stop_triton(home) == ["triton"]
    assert metrics_address(home) is None
    assert triton_status(home) is None
    assert stop_triton(home) == []


def test_where_it_cannot_run_the_reason_is_told_and_only_an_installation_that_needs_it_fails(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert "runs on Linux only" in (start_triton() or "")
    monkeypatch.setenv("ESTUDIO_INFERENCE", "triton")
    get_settings.cache_clear()
    with pytest.raises(InferenceUnavailableError, match="ESTUDIO_INFERENCE is triton"):
        start_triton()
