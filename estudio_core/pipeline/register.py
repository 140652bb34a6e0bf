"""The candidate in the registry, with its numbers, its report, and what happens next."""

from __future__ import annotations

from typing import Any

from estudio_core import database
from estudio_core.models.towers import ITEM_VERSION_TAG
from estudio_core.pipeline.manifests import EvaluationManifest, NextStep, RegistrationManifest
from estudio_core.pipeline.training.sessions import window_end
from estudio_core.plugin.precedence import resolve
from estudio_core.plugin.registry import open_plugin
from estudio_core.plugin.run_params import FineTuneRun
from estudio_core.promotion.trainings import note_training


def register(plugin_name: str, run_id: str, evaluated: dict[str, Any], params: dict[str, Any]) -> RegistrationManifest:
    """Register the trained model under the alias `challenger`, attach the report, and say what happens next."""
    from estudio_core.artifacts import ArtifactStore

    plugin = open_plugin(plugin_name)
    wanted = resolve(params, plugin=plugin.fine_tune)
    evaluation = EvaluationManifest.model_validate(evaluated)
    registered = RegistrationManifest(
        version=None,
        promoted=evaluation.promoted,
        reason=evaluation.reason,
        summary=evaluation.summary,
        next_step=_next_step(wanted, evaluation),
        report_uri=f"{evaluation.uri}/report.html",
    )
    if wanted.dry_run:
        reason = f"Dry run: nothing is registered. {evaluation.reason}"
        _note(plugin_name, run_id, evaluation, None)
        return registered.model_copy(update={"reason": reason, "next_step": "keep_champion"})
    manager = plugin.experiments
    store = ArtifactStore()
    with store.fetch(evaluation.training.uri) as folder:
        version = manager.register_model(
            folder / "model",
            evaluation.training.mlflow_run_id,
            tags={
                "estudio.gate": _gate(evaluation),
                "estudio.gate.reason": evaluation.reason,
                "estudio.dataset_id": evaluation.training.dataset.dataset_id,
                "estudio.start_version": evaluation.training.start_version,
            }
            | (
                {} if evaluation.training.item_version is None else {ITEM_VERSION_TAG: evaluation.training.item_version}
            ),
            metrics=evaluation.metrics,
            reason=evaluation.reason,
            actor=f"fine_tune {run_id}",
        )
    with store.fetch(evaluation.uri) as folder:
        manager.log_file(evaluation.training.mlflow_run_id, folder / "report.html", "report")
    _note(plugin_name, run_id, evaluation, str(version))
    return registered.model_copy(update={"version": str(version)})


def _note(plugin_name: str, run_id: str, evaluation: EvaluationManifest, version: str | None) -> None:
    """Write down that the run's sessions were trained on, and where the report is."""
    from estudio_core.artifacts import ArtifactStore

    with database.transaction() as connection:
        note_training(
            connection,
            plugin_name,
            run_id,
            until=window_end(ArtifactStore(), plugin_name, run_id),
            version=version,
            promoted=evaluation.promoted,
            reason=evaluation.reason,
            report_uri=evaluation.uri,
            numbers=evaluation.metrics,
        )


def _gate(evaluation: EvaluationManifest) -> str:
    if evaluation.undecided:
        return "cannot tell"
    return "passed" if evaluation.promoted else "refused"


def _next_step(run: FineTuneRun, evaluation: EvaluationManifest) -> NextStep:
    if run.promotion == "approval":
        return "approve"
    if run.promotion in ("auto", "experiment") and evaluation.promoted:
        return "request_release"
    if run.promotion == "experiment" and evaluation.undecided:
        return "compare"
    return "keep_champion"
