"""Search for good parameters: suggest combinations, train each as a trial, compare what they report."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from estudio_core import errors
from estudio_core.errors import ConfigurationError, EstudioError, ModelError
from estudio_core.experiments.search_space import SearchSpace
from estudio_core.experiments.trial import Mode, Point, Report, Status, Trial, read_end, read_reports, run_trial
from estudio_core.progress import report as report_progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resources:
    """What one trial takes, and how many run at a time.

    Attributes:
        cpus_per_trial: Cores; None: `ESTUDIO_TRAINING_THREADS` for each of `ESTUDIO_TRAINING_DEVICES`, or every core
            that this process may use.
        gpus_per_trial: GPUs, parts allowed; None: `ESTUDIO_TRAINING_DEVICES` where Ray finds any.
        max_concurrent: Most trials at a time; None: as many as fit.
    """

    cpus_per_trial: int | None = None
    gpus_per_trial: float | None = None
    max_concurrent: int | None = None


@dataclass(frozen=True)
class Pruning:
    """When a trial that does worse than others is ended (asynchronous successive halving).

    Attributes:
        grace_reports: Validations that every trial gets. Three are a little more than an epoch by default, when the
            rate has passed its peak: before, trials tell little of what they will come to.
        reduction_factor: At each rung (`grace_reports`, times the factor, and so on) the best 1/reduction_factor of
            the trials go on. No number of validations ends a trial by itself.
    """

    grace_reports: int = 3
    reduction_factor: int = 3


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial went. `value` is the metric in its last report, after `steps` optimiser steps; None without one."""

    index: int
    params: dict[str, Any]
    status: Status
    value: float | None
    steps: int | None
    reports: int
    folder: Path
    error: str | None


@dataclass(frozen=True)
class SearchResult:
    """All trials in the order of the search, and the best of those that completed.

    Where none has, the best is that of the trials that were ended early: their values are of different lengths of
    training, and are not compared with those of completed ones.
    """

    trials: list[TrialOutcome]
    best: TrialOutcome

    @property
    def failed(self) -> list[TrialOutcome]:
        """Trials that failed."""
        return [trial for trial in self.trials if trial.status == "failed"]


class TrialRecorder(Protocol):
    """Is told, in the process that runs the search, what trials do; `log` and `end` bear a lost connection."""

    def start(self, index: int, params: dict[str, Any]) -> None:
        """A trial starts, or starts again."""
        ...

    def log(self, index: int, points: Sequence[Point]) -> None:
        """A trial has new metrics."""
        ...

    def end(self, index: int, quality: float | None, error: str | None) -> None:
        """A trial has ended; once per trial. It was ended early where there is neither quality nor error."""
        ...


class NoRecorder:
    """Takes note of nothing."""

    def start(self, index: int, params: dict[str, Any]) -> None:
        """Ignore the start."""

    def log(self, index: int, points: Sequence[Point]) -> None:
        """Ignore the metrics."""

    def end(self, index: int, quality: float | None, error: str | None) -> None:
        """Ignore the end."""


@dataclass(frozen=True)
class SearchPlan:
    """Everything that decides a search; two searches with the same `id` are the same, wherever their files are."""

    trainable: str
    config: dict[str, Any]
    candidates: list[dict[str, Any]]
    metric: str
    mode: Mode
    storage: Path
    name: str
    paths: dict[str, str] = field(default_factory=dict)

    @property
    def inputs(self) -> dict[str, Any]:
        """What the trainable gets as `config`."""
        return self.config | self.paths

    @property
    def id(self) -> str:
        """Name of the search with a hash of what is tried."""
        what = json.dumps([self.trainable, self.config, self.candidates, self.metric, self.mode], sort_keys=True)
        return f"{self.name}-{hashlib.sha256(what.encode()).hexdigest()[:10]}"

    def folder(self, index: int) -> Path:
        """Folder of a trial."""
        return self.storage / self.id / f"trial_{index:03d}"

    def outcome(self, index: int) -> TrialOutcome:
        """Return how a trial went, from its folder."""
        folder = self.folder(index)
        reports = read_reports(folder)
        last = reports[-1].validation if reports else None
        end = read_end(folder)
        return TrialOutcome(
            index=index,
            params=self.candidates[index],
            status="failed" if end is None else end.status,
            value=None if last is None else last.metrics[self.metric],
            steps=None if last is None else last.step,
            reports=len(reports),
            folder=folder,
            error="it was killed" if end is None else end.traceback or end.error,
        )


