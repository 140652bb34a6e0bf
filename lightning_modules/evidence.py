"""What a training is told of its clicks: the corrections that its configuration asks for, made of its sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from estudio_core.clickstream.evidence import weigh_dev_clicks, weigh_evidence
from estudio_core.clickstream.examination import examination_of
from estudio_core.clickstream.examination_curve import EVEN, Examination
from estudio_core.clickstream.ranking_data import FineTuningInput, RankingData
from lightning_modules.config import TrainingConfig


@dataclass(frozen=True)
class TrainingEvidence:
    """Weights by session id, one number per result in shown order, as `fit` takes them.

    Attributes:
        click_propensity: What a click counts, in training and on the dev split.
        confidences: How sure a click or a skip is, in training.
        examination: How attention falls with the position.
        effective_clicks: How many equally weighted clicks would be as certain as those of training.
    """

    click_propensity: Mapping[str, tuple[float, ...]]
    confidences: Mapping[str, tuple[float, ...]]
    examination: Examination
    effective_clicks: float


def evidence_of(data: RankingData, config: TrainingConfig, *, corrected: bool = True) -> TrainingEvidence:
    """Return the evidence of the train and dev splits.

    Args:
        data: Split sessions.
        config: `position_bias`, `examination`, its exponent, and `pooling`.
        corrected: False: training takes every click and skip at face value, wherever it stood; dev clicks are weighed.

    Raises:
        DataError: the sessions do not allow the estimate of examination that is asked for.
    """
    train, dev = data.splits["train"], data.splits["dev"]
    examination = examination_for(config, train)
    weighed = weigh_evidence(train, examination, config.pooling, config.position_bias if corrected else "none")
    return TrainingEvidence(
        click_propensity=weighed.click_weights | weigh_dev_clicks(dev, examination, config.position_bias),
        confidences=weighed.confidences,
        examination=examination,
        effective_clicks=weighed.effective_sample_size,
    )


def examination_for(config: TrainingConfig, sessions: Sequence[FineTuningInput]) -> Examination:
    """Return how attention falls with the position as the configuration says; what it leaves open, `sessions` tell.

    Raises:
        DataError: `sessions` do not allow the estimate that is asked for.
    """
    if config.position_bias == "none":
        return EVEN
    return examination_of(sessions, config.examination_exponent, config.examination)
