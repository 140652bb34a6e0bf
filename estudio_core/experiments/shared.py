"""What all users of MLflow and of base models share in a process, made on first use."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from estudio_core.experiments.mlflow_client import MLflowClientWrapper
    from estudio_core.experiments.model_downloader import ModelDownloader


@cache
def mlflow_client() -> MLflowClientWrapper:
    """Return the connection to MLflow; it is opened when something is asked of it."""
    from estudio_core.experiments.mlflow_client import MLflowClientWrapper

    return MLflowClientWrapper()


@cache
def model_downloader() -> ModelDownloader:
    """Return where base models come from: an installed package, a folder, or the model hub."""
    from estudio_core.experiments.model_downloader import ModelDownloader

    return ModelDownloader()
