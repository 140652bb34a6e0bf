"""`<plugin>__improve`: vectors of shown items moved by clicks, between two trainings."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, get_current_context

from estudio_core.dag_factory.assets import release_asset
from estudio_core.dag_factory.forms import form
from estudio_core.dag_factory.links import ImprovementLink
from estudio_core.dag_factory.steps import TRAINING_POOL, Steps, plugin_dag, started_by
from estudio_core.plugin.discovery import PluginCard
from estudio_core.plugin.run_params import ImproveParams


def choose(params: dict[str, Any] | None = None) -> str:
    """Move vectors, or take back what was moved."""
    return "revert" if (params or {}).get("action") == "revert" else "adjust"


def adjust(plugin: str, run_id: str | None = None, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """Move vectors by the newest sessions, measure them on held-out ones, write the report, decide."""
    from estudio_core.pipeline.adjust import adjust

    return adjust(plugin, str(run_id), params or {}).as_dict()


def apply(plugin: str, adjusted: dict[str, Any], run_id: str | None = None) -> str:
    """Write the moved vectors into the live collection, or undo earlier ones where they harm."""
    from estudio_core.pipeline.apply import apply

    return apply(plugin, str(run_id), adjusted)


def revert(plugin: str, run_id: str | None = None) -> int:
    """Give all moved vectors of the live release back what the model gave them."""
    from estudio_core.pipeline.revert import revert

    return revert(plugin, str(run_id), started_by(get_current_context()["dag_run"]))


def improve_dag(card: PluginCard) -> DAG:
    """Return the DAG that improves the live collection without training."""
    name = card.meta.name
    doc = (
        "Takes the sessions since its last run and turns the vectors of clicked items towards the queries, with the "
        "plugin's vectors adjuster, by no more than an angle from what the model gave. Sessions of held-out queries "
        "measure it; what would cost quality is not written, what turns out to is undone and the DAG stays off until "
        "the next release. Moved vectors end with their release."
    )
    with plugin_dag(
        card, "improve", "Improve", doc, schedule=card.dag_settings.improve_schedule, params=form(ImproveParams())
    ) as dag:
        steps = Steps(card)
        chosen = steps.branch(choose)()
        adjusted = steps(adjust, pool=TRAINING_POOL, inlets=[release_asset(name)], links=[ImprovementLink(name)])(name)
        chosen >> [adjusted, steps(revert)(name)]
        steps(apply)(name, adjusted)
    return dag
