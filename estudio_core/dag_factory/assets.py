"""What the DAGs of a plugin hand on to each other, as Airflow draws it."""

from __future__ import annotations

from airflow.sdk import Asset, AssetWatcher

from estudio_core.dag_factory.alias_trigger import AliasTrigger
from estudio_core.dag_factory.sessions_trigger import SessionsTrigger
from estudio_core.experiments.alias_audit import doorbell


def dataset_asset(plugin: str) -> Asset:
    """Return the training set of a plugin."""
    return _asset(plugin, "dataset")


def model_asset(plugin: str) -> Asset:
    """Return the registered model of a plugin."""
    return _asset(plugin, "model")


def release_asset(plugin: str) -> Asset:
    """Return what searches of a plugin read."""
    return _asset(plugin, "release")


def alias_asset(plugin: str) -> Asset:
    """Return the doorbell that rings when somebody moves an alias of the plugin's model in MLflow."""
    watcher = AssetWatcher(name=f"{plugin}_aliases", trigger=AliasTrigger(plugin=plugin))
    return Asset(f"{plugin}/alias", uri=doorbell(plugin), watchers=[watcher])


def sessions_asset(plugin: str, every: int) -> Asset:
    """Return the doorbell that rings when `every` clicked sessions have come since the last training."""
    watcher = AssetWatcher(name=f"{plugin}_sessions", trigger=SessionsTrigger(plugin=plugin, every=every))
    return Asset(f"{plugin}/sessions", uri=f"x-estudio://{plugin}/sessions", watchers=[watcher])


def _asset(plugin: str, name: str) -> Asset:
    return Asset(f"{plugin}/{name}", uri=f"x-estudio://{plugin}/{name}")
