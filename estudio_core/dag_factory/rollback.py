"""`<plugin>__rollback`: back to an earlier release, in seconds, without embedding anything again."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset

from estudio_core.dag_factory.forms import form
from estudio_core.dag_factory.steps import Steps, plugin_dag
from estudio_core.plugin.contract import RollbackParams
from estudio_core.plugin.discovery import PluginCard


def rollback(plugin: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """Apply newer writes to the earlier collection, then move pointer and alias back."""
    from estudio_core.pipeline.rollback import rollback

    return rollback(plugin, params or {}).as_dict()


def rollback_dag(card: PluginCard) -> DAG:
    """Return the DAG that goes back to an earlier release."""
    doc = "Moves the live pointer and the alias `champion` back to an earlier release that is still kept."
    name = card.meta.name
    with plugin_dag(card, "rollback", "Rollback", doc, params=form(RollbackParams())) as dag:
        Steps(card)(rollback, outlets=[Asset(f"{name}/release", uri=f"x-estudio://{name}/release")])(name)
    return dag
