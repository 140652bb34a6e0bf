"""One trial of a fine-tuning: a set of hyper-parameters, trained and saved in the trial's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from estudio_core.experiments.trial import Trial

MODEL_FOLDER = "model"
FIT_FILE = "fit.json"


def train_trial(config: dict[str, Any], trial: Trial) -> None:
    """Train with `trial.params`, leave model and course of training in `trial.folder`, and report that model's metrics.

    `config` has the plugin, the folders of the dataset and of the model to start from, and the parameters of training
    that all trials share; where queries alone are trained, folder and version of the items' model besides.
    """
    from estudio_core.clickstream.dataset_files import read_dataset
    from estudio_core.errors import DataError
    from estudio_core.lexical.settings import Fusion
    from estudio_core.models.storage import load_model, save_model
    from estudio_core.models.towers import Towers
    from estudio_core.plugin.registry import open_plugin
    from lightning_modules.config import TrainingConfig
    from lightning_modules.evidence import evidence_of
    from lightning_modules.fit import fit

    data = read_dataset(Path(config["dataset"]))
    training = TrainingConfig.model_validate(config["training"]).with_values(trial.params)

    def on_metrics(step: int, metrics: Mapping[str, float]) -> None:
        # Step 0 is the model as it came: a value that all trials share.
        if step > 0 and trial.metric in metrics:
            trial.report(metrics, step)
        else:
            trial.log(metrics, step)

    evidence = evidence_of(data, training)
    trial.log({"train_effective_clicks": evidence.effective_clicks}, 0)
    model = load_model(config["model"])
    result = fit(
        model,
        data,
        training,
        item_model=load_model(config["item_model"]) if "item_model" in config else None,
        loss=open_plugin(config["plugin"]).make_loss(),
        on_metrics=on_metrics,
        click_propensity=evidence.click_propensity,
        confidences=evidence.confidences,
    )
    save_model(model, trial.folder / MODEL_FOLDER)
    Fusion(weight=result.fusion.weight).save(trial.folder / MODEL_FOLDER)
    if "item_version" in config:
        Towers(item_version=config["item_version"]).save(trial.folder / MODEL_FOLDER)
    trial.log({"lexical_weight": result.fusion.weight}, result.steps)
    fitted = {
        "metrics": result.metrics,
        "best_step": result.best_step,
        "steps": result.steps,
        "seconds": result.seconds,
        "sessions": result.sessions,
        "tokens": result.tokens,
        "precision": result.precision,
        "interpolation": result.interpolation.share,
        "stopped_early": result.stopped_early,
        "fusion": asdict(result.fusion),
        "evidence": None if result.interpolation.evidence is None else asdict(result.interpolation.evidence),
        "position_bias": training.position_bias,
        "examination": str(evidence.examination),
        "effective_sample_size": evidence.effective_clicks,
        "history": result.history,
    }
    (trial.folder / FIT_FILE).write_text(json.dumps(fitted), encoding="utf-8")
    if trial.metric not in result.metrics:
        raise DataError(
            f"The dev split has no {trial.metric}, by which weights and trials are chosen: none of its "
            f"{len(data.splits['dev'])} sessions has a click. Collect sessions of more queries, or widen the window."
        )
    trial.report(result.metrics, result.steps, final=True)
