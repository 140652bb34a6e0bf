"""What a plugin keeps in MLflow: its base model, iterations, trials, registered versions and aliases."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estudio_core.errors import ConfigurationError
from estudio_core.experiments.alias_audit import TAG_UNITS, Alias, fitted
from estudio_core.experiments.iteration import (
    KEY_TAG,
    KIND_TAG,
    QUALITY,
    Iteration,
    TrialRun,
    as_tags,
    code_tags,
    find_run,
    log_dataset,
    log_params,
    metric_curves,
    run_key,
)
from estudio_core.experiments.metrics_accumulator import MetricsAccumulator
from estudio_core.experiments.mlflow_client import MLflowClientWrapper
from estudio_core.experiments.model_registry import ModelRegistry
from lightning_modules.config import TrainingConfig

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from estudio_core.models.embedding_model import EmbeddingModel

logger = logging.getLogger(__name__)


_NAME_UNITS = 250
"""Longest name of a run: MLflow's column is a VARCHAR(250)."""


class ExperimentsManager:
    """Runs and registered versions of one plugin.

    The MLflow experiment and the registered model bear the plugin's name. Nothing is connected before first use.

    Args:
        tracking_uri: MLflow URI; None: the installation's setting.
        main_metric: Logged metric by which trials are compared, such as `test_ndcg@10`.
        plugin_name: Name of the plugin.
        accumulators: Which running statistics of which metrics are logged beside the values.
        is_loss: Whether smaller values of the main metric are better.
        n_top_runs: Best trials of earlier iterations from which a new one starts.
    """

    def __init__(
        self,
        tracking_uri: str | None,
        main_metric: str,
        plugin_name: str,
        accumulators: Sequence[MetricsAccumulator],
        is_loss: bool = False,
        n_top_runs: int = 10,
        *,
        wrapper: MLflowClientWrapper | None = None,
    ) -> None:
        if not main_metric or not plugin_name:
            raise ConfigurationError("ExperimentsManager needs a main_metric and a plugin_name; one is empty.")
        if n_top_runs < 1:
            raise ConfigurationError(f"ExperimentsManager: n_top_runs = {n_top_runs}; it has to be 1 or more.")
        names = [accumulator.name for accumulator in accumulators]
        if len(names) != len(set(names)):
            raise ConfigurationError(f"ExperimentsManager: two accumulators for one metric among {sorted(names)}.")
        self.wrapper = wrapper or MLflowClientWrapper(tracking_uri)
        self.main_metric = main_metric
        self.plugin_name = plugin_name
        self.accumulators = tuple(accumulators)
        self.is_loss = is_loss
        self.n_top_runs = n_top_runs
        self.registry = ModelRegistry(self.wrapper, plugin_name)

    @classmethod
    def from_wrapper(
        cls,
        wrapper: MLflowClientWrapper,
        main_metric: str,
        plugin_name: str,
        accumulators: Sequence[MetricsAccumulator],
        is_loss: bool = False,
        n_top_runs: int = 10,
    ) -> ExperimentsManager:
        """Return a manager that shares a client, such as `experiments.shared.mlflow_client()`."""
        return cls(None, main_metric, plugin_name, accumulators, is_loss, n_top_runs, wrapper=wrapper)

    # Models

    def upload_initial_model(self, model: EmbeddingModel) -> int:
        """Register the base model under the alias `base` and return its version.

        The same model again returns the version it has. Another model becomes a new version and the new base.
        """
        from estudio_core.models.storage import save_model

        with tempfile.TemporaryDirectory(prefix="estudio-base-") as folder:
            save_model(model, Path(folder))
            return self.upload_initial_folder(Path(folder))

    def upload_initial_folder(self, folder: Path) -> int:
        """Do what `upload_initial_model` does with a model that is saved already."""
        iteration = self._run("base", "base", "base model", {}, {})
        tags = {KIND_TAG: "base", "estudio.plugin": self.plugin_name}
        version = self.registry.register(
            folder, experiment_id=iteration.experiment_id, run_id=iteration.run_id, tags=tags, params={}
        )
        former = self.registry.aliases().get("base")
        if former is not None and former != version:
            logger.warning("The base model of %s changed from version %d to %d.", self.plugin_name, former, version)
        self.registry.set_alias("base", version, reason="base model", actor="initialize")
        self.wrapper.call(lambda client: client.set_terminated(iteration.run_id, "FINISHED"))
        return version

    def register_model(
        self,
        model_folder: Path | str,
        run_id: str,
        *,
        tags: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        reason: str = "fine-tuned",
        actor: str = "fine_tune",
    ) -> int:
        """Register a model folder as a version with the alias `challenger` and return its number.

        The same content again returns the version it has. `metrics` are logged to the run and kept in the audit
        trail; `tags` become tags of the version.

        Raises:
            ModelError: the folder is missing or empty.
            TrackingUnavailableError: the server does not answer.
        """
        run = self.wrapper.call(lambda client: client.get_run(run_id))
        version_tags = as_tags({KIND_TAG: "fine-tuned", "estudio.plugin": self.plugin_name, **(tags or {})})
        version = self.registry.register(
            Path(model_folder),
            experiment_id=run.info.experiment_id,
            run_id=run_id,
            tags=version_tags,
            params=run.data.params,
        )
        self.registry.set_tags(version, version_tags)
        self.log_metrics(run_id, metrics or {})
        if self.registry.aliases().get("champion") != version:
            self.registry.set_alias("challenger", version, reason=reason, actor=actor, numbers=metrics)
        return version

    def download_model(self, version: int | str) -> Path:
        """Return a local folder with the model of a version number or alias (see `ModelRegistry.download`)."""
        return self.registry.download(version)

    def aliases(self) -> dict[str, int]:
        """Return alias -> version."""
        return self.registry.aliases()

    def set_alias(self, alias: Alias, version: int, *, reason: str, actor: str) -> None:
        """Let an alias name a version (see `ModelRegistry.set_alias`)."""
        self.registry.set_alias(alias, version, reason=reason, actor=actor)

    def promote(
        self,
        version: int | str,
        reason: str,
        actor: str,
        numbers: Mapping[str, float] | None = None,
        former: int | None = None,
    ) -> int | None:
        """Make a version the champion; return the former champion (see `ModelRegistry.promote`)."""
        return self.registry.promote(version, reason=reason, actor=actor, numbers=numbers, former=former)

    # Runs

    def start_iteration(
        self,
        key: str,
        *,
        dataset_id: str | None = None,
        dataset_uri: str = "",
        start_version: int | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> Iteration:
        """Start the parent run of an iteration, or find the one started before for the same `key`.

        Args:
            key: Id of the orchestrator's run; a rerun with the same id continues the same iteration.
            dataset_id: Hash of the training data.
            dataset_uri: Where the training data is.
            start_version: Registered version from which training starts.
            params: What was asked of this iteration; logged as parameters.
            tags: Further tags.
        """
        about: dict[str, Any] = {"estudio.orchestrator_run_id": key, "estudio.dataset_id": dataset_id}
        about |= {"estudio.start_version": start_version, **(tags or {})}
        iteration = self._run("iteration", key, f"iteration {key}", as_tags(about), as_tags(params or {}))
        if dataset_id is not None:
            self.wrapper.call(
                lambda client: log_dataset(client, iteration.run_id, self.plugin_name, dataset_id, dataset_uri)
            )
        return iteration

    def end_iteration(self, iteration: Iteration, error: str | None = None) -> None:
        """Close the parent run."""
        if error is not None:
            self.wrapper.call(
                lambda client: client.set_tag(iteration.run_id, "estudio.error", fitted(error, TAG_UNITS))
            )
        status = "FINISHED" if error is None else "FAILED"
        self.wrapper.call(lambda client: client.set_terminated(iteration.run_id, status))

    def start_trial(
        self, iteration: Iteration, params: TrainingConfig, *, name: str = "trial", resume: bool = False
    ) -> TrialRun:
        """Start the child run of a trial.

        A finished trial with the same name and parameters is returned as it is (`finished`). An unfinished one is
        replaced, or with `resume` continued.
        """
        key = run_key("trial", iteration.run_id, name, params.id)

        def start(client: MlflowClient) -> TrialRun:
            run = find_run(client, iteration.experiment_id, key)
            if run is not None and run.info.status != "FINISHED" and not resume:
                client.delete_run(run.info.run_id)
                run = None
            finished = run is not None and run.info.status == "FINISHED"
            if run is None:
                tags = {KEY_TAG: key, KIND_TAG: "trial", "mlflow.parentRunId": iteration.run_id}
                tags |= {"estudio.params_id": params.id, **code_tags()}
                run = client.create_run(iteration.experiment_id, tags=tags, run_name=name)
                log_params(client, run.info.run_id, params.to_mlflow())
            elif not finished:
                client.update_run(run.info.run_id, status="RUNNING")
            fresh = {accumulator.name: accumulator.fresh() for accumulator in self.accumulators}
            return TrialRun(self.wrapper, run.info.run_id, self.main_metric, self.is_loss, fresh, finished)

        with self.wrapper.lock(f"runs-{self.plugin_name}"):
            return self.wrapper.call(start)

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log a few metrics to a run at once."""
        run = TrialRun(self.wrapper, run_id, self.main_metric, self.is_loss)
        run.log(metrics, step)
        run.flush()

    def log_file(self, run_id: str, file: Path, folder: str | None = None) -> None:
        """Attach a file, such as the report, to a run."""
        self.wrapper.call(lambda client: client.log_artifact(run_id, str(file), folder))

    def curves(self, run_id: str, names: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
        """Return (step, value) points of a run's metrics."""
        return self.wrapper.call(lambda client: metric_curves(client, run_id, names))

    def trials(self, iteration: Iteration) -> list[Run]:
        """Return the child runs of an iteration, the best first, unfinished ones last."""
        return self._search(f"tags.`mlflow.parentRunId` = '{iteration.run_id}'", 1000)

    def top_params(self, n: int | None = None, *, before: Iteration | None = None) -> list[TrainingConfig]:
        """Return the distinct parameters of the `n` best finished trials (default `n_top_runs`).

        Those of the latest iteration come first, best first, then those of the one before: every iteration has dev
        queries of its own, so that qualities compare within one only.

        Args:
            n: How many at most.
            before: Trials of this iteration are left out.
        """
        wanted = self.n_top_runs if n is None else n
        found: dict[str, TrainingConfig] = {}
        runs = [run for run in self._search("attributes.status = 'FINISHED'", 1000, newest=True) if _measured(run)]
        runs.sort(key=lambda run: run.data.metrics[QUALITY], reverse=not self.is_loss)
        latest: dict[str, int] = {}
        for run in runs:
            latest[_iteration_of(run)] = max(latest.get(_iteration_of(run), 0), run.info.start_time)
        for run in sorted(runs, key=lambda run: -latest[_iteration_of(run)]):
            if before is not None and _iteration_of(run) == before.run_id:
                continue
            try:
                params = TrainingConfig.from_mlflow(run.data.params)
            except ConfigurationError as error:
                logger.warning("Trial %s is passed over: %s", run.info.run_id, error)
                continue
            values = params.as_json()
            searched = {name: values[name] for name in TrainingConfig.settable("search")}
            found.setdefault(json.dumps(searched), params)
            if len(found) == wanted:
                break
        return list(found.values())

    def _search(self, condition: str, most: int, *, newest: bool = False) -> list[Run]:
        order = [f"metrics.`{QUALITY}` {'ASC' if self.is_loss else 'DESC'}", "attributes.start_time DESC"]
        order = order[1:] if newest else order

        def search(client: MlflowClient) -> list[Run]:
            experiment = client.get_experiment_by_name(self.plugin_name)
            if experiment is None:
                return []
            where = f"tags.`{KIND_TAG}` = 'trial' and {condition}"
            return list(client.search_runs([experiment.experiment_id], where, order_by=order, max_results=most))

        return self.wrapper.call(search)

    def _run(self, kind: str, key: str, name: str, tags: Mapping[str, str], params: Mapping[str, str]) -> Iteration:
        tag = run_key(kind, self.plugin_name, key)

        def start(client: MlflowClient) -> Iteration:
            experiment_id = self._experiment(client)
            run = find_run(client, experiment_id, tag)
            if run is None:
                own = {KEY_TAG: tag, KIND_TAG: kind, "estudio.plugin": self.plugin_name, **code_tags(), **tags}
                run = client.create_run(experiment_id, tags=own, run_name=fitted(name, _NAME_UNITS))
                log_params(client, run.info.run_id, params)
            else:
                client.update_run(run.info.run_id, status="RUNNING")
                for tag_name, value in tags.items():
                    client.set_tag(run.info.run_id, tag_name, value)
            return Iteration(run_id=run.info.run_id, experiment_id=experiment_id, key=key)

        with self.wrapper.lock(f"runs-{self.plugin_name}"):
            return self.wrapper.call(start)

    def _experiment(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(self.plugin_name)
        if found is None:
            root = self.wrapper.artifact_root
            location = None if root is None else f"{root}/{self.plugin_name}"
            return str(client.create_experiment(self.plugin_name, artifact_location=location))
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)


def _iteration_of(trial: Run) -> str:
    return str(trial.data.tags.get("mlflow.parentRunId", ""))


def _measured(trial: Run) -> bool:
    return QUALITY in trial.data.metrics
