"""`<plugin>__rollback`: back to an earlier release, in seconds, without embedding anything again."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, get_current_context

from estudio_core.dag_factory.assets import release_asset
from estudio_core.dag_factory.forms import form
from estudio_core.dag_factory.steps import URGENT, Steps, plugin_dag, started_by
from estudio_core.plugin.discovery import PluginCard
from estudio_core.plugin.run_params import RollbackParams


def rollback(plugin: str, run_id: str | None = None, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """Apply newer writes to the earlier collection, then move pointer and alias back."""
    from estudio_core.pipeline.rollback import rollback

    return rollback(plugin, params or {}, str(run_id), started_by(get_current_context()["dag_run"])).as_dict()


def rollback_dag(card: PluginCard) -> DAG:
    """Return the DAG that goes back to an earlier release."""
    doc = "Moves the live pointer and the alias `champion` back to an earlier release that is still kept."
    name = card.meta.name
    with plugin_dag(card, "rollback", "Rollback", doc, params=form(RollbackParams())) as dag:
        Steps(card)(rollback, outlets=[release_asset(name)], **URGENT)(name)
    return dag
