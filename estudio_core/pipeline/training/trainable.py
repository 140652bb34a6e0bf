"""One trial of a fine-tuning: a set of hyper-parameters, trained and saved in the trial's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from estudio_core.experiments.trial import Trial

MODEL_FOLDER = "model"
FIT_FILE = "fit.json"


def train_trial(config: dict[str, Any], trial: Trial) -> None:
    """Train with `trial.params`, leave model and course of training in `trial.folder`, and report that model's metrics.

    `config` has the plugin, the folders of the dataset and of the model to start from, seed, threads and devices.
    """
    from estudio_core.clickstream.evidence import weigh_dev_clicks, weigh_evidence
    from estudio_core.clickstream.ranking_data import RankingData
    from estudio_core.errors import DataError
    from estudio_core.experiments.fine_tuning_params import FineTuningParams
    from estudio_core.experiments.training_config import to_examination, to_loss, to_training_config
    from estudio_core.models.storage import load_model, save_model
    from estudio_core.plugin.registry import open_plugin
    from estudio_core.preprocessing.prepare_data import prepared
    from lightning_modules.fit import fit

    data = RankingData.load(Path(config["dataset"]))
    plugin = open_plugin(config["plugin"])
    with prepared(data):
        settings = plugin.get_fine_tuning_builder([]).fine_tuning_settings
    params = FineTuningParams.model_validate(trial.params)
    training = to_training_config(
        settings,
        params,
        monitor=trial.metric,
        index=plugin.get_search_index_info(),
        seed=config["seed"],
        threads=config["threads"],
        devices=config["devices"],
    )

    def on_metrics(step: int, metrics: Mapping[str, float]) -> None:
        # Step 0 is the model as it came: a value that all trials share.
        if step > 0 and trial.metric in metrics:
            trial.report(metrics, step)
        else:
            trial.log(metrics, step)

    train, dev = data.clickstream["train"], data.clickstream["dev"]
    examination = to_examination(settings, train)
    evidence = weigh_evidence(train, examination, settings.pooling, settings.position_bias)
    trial.log({"train_effective_clicks": evidence.effective_sample_size}, 0)
    model = load_model(config["model"])
    result = fit(
        model,
        data,
        training,
        loss=to_loss(settings, params),
        on_metrics=on_metrics,
        click_propensity=evidence.click_weights | weigh_dev_clicks(dev, examination, settings.position_bias),
        confidences=evidence.confidences,
    )
    save_model(model, trial.folder / MODEL_FOLDER)
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
        "position_bias": settings.position_bias,
        "examination": str(examination),
        "effective_sample_size": evidence.effective_sample_size,
        "history": result.history,
    }
    (trial.folder / FIT_FILE).write_text(json.dumps(fitted), encoding="utf-8")
    if trial.metric not in result.metrics:
        raise DataError(
            f"The dev split has no {trial.metric}, by which weights and trials are chosen: none of its "
            f"{len(dev)} sessions has a click. Collect sessions of more queries, or widen the "
            f"window."
        )
    trial.report(result.metrics, result.steps, final=True)
