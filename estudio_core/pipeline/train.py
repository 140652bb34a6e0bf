"""Training, in a process of its own that dies with its task."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

from estudio_core.artifacts import ArtifactStore, safe_name
from estudio_core.errors import DataError, EstudioError, ModelError
from estudio_core.pipeline.manifests import DatasetManifest, TrainingManifest
from estudio_core.pipeline.training.start import start_of
from estudio_core.plugin.precedence import resolve
from estudio_core.plugin.registry import open_plugin
from estudio_core.progress import report
from estudio_core.settings import get_settings

_STOP_GRACE_S = 10


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


def run_process(request: dict[str, Any], threads: int | None) -> dict[str, Any]:
    """Run `training.process` on `request`, pass its progress on, and return its result.

    Raises: as `train`.
    """
    environment = dict(os.environ)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    environment["TOKENIZERS_PARALLELISM"] = "false"
    process = subprocess.Popen(
        [sys.executable, "-m", "estudio_core.pipeline.training.process", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=sys.stderr if _is_file(sys.stderr) else None,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    result: dict[str, Any] | None = None
    failure: dict[str, str] | None = None
    try:
        json.dump(request, process.stdin)
        process.stdin.close()
        for line in process.stdout:
            message = _message(line)
            if message is None:
                print(line, end="", flush=True)
            elif message["kind"] == "progress":
                report(**message["progress"])
            elif message["kind"] == "result":
                result = message["result"]
            else:
                failure = message
        process.wait()
    finally:
        _stop(process)
    if failure is not None:
        kind = DataError if failure["error"] == "DataError" else ModelError
        raise kind(f"Training failed: {failure['message']}")
    if result is None:
        raise ModelError(
            f"The training process ended with status {process.returncode} and no result. "
            + ("It was killed, often for want of memory: lower the batch size. " if process.returncode < 0 else "")
            + "Its output is in this task's log."
        )
    return result


def _message(line: str) -> dict[str, Any] | None:
    """Return the message in a line of the process, None for other output."""
    if not line.startswith("\x1e"):
        return None
    message: dict[str, Any] = json.loads(line[1:])
    return message


def _stop(process: subprocess.Popen[str]) -> None:
    """End the process and everything it started, if it still runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _is_file(stream: Any) -> bool:
    """Airflow replaces stderr in tasks by an object without a file descriptor."""
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True
