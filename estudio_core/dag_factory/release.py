"""`<plugin>__release`: one registered model version, made live."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, get_current_context

from estudio_core.dag_factory.assets import alias_asset
from estudio_core.dag_factory.forms import form
from estudio_core.dag_factory.release_steps import release_tasks
from estudio_core.dag_factory.steps import URGENT, Steps, plugin_dag, started_by
from estudio_core.plugin.discovery import PluginCard
from estudio_core.plugin.run_params import ReleaseParams


def take_up(plugin: str, run_id: str | None = None, params: dict[str, Any] | None = None) -> str:
    """Find which registered version is to go live: what fine-tuning, a moved alias or this form asked for."""
    from estudio_core.pipeline.take_up import take_up

    dag_run = get_current_context()["dag_run"]
    by_alias = dag_run.run_type == "asset_triggered"
    return take_up(plugin, str(run_id), params or {}, started_by(dag_run), by_alias=by_alias)


def release_dag(card: PluginCard) -> DAG:
    """Return the DAG that makes a model version live."""
    name = card.meta.name
    doc = (
        "Exports and publishes a version, builds its collection beside the live one, verifies it and switches over.\n\n"
        "Starts by itself, within a minute, when somebody moves the alias `champion` or `challenger` of the model "
        f"`{name}` in MLflow. A release that fails puts the alias back and leaves the reason on the version, tag "
        "`estudio.release`. Of two requests the later one wins; the audit trail is `estudio promotions`."
    )
    with plugin_dag(card, "release", "Release", doc, schedule=[alias_asset(name)], params=form(ReleaseParams())) as dag:
        steps = Steps(card)
        release_tasks(steps, steps(take_up, **URGENT)(name))
    return dag
