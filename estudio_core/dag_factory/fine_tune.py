"""`<plugin>__fine_tune`: from the clickstream to a better model, and to its release when the gate agrees."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, get_current_context

from estudio_core.dag_factory.approval import RESPONDER_KEY, ApprovalQuestion
from estudio_core.dag_factory.assets import dataset_asset, model_asset, sessions_asset
from estudio_core.dag_factory.forms import form
from estudio_core.dag_factory.links import MLflowRunLink, ReportLink
from estudio_core.dag_factory.steps import TRAINING_POOL, Steps, plugin_dag
from estudio_core.plugin.discovery import PluginCard

APPROVAL_DAYS = 7
"""How long a person has to answer; afterwards the task fails and the champion keeps serving."""


def extract(
    plugin: str, every: int | None = None, run_id: str | None = None, params: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Take the sessions of the window from the clickstream; rest where the new ones were trained on meanwhile."""
    from estudio_core.pipeline.extract import extract

    # The trigger is a doorbell, which rings again when the triggerer restarts: what it rang for is counted here.
    rung = get_current_context()["dag_run"].run_type == "asset_triggered"
    return extract(plugin, str(run_id), params or {}, every if rung else None).as_dict()


def preprocess(plugin: str, sessions: dict[str, Any], run_id: str | None = None) -> dict[str, Any]:
    """Load the items that were shown, split queries and texts, and store the training set."""
    from estudio_core.pipeline.preprocess import preprocess

    return preprocess(plugin, str(run_id), sessions).as_dict()


def train(
    plugin: str, dataset: dict[str, Any], run_id: str | None = None, params: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Fine-tune the model, in a process of its own."""
    from estudio_core.pipeline.train import train

    return train(plugin, str(run_id), dataset, params or {}).as_dict()


def evaluate(plugin: str, trained: dict[str, Any], run_id: str | None = None) -> dict[str, Any]:
    """Compare candidate and champion on queries seen and never seen in training; write the report."""
    from estudio_core.pipeline.evaluate import evaluate

    return evaluate(plugin, str(run_id), trained).as_dict()


def register(
    plugin: str, evaluated: dict[str, Any], run_id: str | None = None, params: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Register the candidate as a model version, with its numbers, under the alias `challenger`."""
    from estudio_core.pipeline.register import register

    return register(plugin, str(run_id), evaluated, params or {}).as_dict()


def decide(registered: dict[str, Any]) -> str:
    """Release, ask a person, have users decide, or keep the champion."""
    return str(registered["next_step"])


def request_release(plugin: str, registered: dict[str, Any], run_id: str | None = None) -> str:
    """Ask for the release, in the name of the gate or of who approved; the run that follows carries it out."""
    from estudio_core.pipeline.request_release import request_release

    approved_by = _answered_by()
    if approved_by:
        return request_release(plugin, registered, release_run_id(run_id), "approval", approved_by)
    return request_release(plugin, registered, release_run_id(run_id), "gate", f"gate of {run_id}")


def refuse(plugin: str, registered: dict[str, Any], run_id: str | None = None) -> str:
    """Write down who refused the candidate."""
    from estudio_core.pipeline.refuse import refuse

    return refuse(plugin, registered, release_run_id(run_id), _answered_by() or "somebody")


def release_run_id(run_id: str | None) -> str:
    """Return the id of the release run that a fine-tuning run starts."""
    return f"{run_id}__release"


def _answered_by() -> str | None:
    """Return who answered the task `approve`; None where nobody was asked."""
    user = get_current_context()["ti"].xcom_pull(task_ids="approve", key=RESPONDER_KEY)
    return str(user) if user else None


def keep_champion(registered: dict[str, Any]) -> str:
    """Say why nothing is released."""
    return str(registered["reason"])


def fine_tune_dag(card: PluginCard) -> DAG:
    """Return the DAG that learns from clicks."""
    doc = (
        "Extracts sessions, trains, evaluates against the champion on seen and unseen queries, registers the result "
        "as `challenger`, and starts a release when the gate (or a person) agrees; with `promotion=experiment`, one of "
        "those where the gate cannot tell."
    )
    name = card.meta.name
    every = card.dag_settings.every_sessions
    schedule = card.dag_settings.schedule if every is None else [sessions_asset(name, every)]
    with plugin_dag(card, "fine_tune", "Fine-tune", doc, schedule=schedule, params=form(card.fine_tune_params)) as dag:
        steps = Steps(card)
        sessions = steps(extract)(name, every)
        dataset = steps(preprocess, outlets=[dataset_asset(name)])(name, sessions)
        made_of, run_link = [dataset_asset(name)], MLflowRunLink(name)
        trained = steps(train, pool=TRAINING_POOL, training=True, inlets=made_of, links=[run_link])(name, dataset)
        looked_at = [run_link, ReportLink(name)]
        evaluated = steps(evaluate, pool=TRAINING_POOL, links=looked_at)(name, trained)
        registered = steps(register, outlets=[model_asset(name)], links=[ReportLink(name)])(name, evaluated)
        decision = steps.branch(decide)(registered)
        approve = ApprovalQuestion(
            task_id="approve",
            subject=f"Promote version {{{{ ti.xcom_pull('register')['version'] }}}} of {name}?",
            body="{{ ti.xcom_pull('register')['summary'] }}\n\n"
            f"[Report](/estudio/plugins/{name}/report?run_id={{{{ run_id | urlencode }}}})",
            options=["Promote", "Keep the champion"],
            options_mapping={"Promote": "request_release", "Keep the champion": "refuse"},
            response_timeout=timedelta(days=APPROVAL_DAYS),
            execution_timeout=timedelta(minutes=5),
        )
        requested = steps(request_release, trigger_rule="none_failed_min_one_success")(name, registered)
        release = TriggerDagRunOperator(
            task_id="release",
            trigger_dag_id=f"{name}__release",
            trigger_run_id=release_run_id("{{ run_id }}"),
            conf={"version": "{{ ti.xcom_pull('request_release') }}"},
            reset_dag_run=True,
            execution_timeout=timedelta(minutes=5),
        )
        compare = TriggerDagRunOperator(
            task_id="compare",
            trigger_dag_id=f"{name}__experiment",
            trigger_run_id="{{ run_id }}__experiment",
            conf={"version": "{{ ti.xcom_pull('register')['version'] }}"},
            skip_when_already_exists=True,  # this run was cleared: users decide once
            execution_timeout=timedelta(minutes=5),
        )
        decision >> [approve, requested, compare, steps(keep_champion)(registered)]
        approve >> [requested, steps(refuse)(name, registered)]
        requested >> release
    return dag
