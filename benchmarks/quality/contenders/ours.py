"""Estudio's own training: the defaults that a plugin gets."""

from __future__ import annotations

from benchmarks.quality.task import Outcome, Task, base_model
from estudio_core.clickstream.evidence import weigh_evidence
from estudio_core.clickstream.examination import examination_of
from estudio_core.experiments.fine_tuning_settings import FineTuningSettings
from lightning_modules.config import TrainingConfig
from lightning_modules.fit import fit
from lightning_modules.losses import CosineProbMarginRankingLoss


def ours(task: Task) -> Outcome:
    """Train with the defaults."""
    return _train(task, corrected=True)


def ours_uncorrected(task: Task) -> Outcome:
    """Train with the defaults, but take every click and skip at face value, wherever it stood."""
    return _train(task, corrected=False)


def _train(task: Task, *, corrected: bool) -> Outcome:
    settings = FineTuningSettings(loss_func=CosineProbMarginRankingLoss())
    given = settings.examination_exponent if corrected else 0.0
    examination = examination_of(task.data.clickstream["train"], given)
    evidence = weigh_evidence(task.data.clickstream["train"], examination.exponent)
    model = base_model(task)
    result = fit(
        model,
        task.data,
        TrainingConfig(seed=task.seed, examination_exponent=examination.exponent),
        loss=settings.loss_func,
        click_propensity=evidence.click_weights,
        confidences=evidence.confidences,
    )
    return Outcome(model, tokens=result.tokens, sessions=result.sessions, seconds=result.seconds)
