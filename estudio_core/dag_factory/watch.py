"""`<plugin>__watch`: how the live release does, and whether users have drifted from what it was trained on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, get_current_context

from estudio_core.dag_factory.assets import release_asset
from estudio_core.dag_factory.forms import form
from estudio_core.dag_factory.links import PageLink
from estudio_core.dag_factory.metrics import emit_gauges
from estudio_core.dag_factory.notices import callbacks
from estudio_core.dag_factory.steps import Steps, plugin_dag
from estudio_core.plugin.dag_settings import Notice
from estudio_core.plugin.discovery import PluginCard

logger = structlog.get_logger("estudio.watch")


def measure(plugin: str, run_id: str | None = None, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """Measure the live release on fresh sessions, and drift; write the row and set the gauges."""
    from estudio_core.pipeline.measure import measure

    seen = measure(plugin, str(run_id), params or {})
    emit_gauges(plugin, seen.release_id, {"sessions": seen.sessions, "drift": len(seen.drift), **seen.numbers})
    return seen.as_dict()


def conclude_experiment(plugin: str) -> str:
    """Look at the plugin's experiment, also one that no DAG has started, and carry out its verdict."""
    from estudio_core.pipeline.conclude_experiment import conclude_experiment

    found = conclude_experiment(plugin)
    return "none" if found is None else f"{found.experiment_id}: {found.verdict or found.state}"


def react(measured: dict[str, Any]) -> list[str]:
    """Start a training and tell of it, only tell, or rest."""
    return {"train": ["start_training", "notify"], "notify": ["notify"], "none": ["rest"]}[measured["reaction"]]


def notify(measured: dict[str, Any], notices: list[dict[str, Any]]) -> str:
    """Tell whom the plugin names under `on_drift`, and the log."""
    logger.warning("drift", drift=measured["drift"], summary=measured["summary"], reaction=measured["reaction"])
    context = get_current_context()
    context["drift"] = measured  # type: ignore[typeddict-unknown-key]  # for the templates of notifiers
    for tell in callbacks(tuple(Notice.model_validate(notice) for notice in notices)) or ():
        tell(context)
    return str(measured["summary"])


def rest(measured: dict[str, Any]) -> str:
    """Say why nothing follows."""
    return str(measured["summary"])


def watch_dag(card: PluginCard) -> DAG:
    """Return the DAG that watches what is live."""
    name, settings = card.meta.name, card.dag_settings
    doc = (
        "Measures sessions, click-through by position, nDCG@10 of the live release on fresh sessions, size and recall "
        "of the index, and the encoder's latency; then how far queries and clicks have drifted from those of the last "
        "training. Beyond the plugin's thresholds it starts `fine_tune`, once for the same drift, or only notifies. "
        "The numbers go to the Estudio page and to Airflow's metrics."
    )
    with plugin_dag(card, "watch", "Watch", doc, schedule=settings.watch_schedule, params=form(settings.watch)) as dag:
        steps = Steps(card)
        measured = steps(measure, inlets=[release_asset(name)], links=[PageLink(name)])(name)
        reaction = steps.branch(react)(measured)
        start_training = TriggerDagRunOperator(
            task_id="start_training",
            trigger_dag_id=f"{name}__fine_tune",
            trigger_run_id="{{ run_id }}__drift",
            skip_when_already_exists=True,  # this run was cleared: what it asked for, it asked for
            execution_timeout=timedelta(minutes=5),
        )
        callbacks(settings.on_drift)  # a path that leads nowhere is known now, not on the day of the drift
        told = steps(notify)(measured, [notice.model_dump() for notice in settings.on_drift])
        steps(conclude_experiment)(name)
        reaction >> [start_training, told, steps(rest)(measured)]
    return dag
