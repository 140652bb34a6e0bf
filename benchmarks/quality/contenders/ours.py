"""Estudio's own training: the defaults that a plugin gets."""

from __future__ import annotations

from benchmarks.quality.task import Outcome, Task, base_model
from estudio_core.clickstream.evidence import weigh_dev_clicks, weigh_evidence
from estudio_core.clickstream.ranking_data import RankingData
from estudio_core.experiments.fine_tuning_settings import FineTuningSettings
from estudio_core.experiments.training_config import to_examination
from lightning_modules.batches import Weights
from lightning_modules.config import TrainingConfig
from lightning_modules.fit import fit
from lightning_modules.losses import CosineProbMarginRankingLoss


def ours(task: Task) -> Outcome:
    """Train with the defaults."""
    return _train(task, corrected=True)


def ours_uncorrected(task: Task) -> Outcome:
    """Train with the defaults, but take every click and skip at face value, wherever it stood.

    Weights are chosen on dev clicks weighed as `ours` weighs them: when training stops is no part of the comparison.
    """
    return _train(task, corrected=False)


def weights(data: RankingData, settings: FineTuningSettings, *, corrected: bool) -> tuple[Weights, Weights]:
    """Return click weights of train and dev sessions, and confidences of train sessions."""
    train, dev = data.clickstream["train"], data.clickstream["dev"]
    examination = to_examination(settings, train)
    evidence = weigh_evidence(train, examination, settings.pooling, settings.position_bias if corrected else "none")
    return evidence.click_weights | weigh_dev_clicks(dev, examination, settings.position_bias), evidence.confidences


def _train(task: Task, *, corrected: bool) -> Outcome:
    settings = FineTuningSettings(loss_func=CosineProbMarginRankingLoss())
    click_weights, confidences = weights(task.data, settings, corrected=corrected)
    model = base_model(task)
    result = fit(
        model,
        task.data,
        TrainingConfig(seed=task.seed),
        loss=settings.loss_func,
        click_propensity=click_weights,
        confidences=confidences,
    )
    return Outcome(model, tokens=result.tokens, sessions=result.sessions, seconds=result.seconds)
