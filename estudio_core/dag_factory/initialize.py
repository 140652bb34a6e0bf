"""`<plugin>__initialize`: from a table of items to a searchable catalog with the base model."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, get_current_context
from airflow.sdk.exceptions import AirflowSkipException

from estudio_core.dag_factory.forms import form
from estudio_core.dag_factory.links import MLflowRunLink, ReportLink
from estudio_core.dag_factory.release_steps import release_tasks
from estudio_core.dag_factory.steps import TRAINING_POOL, Steps, plugin_dag, started_by
from estudio_core.plugin.discovery import PluginCard
from estudio_core.plugin.run_params import InitializeParams


def check_source(plugin: str, limit_minutes: int) -> dict[str, Any]:
    """Check that database, table and columns are there, count the items, and see whether their index fits."""
    from estudio_core.pipeline.check_source import check_source

    return check_source(plugin, limit_minutes).as_dict()


def pair_catalog(
    plugin: str, source: dict[str, Any], run_id: str | None = None, params: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Make pairs of the items' texts to learn from, and known items to judge by; skipped without `pretrain`."""
    from estudio_core.plugin.run_params import InitializeParams

    if InitializeParams.model_validate(params or {}).pretrain == "off":
        raise AirflowSkipException("pretrain is off: the base model goes live as it is.")
    from estudio_core.pipeline.pair_catalog import pair_catalog

    return pair_catalog(plugin, str(run_id)).as_dict()


def pretrain(plugin: str, paired: dict[str, Any], run_id: str | None = None) -> dict[str, Any]:
    """Adapt the base model to the catalog, in a process of its own."""
    from estudio_core.pipeline.pretrain import pretrain

    return pretrain(plugin, str(run_id), paired).as_dict()


def judge(plugin: str, pretrained: dict[str, Any], run_id: str | None = None) -> dict[str, Any]:
    """Compare adapted and base model on known items that training never saw, and by judgments; write the report."""
    from estudio_core.pipeline.judge import judge

    return judge(plugin, str(run_id), pretrained).as_dict()


def register_base_model(
    plugin: str, source: dict[str, Any], judged: dict[str, Any] | None = None, run_id: str | None = None
) -> str:
    """Register the base model in MLflow, under the alias `base`, and ask for its release, or that of what is better."""
    from estudio_core.pipeline.register_base_model import register_base_model

    return register_base_model(plugin, str(run_id), started_by(get_current_context()["dag_run"]), judged)


def initialize_dag(card: PluginCard) -> DAG:
    """Return the DAG that is run once, by hand."""
    doc = (
        "Registers the base model, exports and publishes it, builds the first collection and makes it live. With "
        "`pretrain`, the model is adapted to the catalog first, and what is better goes live."
    )
    name = card.meta.name
    defaults = InitializeParams(pretrain="catalog" if card.pretrain else "off")
    with plugin_dag(card, "initialize", "Initialize", doc, params=form(defaults)) as dag:
        steps = Steps(card)
        source = steps(check_source)(name, card.dag_settings.index_timeout_minutes)
        run_link = MLflowRunLink(name)
        paired = steps(pair_catalog, training=True)(name, source)
        pretrained = steps(pretrain, pool=TRAINING_POOL, training=True, links=[run_link])(name, paired)
        judged = steps(judge, pool=TRAINING_POOL, links=[run_link, ReportLink(name)])(name, pretrained)
        # Skipped pretraining, asked for or for want of items, keeps nothing from going live.
        version = steps(register_base_model, trigger_rule="none_failed")(name, source, judged)
        release_tasks(steps, version)
    return dag
