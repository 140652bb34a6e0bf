"""`<plugin>__sync`: the live items follow the table."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG

from estudio_core.dag_factory.assets import release_asset
from estudio_core.dag_factory.forms import form
from estudio_core.dag_factory.steps import Steps, plugin_dag
from estudio_core.plugin.discovery import PluginCard
from estudio_core.plugin.run_params import SyncParams


def sync(plugin: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """Bring new, changed and deleted rows into the live collection and the change log."""
    from estudio_core.pipeline.sync import sync

    return sync(plugin, params or {}).as_dict()


def sync_dag(card: PluginCard) -> DAG:
    """Return the DAG that keeps the live items up to date."""
    doc = (
        "Brings new, changed and deleted items into the live collection and, through the change log, into one that is "
        "being built. Only items whose text has changed are embedded."
    )
    with plugin_dag(
        card, "sync", "Sync", doc, schedule=card.dag_settings.sync_schedule, params=form(SyncParams())
    ) as dag:
        Steps(card)(sync, inlets=[release_asset(card.meta.name)])(card.meta.name)
    return dag
