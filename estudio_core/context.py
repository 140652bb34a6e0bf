"""What plugins share in a process: `context.mlflow_client`, `.model_downloader` and `.plugin_manager`.

Each is made on first use; importing this module connects to nothing and imports nothing heavy.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from estudio_core.experiments.mlflow_client import MLflowClientWrapper
    from estudio_core.experiments.model_downloader import ModelDownloader
    from estudio_core.plugin.registry import PluginManager


class Context:
    """Parts that are made once per process, on first use."""

    @cached_property
    def mlflow_client(self) -> MLflowClientWrapper:
        """The connection to MLflow; it is opened when something is asked of it."""
        from estudio_core.experiments.mlflow_client import MLflowClientWrapper

        return MLflowClientWrapper()

    @cached_property
    def model_downloader(self) -> ModelDownloader:
        """Where base models come from: an installed package, a folder, or the model hub."""
        from estudio_core.experiments.model_downloader import ModelDownloader

        return ModelDownloader()

    @cached_property
    def plugin_manager(self) -> PluginManager:
        """The search plugins of this installation."""
        from estudio_core.plugin.registry import PluginManager

        return PluginManager()

    def reset(self) -> None:
        """Forget all parts, so that the next use makes them from the settings of that moment."""
        self.__dict__.clear()


context = Context()


def __getattr__(name: str) -> object:
    """Let `estudio_core.context`, which names this module and the object in it, be used as either."""
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(context, name)
