"""How a plugin trains: what all trials of a search have in common."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from estudio_core.strict_model import StrictModel


class FineTuningSettings(StrictModel):
    """Training settings of a plugin; never changed after construction.

    `test_each_n_inputs` is another name for `test_each_n_sessions`. Unknown names and illegal values are
    `ConfigurationError`s. `FineTuningParams.batch_size` and `.num_epochs`, where given, go before the ones here. Where
    no other meaning of None is named, it takes the default of `lightning_modules.config.TrainingConfig`.
    """

    input_aliases: ClassVar[dict[str, tuple[str, ...]]] = {"test_each_n_inputs": ("test_each_n_sessions",)}

    loss_func: Any
    """Ranking loss, such as `CosineProbMarginRankingLoss()`; trials work on a copy of it."""
    step_size: int | None = Field(default=None, ge=1)
    """Of a step schedule; see `gamma`. None: warm-up, then linear decay to zero."""
    gamma: float = Field(default=0.9, gt=0, le=1)
    """With `step_size`: below 1, the rate falls (after warm-up, linearly to zero: the steps of a step schedule are
    smoothed out); 1, the rate stays at its peak. Without `step_size` it has no meaning."""
    warmup_steps: int = Field(default=10, ge=0)
    """Optimiser steps over which the learning rate rises; a tenth of all steps at most."""
    num_epochs: int = Field(default=6, ge=1)
    """Most passes over the training sessions."""
    max_steps: int | None = Field(default=100, ge=1)
    """Optimiser steps after which training ends, whatever the epochs; None: no limit; see `TrainingConfig`."""
    batch_size: int = Field(default=32, ge=1)
    """Groups of sessions per optimiser step; a group is up to four sessions of one query."""
    test_each_n_sessions: float = Field(default=0.4, gt=0)
    """Training sessions between two validations: a share of them in (0, 1], or a whole number above 1."""
    patience: int = Field(default=3, ge=0)
    """Validations in a row that are certainly worse than the best, after which training stops; 0: never."""
    gradient_clip: float = Field(default=1.0, ge=0)
    """Largest norm of the gradient; 0: it is not clipped."""
    position_bias: Literal["ipw", "coec", "none"] = "ipw"
    """How clicks are corrected for where results stood, see `weigh_clicks`. ipw: by the inverse of the examination of
    the position; coec: by clicks over expected clicks; none: not at all, and skips neither, whatever `examination`."""
    examination: Literal["power_law", "em", "harvesting"] | tuple[float, ...] = "power_law"
    """How attention falls with the position. power_law: (position + 1)**-exponent, positions from 0. em, harvesting:
    a chance per position, estimated from results that stood at several positions for the same query (with fewer
    than 20 clicks away from where a result usually stands, training fails). Numbers in (0, 1]: those chances
    themselves, from the top; positions beyond take the last one."""
    examination_exponent: float | None = Field(default=None, ge=0, le=3)
    """Exponent of the power law. Clicks far down count for more, skips far down for less; 0: all alike; None: estimated
    from the log, see `clickstream.examination`."""
    pooling: Literal["query", "session"] = "query"
    """What tells how sure a click or a skip is: all sessions of its query, or its own alone; see `weigh_evidence`. On
    NFCorpus' development queries (simulated clicks, one seed) `query` gained +0.0056 nDCG@10 where `session` gained
    +0.0041."""
    sessions_per_query: int | None = Field(default=None, ge=1)
    """Most sessions of a query that form a group."""
    max_negatives: int | Literal["all"] | None = None
    """Most skipped items of a session that are drawn and encoded for it."""
    max_positives: int | Literal["all"] | None = None
    """Most clicked items of a session that are drawn and encoded for it, anew in every epoch."""
    in_batch_negatives: bool | None = None
    """Items of other queries in the batch are negatives too, unless they were clicked for the query."""
    mined_negatives: int | None = Field(default=None, ge=0)
    """Items per session that the model ranks high though they were not shown, mined before every epoch; 0: none."""
    false_negative_guard: float | None = Field(default=None, allow_inf_nan=False)
    """Negatives of other queries that the model before training finds more similar to the query than the clicked item
    plus this are left out; None: none is."""
    drift_penalty: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Weight of how far vectors move from those of the model before training."""
    dropout: float | Literal["model"] | None = None
    """Chance of dropout while training; "model": what the model came with."""
    gradient_cache: bool | None = None
    """Memory of the encoder independent of `batch_size`, for one more forward pass; on one device only."""
    compile: Literal["auto", "on", "off"] | None = None
    """torch.compile of the trained layers."""
    encode_batch_tokens: int | None = Field(default=None, ge=1)
    """Most padded tokens of one forward pass, a bound of memory."""
    cache_frozen_mb: int | None = Field(default=None, ge=0)
    """Memory for the outputs of frozen layers, MiB; 0: they are computed anew each time."""
    cache_frozen_disk_mb: int | None = Field(default=None, ge=0)
    """Temporary file for those that do not fit into that memory, MiB; 0: none."""
    precision: Literal["auto", "32", "bf16", "fp16"] = "auto"
    """Number format of training; auto: what the device gains from."""
    seed: int = Field(default=42, ge=0, lt=2**32)
    """Of batches, sampling and dropout, where a training is given no other; `fine_tune` gives that of its form."""

    @field_validator("examination")
    @classmethod
    def _chances(cls, value: Any) -> Any:
        if isinstance(value, tuple) and not (value and all(0 < chance <= 1 for chance in value)):
            raise ValueError("give chances above 0 and at most 1, one per position from the topmost on")
        return value

    @field_validator("max_negatives", "max_positives")
    @classmethod
    def _number_or_all(cls, value: Any) -> Any:
        if isinstance(value, int) and value < 1:
            raise ValueError("give 1 or more, or 'all'")
        return value

    @field_validator("dropout")
    @classmethod
    def _chance_or_model(cls, value: Any) -> Any:
        if isinstance(value, float | int) and not 0 <= value < 1:
            raise ValueError("give a chance in [0, 1), or 'model'")
        return value

    @field_validator("examination_exponent")
    @classmethod
    def _exponent_of_the_power_law(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("examination", "power_law") != "power_law":
            raise ValueError("it is the exponent of examination='power_law', and has no meaning for another one")
        return value

    @field_validator("test_each_n_sessions")
    @classmethod
    def _share_or_number(cls, value: float) -> float:
        if value > 1 and not float(value).is_integer():
            raise ValueError("give a share in (0, 1] or a whole number of sessions")
        return value
