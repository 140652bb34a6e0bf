"""Training, in a process of its own that dies with its task."""

from __future__ import annotations

import shutil
import time
from typing import Any

from estudio_core.artifacts import ArtifactStore, safe_name
from estudio_core.errors import EstudioError
from estudio_core.pipeline.manifests import DatasetManifest, TrainingManifest
from estudio_core.pipeline.training.child import run_process
from estudio_core.pipeline.training.start import start_of
from estudio_core.plugin.precedence import resolve
from estudio_core.plugin.registry import open_plugin
from estudio_core.settings import get_settings


def train(plugin_name: str, run_id: str, dataset: dict[str, Any], params: dict[str, Any]) -> TrainingManifest:
    """Fine-tune the start version on a stored training set; keep the latest weights that dev queries do not call worse.

    A fresh interpreter does the work, because a forked one cannot use CUDA; it ends when this process ends.

    Raises:
        ModelError: training failed; the message is that of the process.
        DataError: the training set cannot be used.
        ConfigurationError: the version to start from does not exist, or does not fit the items that are live.
    """
    stored = DatasetManifest.model_validate(dataset)
    plugin = open_plugin(plugin_name)
    run = resolve(params, plugin=plugin.fine_tune, training=plugin.training.given)
    manager = plugin.experiments
    start = start_of(manager, run)
    iteration = manager.start_iteration(
        run_id,
        dataset_id=stored.dataset_id,
        dataset_uri=stored.uri,
        start_version=start.version,
        params=run.model_dump(exclude={"training", "of_plugin", "of_form"}) | run.training.to_mlflow(),
    )
    versions = manager.registry.versions()
    store = ArtifactStore()
    # Outside of the step's folder: what finished trials left survives a killed attempt, and a rerun goes on from there.
    trials = get_settings().home.resolve() / "trials" / safe_name(plugin_name) / safe_name(run_id)
    began = time.monotonic()
    kept = trials / f"dataset-{safe_name(stored.dataset_id)}"
    with store.fetch(stored.uri, keep=kept) as data_folder, store.publish(plugin_name, run_id, "training") as folder:
        request: dict[str, Any] = {
            "plugin": plugin_name,
            "dataset": str(data_folder.resolve()),
            "dataset_id": stored.dataset_id,
            "model": str(manager.download_model(start.version)),
            "model_digest": versions[start.version].digest,
            "output": str(folder.resolve()),
            "trials": str(trials),
            "run": run.model_dump(mode="json"),
            "iteration": vars(iteration),
        }
        if start.item_version is not None:
            request["item_model"] = str(manager.download_model(start.item_version))
            request["item_version"] = start.item_version
        try:
            result = run_process(request, run.training.threads)
        except EstudioError as error:
            manager.end_iteration(iteration, error=str(error))
            raise
    manager.end_iteration(iteration)
    shutil.rmtree(trials, ignore_errors=True)
    return TrainingManifest(
        uri=store.uri(plugin_name, run_id, "training"),
        dataset=stored,
        start_version=str(start.version),
        item_version=None if start.item_version is None else str(start.item_version),
        mlflow_run_id=result["mlflow_run_id"],
        metrics=result["metrics"],
        params=result["params"],
        seconds=round(time.monotonic() - began, 1),
    )
