"""`<plugin>__release`: one registered model version, made live."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG

from estudio_core.dag_factory.forms import form
from estudio_core.dag_factory.release_steps import release_tasks
from estudio_core.dag_factory.steps import Steps, plugin_dag
from estudio_core.plugin.contract import ReleaseParams
from estudio_core.plugin.discovery import PluginCard


def resolve_version(plugin: str, params: dict[str, Any] | None = None) -> str:
    """Find which registered version is meant by an alias or a number."""
    from estudio_core.pipeline.register import resolve_version

    return resolve_version(plugin, params or {})


def release_dag(card: PluginCard) -> DAG:
    """Return the DAG that makes a model version live."""
    doc = "Exports and publishes a version, builds its collection beside the live one, verifies it and switches over."
    with plugin_dag(card, "release", "Release", doc, params=form(ReleaseParams())) as dag:
        steps = Steps(card)
        release_tasks(steps, steps(resolve_version)(card.meta.name))
    return dag
