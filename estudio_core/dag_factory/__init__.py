"""From a search plugin to its Airflow DAGs.

A DAG stub is two lines:

    from estudio_core.dag_factory import build_dags

    globals().update(build_dags("demo_catalog"))
"""

from __future__ import annotations

from collections.abc import Callable

from airflow.sdk import DAG, get_parsing_context

from estudio_core.dag_factory.experiment import experiment_dag
from estudio_core.dag_factory.fine_tune import fine_tune_dag
from estudio_core.dag_factory.improve import improve_dag
from estudio_core.dag_factory.initialize import initialize_dag
from estudio_core.dag_factory.release import release_dag
from estudio_core.dag_factory.rollback import rollback_dag
from estudio_core.dag_factory.sync import sync_dag
from estudio_core.dag_factory.watch import watch_dag
from estudio_core.plugin.discovery import PluginCard, read_card

__all__ = ["DAG_KINDS", "build_dags"]

DAG_KINDS: dict[str, Callable[[PluginCard], DAG]] = {
    "initialize": initialize_dag,
    "fine_tune": fine_tune_dag,
    "release": release_dag,
    "experiment": experiment_dag,
    "improve": improve_dag,
    "rollback": rollback_dag,
    "sync": sync_dag,
    "watch": watch_dag,
}


def build_dags(plugin: str) -> dict[str, DAG]:
    """Return the DAGs of `plugin` by DAG id; inside a task, only the DAG that the task belongs to.

    Raises:
        PluginError: the plugin's file is missing or broken; Airflow shows it as an import error of the stub.
    """
    card = read_card(plugin)
    wanted = get_parsing_context().dag_id
    return {
        dag_id: build(card)
        for kind, build in DAG_KINDS.items()
        if (dag_id := f"{card.meta.name}__{kind}") == wanted or wanted is None
    }
