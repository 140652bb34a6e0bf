"""A published entry of a small model, shared by the tests of everything that serves it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from estudio_core.export.triton_repository import ExportOptions, publish_entry


@pytest.fixture(scope="session")
def served(small_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model and the folder of its entry `shop_v1`; not to be changed."""
    repository = tmp_path_factory.mktemp("served") / "triton_repo"
    model = small_model(seed=5, family="e5")
    publish_entry(repository, "shop_v1", model)
    publish_entry(repository, "shop_v2", small_model(seed=6), options=ExportOptions(include_torch=False))
    return model, repository / "shop_v1"
