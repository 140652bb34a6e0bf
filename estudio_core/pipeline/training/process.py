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
            result = run_pretraining(request) if request.get("kind") == "pretraining" else run_training(request)
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
    from estudio_core.experiments.iteration import Iteration
    from estudio_core.experiments.search import run_trials
    from estudio_core.experiments.search_plan import Resources
    from estudio_core.experiments.search_space import SearchSpace
    from estudio_core.experiments.trial import read_reports
    from estudio_core.experiments.trial_recorder import MLflowTrialRecorder
    from estudio_core.lexical.settings import Fusion
    from estudio_core.pipeline.training.trainable import FIT_FILE, MODEL_FOLDER
    from estudio_core.plugin.registry import open_plugin
    from estudio_core.plugin.run_params import FineTuneRun
    from estudio_core.settings import get_settings
    from lightning_modules.config import TrainingConfig
    from lightning_modules.losses.pair_loss import loss_values

    settings = get_settings()
    plugin = open_plugin(request["plugin"])
    run = FineTuneRun.model_validate(request["run"])
    iteration = Iteration(**request["iteration"])
    manager, index = plugin.experiments, plugin.index
    training = run.training.with_values(
        {
            "monitor": manager.main_metric,
            "metric": index.metric_type,
            "aggregation": index.metric_aggregation_type,
            "lexical_weight": Fusion.of_model(Path(request["model"])).weight,
        }
    )
    # What the form or the preset says is the same in all trials.
    fixed = {name: training.as_json()[name] for name in run.of_form if name in TrainingConfig.settable("search")}
    space = SearchSpace({**plugin.search_space, **{name: [value] for name, value in fixed.items()}}, training)
    most = max(1, round(run.trials * _KNOWN_SHARE))
    known = [space.part_of(found) | fixed for found in manager.top_params(most, before=iteration)]
    recorder = MLflowTrialRecorder(manager, iteration, training)
    search = run_trials(
        "estudio_core.pipeline.training.trainable:train_trial",
        space,
        run.trials,
        metric=manager.main_metric,
        mode="min" if manager.is_loss else "max",
        storage=Path(request["trials"]),
        name="search",
        seed=training.seed,
        config={
            "plugin": request["plugin"],
            "dataset_id": request["dataset_id"],
            "model_digest": request["model_digest"],
            "training": training.as_json(),
        }
        | {name: request[name] for name in ("item_version",) if name in request},
        paths={name: request[name] for name in ("dataset", "model", "item_model") if name in request},
        warm_start=known or [space.beginning(run.of_plugin, loss_values(plugin.make_loss()))],
        resources=Resources(
            threads=training.threads,
            devices=training.devices,
            gpus_per_trial=settings.trial_gpus,
            max_concurrent=settings.trials_at_once,
        ),
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


def run_pretraining(request: dict[str, Any]) -> dict[str, Any]:
    """Adapt a model to the pairs of a catalog, and leave it in the output folder.

    All clicks are at face value: nobody examined anything, and every pair is right.

    Raises:
        EstudioError: training failed.
    """
    from estudio_core.clickstream.dataset_files import read_dataset
    from estudio_core.lexical.settings import Fusion
    from estudio_core.models.storage import load_model, save_model
    from estudio_core.pipeline.training.trainable import MODEL_FOLDER
    from lightning_modules.config import TrainingConfig
    from lightning_modules.fit import fit
    from lightning_modules.losses import MarginMseLoss, SoftmaxRankingLoss

    model = load_model(request["model"])
    result = fit(
        model,
        read_dataset(Path(request["dataset"])),
        TrainingConfig.model_validate(request["training"]),
        loss=MarginMseLoss() if request["taught"] else SoftmaxRankingLoss(),
    )
    output = Path(request["output"])
    save_model(model, output / MODEL_FOLDER)
    Fusion.of_model(Path(request["model"])).save(output / MODEL_FOLDER)
    (output / "history.json").write_text(json.dumps(result.history), encoding="utf-8")
    return {"steps": result.steps, "pairs_seen": result.sessions}


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
