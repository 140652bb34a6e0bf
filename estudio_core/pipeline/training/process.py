"""The process that trains: `python -m estudio_core.pipeline.training.process PARENT_PID`, a request on stdin.

It answers on stdout with lines that begin with the record separator: progress, then one result or failure.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from estudio_core.errors import DataError
from estudio_core.progress import Progress, progress_to

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_KNOWN_SHARE = 0.25
"""Most of a search's trials that repeat the best of earlier iterations; the others are new."""


def main() -> int:
    """Train as the request says; return the exit status."""
    _die_with(int(sys.argv[1]))
    request = json.load(sys.stdin)

    def show(progress: Progress) -> None:
        _say({"kind": "progress", "progress": vars(progress)})

    try:
        with progress_to(show):
            result = run_training(request)
    except Exception as error:
        traceback.print_exc()
        kind = "DataError" if isinstance(error, DataError) else type(error).__name__
        _say({"kind": "failure", "error": kind, "message": f"{type(error).__name__}: {error}"})
        return 1
    _say({"kind": "result", "result": result})
    return 0


def run_training(request: dict[str, Any]) -> dict[str, Any]:
    """Run the trials of a request, and leave the best model and the course of all trials in the output folder.

    Raises:
        EstudioError: no trial succeeded.
    """
    from estudio_core.clickstream.ranking_data import RankingData
    from estudio_core.experiments.fine_tuning_params import FineTuningParams
    from estudio_core.experiments.iteration import Iteration
    from estudio_core.experiments.search import run_trials
    from estudio_core.experiments.search_plan import Resources
    from estudio_core.experiments.search_space import SearchSpace
    from estudio_core.experiments.trial import read_reports
    from estudio_core.experiments.trial_recorder import MLflowTrialRecorder
    from estudio_core.pipeline.training.trainable import FIT_FILE, MODEL_FOLDER
    from estudio_core.plugin.registry import open_plugin
    from estudio_core.plugin.run_params import FineTuneParams
    from estudio_core.preprocessing.prepare_data import prepared
    from estudio_core.settings import get_settings

    settings = get_settings()
    plugin = open_plugin(request["plugin"])
    with prepared(RankingData.load(Path(request["dataset"]))):
        builder = plugin.get_fine_tuning_builder([])
    params = FineTuneParams.model_validate(request["params"])
    iteration = Iteration(**request["iteration"])
    manager = builder.experiments_manager
    given = _given(params)
    space = _with(builder.initial_params, given, {name: [value] for name, value in given.items()})
    search_space = SearchSpace(space, FineTuningParams)
    most = max(1, round(params.trials * _KNOWN_SHARE))
    known = [_with(search_space.part_of(found), given, given) for found in manager.top_params(most, before=iteration)]
    first = _measured(space, builder.fine_tuning_settings)
    recorder = MLflowTrialRecorder(manager, iteration)
    search = run_trials(
        "estudio_core.pipeline.training.trainable:train_trial",
        search_space,
        params.trials,
        metric=manager.main_metric,
        mode="min" if manager.is_loss else "max",
        storage=Path(request["trials"]),
        name="search",
        seed=params.seed,
        config={
            "plugin": request["plugin"],
            "dataset_id": request["dataset_id"],
            "model_digest": request["model_digest"],
            "seed": params.seed,
            "threads": settings.training_threads,
            "devices": settings.training_devices,
        },
        paths={"dataset": request["dataset"], "model": request["model"]},
        warm_start=known or [first],
        resources=Resources(gpus_per_trial=settings.trial_gpus, max_concurrent=settings.trials_at_once),
        recorder=recorder,
    )
    best = search.best
    fitted = json.loads((best.folder / FIT_FILE).read_text())
    output = Path(request["output"])
    trials = [
        {
            "index": t.index,
            "params": t.params,
            "status": t.status,
            "error": t.error.strip().splitlines()[-1] if t.error else "",  # of a traceback, the error
            "value": t.value,
            "best": t.index == best.index,
            "course": [
                [point.step, point.metrics[manager.main_metric]]
                for report in read_reports(t.folder)
                for point in report.points
                if manager.main_metric in point.metrics
            ],
        }
        for t in search.trials
    ]
    course = {"fit": fitted, "trials": trials, "metric": manager.main_metric}
    (output / "history.json").write_text(json.dumps(course), encoding="utf-8")
    shutil.copytree(best.folder / MODEL_FOLDER, output / MODEL_FOLDER)
    return {
        "mlflow_run_id": recorder.run_id(best.index),
        "metrics": fitted["metrics"],
        "params": best.params,
    }


def _measured(space: dict[str, Any], settings: Any) -> dict[str, Any]:
    """Return the combination that a first iteration begins with: of each list the measured default, else its first."""
    from lightning_modules.config import TrainingConfig

    defaults = vars(TrainingConfig()) | {"margin": settings.loss_func.margin}
    return {
        name: defaults[name] if defaults.get(name) in values else values[0]
        for name, values in space.items()
        if isinstance(values, list)
    }


def _given(params: Any) -> dict[str, Any]:
    """Return the hyper-parameters that the run's form fixes."""
    names = ("learning_rate", "num_fixed_layers", "margin", "batch_size", "num_epochs")
    return {name: value for name in names if (value := getattr(params, name)) is not None}


def _with(params: Mapping[str, Any], given: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters with `values` for those that are given; a given rate is that of both towers."""
    replaced = set(given) | ({"query_lr", "items_lr"} if "learning_rate" in given else set())
    return {name: value for name, value in params.items() if name not in replaced} | values


def _die_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, whatever ended the parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before the request to the kernel
            sys.exit(1)


def _say(message: dict[str, Any]) -> None:
    print("\x1e" + json.dumps(message), flush=True)


if __name__ == "__main__":
    sys.exit(main())
