"""`<plugin>__initialize`: from a table of items to a searchable catalog with the base model."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, get_current_context

from estudio_core.dag_factory.forms import form
from estudio_core.dag_factory.release_steps import release_tasks
from estudio_core.dag_factory.steps import Steps, plugin_dag, started_by
from estudio_core.plugin.discovery import PluginCard
from estudio_core.plugin.run_params import InitializeParams


def check_source(plugin: str) -> dict[str, Any]:
    """Check that database, table and columns are there, and count the items."""
    from estudio_core.pipeline.check_source import check_source

    return check_source(plugin).as_dict()


def register_base_model(plugin: str, source: dict[str, Any], run_id: str | None = None) -> str:
    """Register the base model in MLflow, under the alias `base`, and ask for its release."""
    from estudio_core.pipeline.register_base_model import register_base_model

    return register_base_model(plugin, str(run_id), started_by(get_current_context()["dag_run"]))


def initialize_dag(card: PluginCard) -> DAG:
    """Return the DAG that is run once, by hand."""
    doc = "Registers the base model, exports and publishes it, builds the first collection and makes it live."
    with plugin_dag(card, "initialize", "Initialize", doc, params=form(InitializeParams())) as dag:
        steps = Steps(card)
        source = steps(check_source)(card.meta.name)
        release_tasks(steps, steps(register_base_model)(card.meta.name, source))
    return dag
