"""The model that a plugin begins with, in the registry, and the request for its release."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from estudio_core import database
from estudio_core.artifacts import ArtifactStore
from estudio_core.experiments.iteration import KIND_TAG
from estudio_core.pipeline.items.base_version import registered_base
from estudio_core.pipeline.manifests import JudgedManifest
from estudio_core.plugin.registry import open_plugin
from estudio_core.promotion import ledger

if TYPE_CHECKING:
    from estudio_core.experiments.manager import ExperimentsManager

logger = logging.getLogger(__name__)

PRETRAINING_TAG = "estudio.pretrain"
"""Tag of a version: what it was adapted to; of a base model, why its adaptation was refused."""


def register_base_model(plugin_name: str, run_id: str, actor: str, judged: dict[str, Any] | None = None) -> str:
    """Register the plugin's base model, ask for its release, and return its version; a rerun returns the same.

    An adaptation to the catalog that was judged to be better is registered beside it, and released in its place.

    Args:
        plugin_name: The plugin.
        run_id: The run, which carries out the release.
        actor: Who started it.
        judged: What `judge` returned; None: there was no pretraining.

    Raises:
        SupersededError: this is a rerun, and something newer was asked for or went live since.
    """
    plugin = open_plugin(plugin_name)
    manager = plugin.experiments
    reason, numbers = "base model", {}
    if judged is None:
        version = registered_base(plugin)
    else:
        verdict = JudgedManifest.model_validate(judged)
        reason, numbers = f"adaptation of the base model to the catalog: {verdict.reason}", verdict.metrics
        version = _registered(manager, verdict, int(verdict.training.base_version), run_id)
        logger.info("Version %d goes live; %s\n\n%s", version, reason, verdict.summary)
    with database.connect(autocommit=True) as connection:
        promotion = ledger.request(
            connection, plugin_name, "initialize", actor, str(version), run_id=run_id, reason=reason, numbers=numbers
        )
        ledger.require_open(connection, promotion)
    return str(version)


def _registered(manager: ExperimentsManager, verdict: JudgedManifest, base: int, run_id: str) -> int:
    """Return the version to serve: the adapted one, registered, or the base model, on which stands why it is not."""
    store = ArtifactStore()
    mlflow_run = verdict.training.mlflow_run_id
    with store.fetch(verdict.uri) as folder:
        manager.log_file(mlflow_run, folder / "report.html", "report")
    if not verdict.promoted:
        manager.log_metrics(mlflow_run, verdict.metrics)
        manager.registry.set_tags(base, {PRETRAINING_TAG: verdict.reason})
        return base
    with store.fetch(verdict.training.uri) as folder:
        return manager.register_model(
            folder / "model",
            mlflow_run,
            tags={
                KIND_TAG: "catalog-adapted",
                PRETRAINING_TAG: "catalog",
                "estudio.gate": "passed",
                "estudio.gate.reason": verdict.reason,
                "estudio.dataset_id": verdict.training.pairs.dataset_id,
                "estudio.start_version": verdict.training.base_version,
            },
            metrics=verdict.metrics,
            reason=verdict.reason,
            actor=f"initialize {run_id}",
        )
