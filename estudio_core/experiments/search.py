"""Search for good parameters: suggest combinations, train each as a trial, compare what they report."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from estudio_core import errors
from estudio_core.errors import ConfigurationError, EstudioError, ModelError
from estudio_core.experiments.ray_search import run_with_ray
from estudio_core.experiments.search_plan import (
    NoRecorder,
    Pruning,
    Resources,
    SearchOutcome,
    SearchPlan,
    TrialOutcome,
    TrialRecorder,
)
from estudio_core.experiments.search_space import SearchSpace
from estudio_core.experiments.trial import Mode, Report, Trial, read_end, run_trial
from estudio_core.progress import report as report_progress

logger = logging.getLogger(__name__)


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
) -> SearchOutcome:
    """Try `n_trials` combinations and return how they went.

    One trial runs in this process and needs no Ray; more run under Ray Tune. Called again with the same arguments,
    a search goes on where it was killed: trials that have ended are not trained again. Where every trial failed or was
    ended early (the leading one failed after the others had been ended for it), the best of those that were ended
    early is trained again in this process, to its end, as one more trial; if that fails, the next.

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
            its traceback. Or the last of those that were trained again.
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
        run_with_ray(plan, resources or Resources(), pruning or Pruning(), recorder, ray_address)
    return _trained_to_its_end(plan, summarise(plan), recorder)


def summarise(plan: SearchPlan) -> SearchOutcome:
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
    return SearchOutcome(trials, max(usable, key=lambda trial: _rank(plan, trial)))


def _rank(plan: SearchPlan, trial: TrialOutcome) -> tuple[bool, float, int]:
    value = trial.value or 0.0
    return trial.status == "completed", value if plan.mode == "max" else -value, -trial.index


def _trained_to_its_end(plan: SearchPlan, result: SearchOutcome, recorder: TrialRecorder) -> SearchOutcome:
    """Return the result with a best trial that has completed."""
    trials = list(result.trials)
    stopped = [trial for trial in trials if trial.status == "stopped" and trial.value is not None]
    candidates = sorted(stopped, key=lambda trial: _rank(plan, trial), reverse=True)
    best = result.best
    while best.status != "completed":
        again = candidates.pop(0)
        logger.warning("No trial has completed: trial %d with %s is trained to its end.", again.index, again.params)
        alone = replace(plan, candidates=[again.params], name=f"{plan.name}-whole")
        try:
            _run_here(alone, recorder, number=len(trials))
        except Exception as error:
            if not candidates:
                raise
            logger.warning("Trial %d with %s failed: %s", len(trials), again.params, error)
        best = replace(alone.outcome(0), index=len(trials))
        trials.append(best)
    return SearchOutcome(trials, best)


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


def _run_here(plan: SearchPlan, recorder: TrialRecorder, number: int = 0) -> None:
    """Train the one candidate of a plan in this process; it is trial `number` of the search."""
    params = plan.candidates[0]

    def send(report: Report) -> None:
        recorder.log(number, report.points)

    recorder.start(number, params)
    trial = Trial(number, params, plan.folder(0), plan.metric, send)
    try:
        run_trial(plan.trainable, plan.inputs, trial)
    except Exception as error:
        recorder.end(number, None, f"{type(error).__name__}: {error}")
        raise
    recorder.end(number, plan.outcome(0).value, None)
    report_progress("search", 1, 1, "trials")