def run_trials(
    trainable: str,
    space: SearchSpace,
    n_trials: int,
    *,
    metric: str,
    mode: Mode,
    storage: Path | str,
    name: str,
    seed: int,
    config: Mapping[str, Any] | None = None,
    paths: Mapping[str, str] | None = None,
    warm_start: Sequence[Mapping[str, Any]] = (),
    resources: Resources | None = None,
    pruning: Pruning | None = None,
    recorder: TrialRecorder | None = None,
    ray_address: str | None = None,
) -> SearchResult:
    """Try `n_trials` combinations and return how they went.

    One trial runs in this process and needs no Ray; more run under Ray Tune. Called again with the same arguments,
    a search goes on where it was killed: trials that have ended are not trained again.

    Args:
        trainable: `package.module:function` of a `Trainable`; imported where the trial runs.
        space: What to draw from.
        n_trials: How many combinations; fewer where the space has no more.
        metric: Reported metric by which trials are compared: completed ones by their last report.
        mode: Whether its largest or smallest value is best.
        storage: Folder of the search, shared with the workers where there is a cluster.
        name: Id of the run that this search is part of.
        seed: Of the draws.
        config: JSON values that all trials get: the plugin's name, ids of data and model, settings.
        paths: Joined to `config`: where the trials, on whatever machine they run, find what it names by id. A search
            goes on with other paths, and not with another `config`.
        warm_start: Combinations to try first: the best of earlier iterations.
        resources: What a trial takes; None: from the settings.
        pruning: When a trial is ended early; None: the defaults.
        recorder: Is told what trials do, such as `MLflowTrialRecorder`.
        ray_address: Cluster to run on; None: `ESTUDIO_RAY_ADDRESS`, or this machine.

    Raises:
        EstudioError: all trials failed: the error of the first, where it is one of ours, else a `ModelError` with
            its traceback.
        MissingDependencyError: more than one trial, and Ray is not installed.
        UnavailableError: the Ray cluster does not answer.
    """
    if mode not in ("max", "min"):
        raise ConfigurationError(f"mode is {mode!r}; legal: 'max', 'min'.")
    try:
        settled = json.loads(json.dumps(dict(config or {})))
    except TypeError as error:
        raise ConfigurationError(f"config of the trials has to be JSON values, no models or data: {error}") from error
    plan = SearchPlan(
        trainable=trainable,
        config=settled,
        candidates=space.sample(n_trials, seed=seed, warm_start=warm_start),
        metric=metric,
        mode=mode,
        storage=Path(storage).expanduser().resolve(),
        name=name,
        paths=dict(paths or {}),
    )
    if len(plan.candidates) < n_trials:
        logger.info("The search space has %d combinations; %d were asked for.", len(plan.candidates), n_trials)
    recorder = recorder or NoRecorder()
    if len(plan.candidates) == 1:
        _run_here(plan, recorder)
    else:
        from estudio_core.experiments.ray_search import run_with_ray

        run_with_ray(plan, resources or Resources(), pruning or Pruning(), recorder, ray_address)
    return summarise(plan)


def summarise(plan: SearchPlan) -> SearchResult:
    """Return all outcomes and the best.

    Raises:
        EstudioError: all trials failed.
    """
    trials = [plan.outcome(index) for index in range(len(plan.candidates))]
    usable = [trial for trial in trials if trial.status != "failed" and trial.value is not None]
    if not usable:
        raise _all_failed(plan, trials)
    for trial in trials:
        if trial.status == "failed":
            logger.warning("Trial %d with %s failed: %s", trial.index, trial.params, trial.error)
    sign = 1 if plan.mode == "max" else -1
    best = max(usable, key=lambda trial: (trial.status == "completed", sign * (trial.value or 0.0), -trial.index))
    return SearchResult(trials, best)


def _all_failed(plan: SearchPlan, trials: list[TrialOutcome]) -> EstudioError:
    ends = [read_end(plan.folder(trial.index)) for trial in trials]
    kinds = {None if end is None else end.error_type for end in ends}
    first = next((end for end in ends if end is not None and end.error), None)
    kind = getattr(errors, first.error_type or "", None) if first is not None and len(kinds) == 1 else None
    if first is not None and isinstance(kind, type) and issubclass(kind, EstudioError):
        return kind(f"{first.error} (in all {len(trials)} trials)" if len(trials) > 1 else first.error)
    return ModelError(
        f"All {len(trials)} trials of {plan.name} failed. The first error was:\n{trials[0].error}\n"
        f"Their folders are below {plan.storage / plan.id}."
    )


def _run_here(plan: SearchPlan, recorder: TrialRecorder) -> None:
    params = plan.candidates[0]

    def send(report: Report) -> None:
        recorder.log(0, report.points)

    recorder.start(0, params)
    trial = Trial(0, params, plan.folder(0), plan.metric, send)
    try:
        run_trial(plan.trainable, plan.inputs, trial)
    except Exception as error:
        recorder.end(0, None, f"{type(error).__name__}: {error}")
        raise
    recorder.end(0, plan.outcome(0).value, None)
    report_progress("search", 1, 1, "trials")
