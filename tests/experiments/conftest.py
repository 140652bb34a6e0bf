from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from estudio_core.experiments.manager import ExperimentsManager
from estudio_core.experiments.metrics_accumulator import MetricsAccumulator
from estudio_core.settings import get_settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Home of an installation with an MLflow store of its own, not yet created."""
    monkeypatch.setenv("ESTUDIO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ESTUDIO_MLFLOW_TRACKING_URI", raising=False)
    get_settings.cache_clear()
    yield tmp_path / "home"
    get_settings.cache_clear()


@pytest.fixture
def manager(home: Path, empty_store: Path) -> ExperimentsManager:
    home.mkdir()
    shutil.copy(empty_store, home / "mlflow.db")
    accumulators = [MetricsAccumulator("train_loss", calc_mean=True), MetricsAccumulator("test_ndcg@10")]
    return ExperimentsManager(None, "test_ndcg@10", "shop", accumulators)


@pytest.fixture
def model_folder(tmp_path: Path, write_model: Callable[[Path, str], Path]) -> Path:
    return write_model(tmp_path / "model", "first")
