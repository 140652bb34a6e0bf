"""From a plugin's settings and a trial's parameters to what training takes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from estudio_core.errors import ConfigurationError
from estudio_core.experiments.fine_tuning_params import FineTuningParams
from estudio_core.experiments.fine_tuning_settings import FineTuningSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from estudio_core.clickstream.examination_curve import Examination
    from estudio_core.clickstream.ranking_data import FineTuningInput
    from estudio_core.vectordb.index_info import SearchIndexInfo
    from lightning_modules.config import TrainingConfig
    from lightning_modules.losses import ProbMarginRankingLoss

_SAME_NAME = (
    "num_fixed_layers", "learning_rate", "margin", "not_irrelevant_only", "negative_downsampling",
    "min_abs_difference_threshold", "max_abs_difference_threshold",
)  # fmt: skip
DEFAULTS_OF_TRAINING = (
    "sessions_per_query", "max_negatives", "max_positives", "in_batch_negatives", "mined_negatives",
    "false_negative_guard", "drift_penalty", "dropout", "gradient_cache", "compile", "encode_batch_tokens",
    "cache_frozen_mb", "cache_frozen_disk_mb",
)  # fmt: skip
"""Settings that take the default of `TrainingConfig` where they are None."""
_LOSS_FIELDS = {"loss_form": "form", "scale": "scale", "shift": "shift", "hardness_temperature": "temperature"}


def to_training_config(
    settings: FineTuningSettings,
    params: FineTuningParams,
    *,
    index: SearchIndexInfo | None = None,
    monitor: str | None = None,
    seed: int | None = None,
    threads: int | None = None,
    devices: int = 1,
) -> TrainingConfig:
    """Return the configuration of one training; parameters go before settings.

    All models have one tower for queries and items, which takes the means of the towers' learning rates and decays.

    Args:
        settings: The plugin's.
        params: The trial's.
        index: Whose similarity and aggregation of parts training uses; None: the defaults.
        monitor: Dev metric that chooses the weights; None: the default of training.
        seed: Of this run; None: the settings'.
        threads: CPU threads; None: as they are.
        devices: GPUs, or processes where there is none.

    Raises:
        ConfigurationError: a value is out of the range that training allows.
    """
    from lightning_modules.config import TrainingConfig

    values: dict[str, Any] = {name: getattr(params, name) for name in _SAME_NAME}
    given = {name: value for name in DEFAULTS_OF_TRAINING if (value := getattr(settings, name)) is not None}
    values |= {name: None if value in ("all", "model") else value for name, value in given.items()}
    values |= {
        "items_weight_decay": params.weight_decay,
        "examples_order": tuple(int(stage) for stage in params.examples_order),
        "num_epochs": params.num_epochs or settings.num_epochs,
        "max_steps": settings.max_steps,
        "batch_size": params.batch_size or settings.batch_size,
        "decay": "constant" if settings.step_size is not None and settings.gamma == 1 else "linear",
        "warmup_steps": settings.warmup_steps,
        "gradient_clip": settings.gradient_clip,
        "test_each_n_sessions": settings.test_each_n_sessions,
        "patience": settings.patience,
        "precision": settings.precision,
        "seed": settings.seed if seed is None else seed,
        "threads": threads,
        "devices": devices,
    }
    if params.interpolation is not None:
        values["interpolation_shares"] = (params.interpolation,)
    if index is not None:
        values |= {"metric": index.metric_type, "aggregation": index.metric_aggregation_type}
    if monitor is not None:
        values["monitor"] = monitor
    return TrainingConfig.of(**values)


def to_examination(settings: FineTuningSettings, sessions: Sequence[FineTuningInput]) -> Examination:
    """Return how attention falls with the position as the settings say; what they leave open, `sessions` tell.

    Raises:
        DataError: `sessions` do not allow the estimate that the settings ask for.
    """
    from estudio_core.clickstream.examination import examination_of
    from estudio_core.clickstream.examination_curve import EVEN

    if settings.position_bias == "none":
        return EVEN
    return examination_of(sessions, settings.examination_exponent, settings.examination)


def to_loss(settings: FineTuningSettings, params: FineTuningParams) -> ProbMarginRankingLoss:
    """Return a copy of the settings' loss with the form, scale, shift and temperature that the trial tries.

    Raises:
        ConfigurationError: the loss has no such argument.
    """
    loss: ProbMarginRankingLoss = copy.deepcopy(settings.loss_func)
    for name, attribute in _LOSS_FIELDS.items():
        value = getattr(params, name)
        if value is None:
            continue
        if not hasattr(loss, attribute):
            raise ConfigurationError(
                f"The search space varies {name}, and {type(loss).__name__} has no {attribute}. "
                f"Take {name} out of the space, or use CosineProbMarginRankingLoss."
            )
        setattr(loss, attribute, value)
    return loss
