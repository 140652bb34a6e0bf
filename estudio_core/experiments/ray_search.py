"""Trials under Ray Tune: on this machine, in processes that end with the search, or on a cluster."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from estudio_core.errors import ConfigurationError, MissingDependencyError, UnavailableError
from estudio_core.experiments.ray_node import node_of
from estudio_core.experiments.search_plan import Pruning, Resources, SearchPlan, TrialRecorder
from estudio_core.experiments.trial import REPORT_KEY, Report, Trial, run_trial
from estudio_core.settings import get_settings

logger = logging.getLogger(__name__)

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "5",
}
_OBJECT_STORE_BYTES = 100 * 1024 * 1024  # parameters and metrics only; models and data stay in files
_VALIDATION = "validation"
_NO_LAST_VALIDATION = 10**9
"""ASHA's max_t, at which it ends a trial whatever its value; training alone decides when it has ended."""


def run_with_ray(
    plan: SearchPlan, resources: Resources, pruning: Pruning, recorder: TrialRecorder, address: str | None
) -> None:
    """Run the trials of a plan; each leaves its reports and its end in its folder."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        from ray import tune
    except ImportError as error:
        raise MissingDependencyError(
            f"A search of {len(plan.candidates)} trials needs Ray, which is not installed. "
            f"Run: pip install 'estudio[ray]', or ask for one trial."
        ) from error
    from estudio_core.experiments.ray_callback import SearchCallback, watching

    where = address or get_settings().ray_address
    for repeating in ("analysis", "tune", "execution.tune_controller"):  # failures are in the trials' outcomes
        logging.getLogger(f"ray.tune.{repeating}").setLevel(logging.CRITICAL)
    with watching(plan, recorder) as watch, _ray_running(where, resources) as nodes:
        needed = per_trial(resources, nodes)
        trainable = tune.with_resources(train_candidate, needed)
        path = plan.storage / plan.id / "ray"
        if not _resume(path, trainable, plan):
            shutil.rmtree(path, ignore_errors=True)
            tuner = tune.Tuner(
                trainable,
                param_space=_param_space(plan),
                tune_config=tune.TuneConfig(
                    metric=plan.metric,
                    mode=plan.mode,
                    max_concurrent_trials=resources.max_concurrent,
                    scheduler=tune.schedulers.ASHAScheduler(
                        time_attr=_VALIDATION,
                        max_t=_NO_LAST_VALIDATION,
                        grace_period=pruning.grace_reports,
                        reduction_factor=pruning.reduction_factor,
                    ),
                    reuse_actors=False,
                ),
                run_config=tune.RunConfig(
                    name=path.name,
                    storage_path=str(path.parent),
                    callbacks=[SearchCallback()],
                    failure_config=tune.FailureConfig(max_failures=0),
                    verbose=0,
                ),
            )
            tuner.fit()
        for index in range(len(plan.candidates)):
            watch.catch_up(index)


def train_candidate(config: dict[str, Any]) -> None:
    """Run one trial in a Ray worker."""
    from ray import tune

    sent = 0

    def send(report: Report) -> None:
        nonlocal sent
        told = {REPORT_KEY: report.to_json(), trial.metric: report.validation.metrics[trial.metric]}
        if not report.final:  # the scheduler judges, and may end, what has the number of its validation
            sent += 1
            told[_VALIDATION] = sent
        tune.report(told)

    job = config["job"]
    sys.path.extend(folder for folder in job["import_path"] if folder not in sys.path)
    candidate = config["candidate"]
    trial = Trial(candidate["index"], candidate["params"], Path(candidate["folder"]), job["metric"], send)
    run_trial(job["trainable"], job["config"], trial)


def _param_space(plan: SearchPlan) -> dict[str, Any]:
    from ray import tune

    candidates = [
        {"index": index, "params": params, "folder": str(plan.folder(index))}
        for index, params in enumerate(plan.candidates)
    ]
    job = {"trainable": plan.trainable, "config": plan.inputs, "metric": plan.metric, "import_path": sys.path}
    return {"job": job, "candidate": tune.grid_search(candidates)}


def _resume(path: Path, trainable: Any, plan: SearchPlan) -> bool:
    """Go on with a search that was killed; return False where there is none that can be read."""
    from ray import tune

    if not tune.Tuner.can_restore(str(path)):
        return False
    logger.info("The search %s goes on where it was interrupted.", plan.id)
    try:
        tuner = tune.Tuner.restore(
            str(path),
            trainable,
            resume_unfinished=True,
            restart_errored=True,
            param_space=_param_space(plan),
        )
        tuner.fit()
    except Exception as error:  # Ray raises whatever a cut-off state file makes it stumble over
        logger.warning(
            "The state of the search %s in %s cannot be read (%s: %s); it starts anew, without training again what "
            "has ended.", plan.id, path, type(error).__name__, error,
        )  # fmt: skip
        return False
    return True


@contextmanager
def _ray_running(address: str | None, resources: Resources) -> Iterator[list[dict[str, float]]]:
    """Yield the resources of each machine of a running Ray: a private one here, or the cluster at `address`."""
    import ray

    if ray.is_initialized():
        yield _nodes()
        return
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if in_main_thread else None
    try:
        with node_of(address) if address else nullcontext():
            try:
                _start(address, resources)
                yield _nodes()
            finally:
                ray.shutdown()
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, handler)  # Ray puts its own in place


def _start(address: str | None, resources: Resources) -> None:
    import ray
    from ray.exceptions import AuthenticationError

    common: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
    if address is None:
        cpus = max(_own_cpus(), resources.threads or 1)
        ray.init("local", num_cpus=cpus, object_store_memory=_OBJECT_STORE_BYTES, **common)
        return
    try:
        ray.init(address, **common)
    except (AuthenticationError, ConnectionError, RuntimeError, ValueError) as error:
        raise UnavailableError(
            f"The Ray cluster at {address} does not answer, or refuses this process: {str(error).strip()}. Start it, "
            "give RAY_AUTH_MODE=token and its own RAY_AUTH_TOKEN where it asks for one, or unset "
            "ESTUDIO_RAY_ADDRESS to run the trials on this machine."
        ) from error


def _nodes() -> list[dict[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def per_trial(resources: Resources, nodes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the cores and GPUs of a trial, from what was asked for and the settings.

    Raises:
        ConfigurationError: no machine of Ray has as many.
    """
    devices = resources.devices
    gpus = resources.gpus_per_trial
    if gpus is None:
        gpus = float(devices) if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
    cpus = (resources.threads or 0) * devices
    cpus = cpus or _share_of_cores(resources, gpus, nodes)
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        have = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise ConfigurationError(
            f"A trial is to take {cpus:g} CPUs and {gpus:g} GPUs of one machine, and Ray's machines have {have}. "
            "Ask for fewer."
        )
    return {"cpu": float(cpus), "gpu": float(gpus)}


def _share_of_cores(resources: Resources, gpus: float, nodes: Sequence[Mapping[str, float]]) -> int:
    """Return the cores of a trial where none are asked for: all of a machine, shared by those that are to run at once.

    Trials that share a GPU share the cores beside it.
    """
    largest = max((int(node.get("CPU", 0)) for node in nodes), default=0)
    cores = min(_own_cpus(), largest) if largest else _own_cpus()
    at_once = max(resources.max_concurrent or 1, int(1 / gpus) if 0 < gpus < 1 else 1)
    return max(1, cores // at_once)


def _own_cpus() -> int:
    return len(os.sched_getaffinity(0))
