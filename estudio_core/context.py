"""What plugins share in a process: `context.mlflow_client`, `.model_downloader` and `.plugin_manager`.

Each is made on first use; importing this module connects to nothing and imports nothing heavy. The library itself asks
`experiments.shared` and `plugin.registry`: nothing below this module knows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from estudio_core.experiments import shared
from estudio_core.plugin import registry

if TYPE_CHECKING:
    from estudio_core.experiments.mlflow_client import MLflowClientWrapper
    from estudio_core.experiments.model_downloader import ModelDownloader
    from estudio_core.plugin.registry import PluginManager


class Context:
    """Parts that are made once per process, on first use."""

    @property
    def mlflow_client(self) -> MLflowClientWrapper:
        """The connection to MLflow; it is opened when something is asked of it."""
        return shared.mlflow_client()

    @property
    def model_downloader(self) -> ModelDownloader:
        """Where base models come from: an installed package, a folder, or the model hub."""
        return shared.model_downloader()

    @property
    def plugin_manager(self) -> PluginManager:
        """The search plugins of this installation."""
        return registry.plugin_manager()

    def reset(self) -> None:
        """Forget all parts, so that the next use makes them from the settings of that moment."""
        for made in (shared.mlflow_client, shared.model_downloader, registry.plugin_manager):
            made.cache_clear()


context = Context()


def __getattr__(name: str) -> object:
    """Let `estudio_core.context`, which names this module and the object in it, be used as either."""
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(context, name)
