"""Runs of one plugin in MLflow: an iteration is a parent run, each of its trials a child run."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estudio_core.experiments.alias_audit import TAG_UNITS, fitted
from estudio_core.experiments.metrics_accumulator import MetricsAccumulator
from estudio_core.experiments.mlflow_client import MLflowClientWrapper

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

QUALITY = "quality"
"""Metric of a finished trial by which trials are compared: the main metric of its best weights."""
KEY_TAG = "estudio.key"
KIND_TAG = "estudio.kind"
_METRICS_PER_REQUEST = 1000  # limits of MLflow's log-batch
_PARAMS_PER_REQUEST = 100


@dataclass(frozen=True)
class Iteration:
    """One fine-tuning of a plugin: the parent run of its trials."""

    run_id: str
    experiment_id: str
    key: str
    """What it was started for: the id of the run of the orchestrator."""


@dataclass
class TrialRun:
    """A child run under an iteration; logs metrics in batches.

    A context manager: leaves the run FINISHED, or FAILED after an exception.
    """

    wrapper: MLflowClientWrapper
    run_id: str
    main_metric: str
    is_loss: bool
    accumulators: Mapping[str, MetricsAccumulator] = field(default_factory=dict)
    finished: bool = False
    """Whether an earlier attempt has completed this trial: it need not run again."""
    flush_each: int = 200
    """Values kept in memory before they are sent."""

    def __post_init__(self) -> None:
        self._pending: list[tuple[str, float, int, int]] = []
        self._best: float | None = None

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take note of metrics at an optimiser step, with what their accumulators make of them."""
        now_ms = int(time.time() * 1000)
        for name, value in metrics.items():
            accumulator = self.accumulators.get(name)
            if accumulator is None:
                self._pending.append((metric_name(name), float(value), now_ms, step))
            else:
                self._pending.extend(
                    (metric_name(emitted.name), float(emitted.value), now_ms, step)
                    for emitted in accumulator.accumulate(value)
                )
            if name == self.main_metric and value == value:
                better = self._best is None or (value < self._best if self.is_loss else value > self._best)
                self._best = float(value) if better else self._best
        if len(self._pending) >= self.flush_each:
            self.flush()

    def flush(self) -> None:
        """Send what is pending.

        Raises:
            TrackingUnavailableError: the server does not answer; the values stay pending.
        """
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        while self._pending:
            chunk = self._pending[:_METRICS_PER_REQUEST]
            batch = [Metric(name, value, at_ms, step) for name, value, at_ms, step in chunk]
            self.wrapper.call(partial(MlflowClient.log_batch, run_id=self.run_id, metrics=batch))
            del self._pending[: len(chunk)]

    def end(self, quality: float | None = None, error: str | None = None, *, pruned: bool = False) -> None:
        """Close the run with its quality (None: the best value of the main metric) or with what went wrong.

        Where it was `pruned`, it gets a tag that says so instead of a quality.
        """
        self.flush()
        quality = self._best if quality is None and not pruned else quality
        status = "FINISHED" if error is None else "FAILED"

        def close(client: MlflowClient) -> None:
            if error is None and quality is not None:
                client.log_metric(self.run_id, QUALITY, quality)
            if error is not None:
                client.set_tag(self.run_id, "estudio.error", fitted(error, TAG_UNITS))
            if pruned:
                client.set_tag(self.run_id, "estudio.pruned", "true")
            client.set_terminated(self.run_id, status)

        self.wrapper.call(close)
        self.finished = error is None

    def __enter__(self) -> TrialRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.end(error=f"{type(error).__name__}: {error}")
        elif not self.finished:
            self.end()


def metric_name(name: str) -> str:
    """Return a metric's name in MLflow, which allows no `@`.

    >>> metric_name("test_ndcg@10")
    'test_ndcg_at_10'
    """
    return re.sub(r"[^\w\-. :/]", "_", name.replace("@", "_at_"), flags=re.ASCII)


def run_key(*parts: str) -> str:
    """Return a tag value that identifies a run by what it is for, safe in MLflow's filter language.

    >>> run_key("trial", "manual__2026-01-01", "a'b")
    'bc94f3cd6ec22eb6d6848a67e26632a6'
    """
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]


def find_run(client: MlflowClient, experiment_id: str, key: str) -> Run | None:
    """Return the newest run with that key, None where there is none."""
    found = client.search_runs(
        [experiment_id], filter_string=f"tags.`{KEY_TAG}` = '{key}'", order_by=["attributes.start_time DESC"],
        max_results=1,
    )  # fmt: skip
    return found[0] if found else None


def log_params(client: MlflowClient, run_id: str, params: Mapping[str, str]) -> None:
    """Log parameters in requests of the size that MLflow allows."""
    from mlflow.entities import Param

    items = [Param(name, value) for name, value in sorted(params.items())]
    for start in range(0, len(items), _PARAMS_PER_REQUEST):
        client.log_batch(run_id, params=items[start : start + _PARAMS_PER_REQUEST])


def log_dataset(client: MlflowClient, run_id: str, name: str, dataset_id: str, uri: str) -> None:
    """Attach the training data to a run, by the hash of its content."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(name=name, digest=dataset_id[:36], source_type="estudio", source=uri or dataset_id)
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def as_tags(values: Mapping[str, Any]) -> dict[str, str]:
    """Return values as tags, without those that are None."""
    return {name: fitted(str(value), TAG_UNITS) for name, value in values.items() if value is not None}


@lru_cache(maxsize=1)
def code_tags() -> dict[str, str]:
    """Return the versions of the code that trains: the package's, and the commit of the checkout it is run from."""
    tags = {"estudio.version": metadata.version("estudio"), "mlflow.source.type": "LOCAL"}
    command = ["git", "-C", str(Path.cwd()), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(
            command, capture_output=True, text=True, timeout=5, check=False, env={**os.environ, "LC_ALL": "C"}
        )
    except (OSError, subprocess.TimeoutExpired):
        return tags
    if found.returncode == 0:
        tags["mlflow.source.git.commit"] = found.stdout.strip()
    return tags


def metric_curves(client: MlflowClient, run_id: str, names: Iterable[str]) -> dict[str, list[tuple[int, float]]]:
    """Return (step, value) points of metrics in the order they were logged."""
    return {
        name: [(point.step, point.value) for point in client.get_metric_history(run_id, metric_name(name))]
        for name in names
    }
