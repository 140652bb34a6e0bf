"""Every knob of training, with unit and measured default; see docs/learning.md on how the measurements were made."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any, Literal, get_args

from estudio_core.errors import ConfigurationError, suggest
from estudio_core.vectordb.index_info import MetricAggregationType, MetricType

Precision = Literal["auto", "32", "bf16", "fp16"]
Compile = Literal["auto", "on", "off"]
Decay = Literal["linear", "cosine", "constant"]
MONITORS = (
    "test_quality",
    "test_ndcg@10",
    "test_pool_ndcg@10",
    "test_pairwise_accuracy",
    "test_not_irrelevant_dist_shift",
    "test_irrelevant_dist_shift",
    "test_loss",
)
"""Dev metrics that can decide, see `dev_evaluation.DevEvaluation`; larger is better, except for the loss."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained. Rates are peaks, reached after warm-up.

    Raises:
        ConfigurationError: a value is out of range.
    """

    num_epochs: int = 6
    """Passes over the training sessions, at most: the dev split ends them where it sees a certain loss."""
    max_steps: int | None = 100
    """Optimiser steps after which training ends, whatever the epochs; None: no limit. A bound of cost for large logs:
    on NFCorpus' development queries (5,000 simulated sessions, one seed) 264 steps gained +0.0056 nDCG@10 and 60 steps
    +0.0027, which is little beside an interval of about 0.01 either way. On the queries of Chorus six epochs are about
    40 steps."""
    batch_size: int = 32
    """Groups of sessions per step; a group is of one query."""
    sessions_per_query: int = 4
    """Most sessions of a query that a batch takes together. They showed the same objects: what one of them draws is
    encoded once, and is evidence for all. 1: sessions are drawn independently of each other."""
    learning_rate: float = 2e-4
    """Peak rate of the one tower; sets both towers unless they are given. On a development partition of the
    Chorus queries (simulated clicks, one seed) 30 steps of 48 sessions at this rate gained +0.189 nDCG@10 on queries
    asked and +0.029 on queries never asked, 58 steps of 24 sessions at half of it +0.181 and +0.025."""
    query_lr: float | None = None
    """Peak rate of the query tower; None: `learning_rate`. Of no effect here, where both share one tower: a plugin's
    two rates come as the mean of both in `items_lr`."""
    items_lr: float | None = None
    """Peak rate of the item tower, which is the shared tower; None: `learning_rate`."""
    items_weight_decay: float = 0.01
    """AdamW decay of matrices; biases and layer norms are never decayed."""
    warmup_steps: int = 10
    """Steps of linear warm-up; at most a tenth of all steps is used."""
    decay: Decay = "linear"
    """Course of the rate after warm-up, down to 0."""
    gradient_clip: float = 1.0
    """Largest L2 norm of the gradient; 0: not clipped."""
    dropout: float | None = 0.0
    """Chance of dropout in the layers that are trained; None: the model's own. With MiniLM's 0.1 a step took 1.3 times
    as long on two CPU cores, for no gain that was seen: on four development partitions of the Chorus queries nDCG@10
    gained +0.182 on queries asked and +0.093 on queries never asked, without it +0.178 and +0.093 (simulated clicks,
    one seed; both before validation became as patient as it is, see `callbacks.dev_validation.CERTAINTY`)."""
    num_fixed_layers: int = 3
    """Lowest transformer layers (and the embeddings) that are not trained."""
    margin: float | None = None
    """Margin given to the loss; None: the loss's own."""

    not_irrelevant_only: bool = True
    """False: results of click-less sessions of the same query are further negatives."""
    negative_downsampling: float = 1.0
    """Share of a session's skipped results, the same ones in all epochs, of which negatives are drawn, in (0, 1]; at
    least one is. Those that other sessions of the query drew count too. Never in validation."""
    max_negatives: int | None = 2
    """Most negatives of a session that are drawn and encoded for it, a bound of token cost; None: all. Its other ones
    count too where the batch holds them."""
    max_positives: int | None = 2
    """Most clicked items of a session that are drawn and encoded for it, anew in every epoch; None: all. Its other ones
    count too where the batch holds them."""
    in_batch_negatives: bool = True
    """Items of other sessions in the batch are negatives, unless clicked for the same query in any session."""
    mined_negatives: int = 0
    """Objects per session that the model ranks high for the query, though they were not shown for it; mined anew
    before every epoch among all objects that a train or dev session showed, at the price of encoding them. Needs
    in-batch negatives."""
    false_negative_guard: float | None = None
    """An in-batch negative that the base model finds more similar to the query than the clicked item plus this
    (in units of similarity) is left out; None: none is. Where the lists shown were that model's own best, 0 or more
    leaves out nothing: whatever is nearer than a clicked item was shown."""
    drift_penalty: float = 0.0
    """Weight of the mean 1 - cosine between a text's vector and that of the model before training."""
    min_abs_difference_threshold: float | None = None
    """Given to the loss; None: the loss's own."""
    max_abs_difference_threshold: float | None = None
    """Given to the loss; None: the loss's own."""
    examples_order: tuple[int, ...] = (11,)
    """Kinds of pairs to train on, one after another in equal parts of the training; see `pairs.ExampleKind`."""

    aggregation: MetricAggregationType = MetricAggregationType.MIN
    """How parts become objects; the one of the index."""
    metric: MetricType = MetricType.COSINE
    """Similarity; the one of the index."""

    test_each_n_sessions: float = 0.4
    """Validate each so many training sessions: above 1 a number; in (0, 1] a share of an epoch, or of a training that
    is shorter than one."""
    patience: int = 3
    """Validations in a row that are certainly worse than the best, after which training stops; 0: never."""
    monitor: str = "test_quality"
    """Dev metric that decides on stopping and on the weights that are kept: one of `MONITORS`."""
    examination_exponent: float = 0.7
    """Dev clicks count (position + 1)**this where no click weights are given; 0: as they are. Raw clicks stand where
    the old model put its results, and call every other order worse."""
    interpolation_shares: tuple[float, ...] = (0.75,)
    """Shares of the trained weights, the rest being the base model's, among which the dev split chooses. With 0.75
    against 1, gains of nDCG@10 were +0.206 and +0.202 on queries asked, +0.036 and +0.028 on queries never asked in a
    development partition of the Chorus queries, +0.179 and +0.185, +0.104 and +0.094 in another, and +0.006 and +0.002
    on NFCorpus' development queries (simulated clicks, one seed): three quarters keep the gain, and bound what an
    overlong training can do. One only by default: dev clicks are about the lists shown, and choose too little."""

    precision: Precision = "auto"
    """auto: bf16 where CPU (AMX, AVX-512 BF16) or GPU have it, fp16 on older GPUs, else 32 bits."""
    compile: Compile = "auto"
    """torch.compile of the trained layers; auto: on GPUs, for trainings that are long enough. See `compilation`."""
    threads: int | None = None
    """CPU threads; None: as they are."""
    devices: int = 1
    """GPUs of this machine to train on (without a GPU: processes), each of which encodes a share of every batch; the
    result is that of one, dropout aside."""
    encode_batch_tokens: int = 8192
    """Most padded tokens of one forward pass, a bound of memory."""
    cache_frozen_mb: int = 1024
    """Memory for outputs of the frozen layers, kept over steps and epochs; 0: computed anew each time."""
    cache_frozen_disk_mb: int = 16384
    """Size of the temporary file that holds them where they are larger than that memory; 0: none, what does not fit
    is computed anew."""
    gradient_cache: bool = False
    """Memory of the encoder independent of `batch_size`, for one more forward pass; see `gradient_cache`. The pairs
    of a batch, sessions times objects, still grow with it."""
    seed: int = 42
    """Of batches, sampling and dropout."""

    def __post_init__(self) -> None:
        """Refuse values out of range, by name."""
        for name, legal in (
            ("precision", get_args(Precision)),
            ("compile", get_args(Compile)),
            ("decay", get_args(Decay)),
            ("monitor", MONITORS),
        ):
            _require(getattr(self, name) in legal, name, getattr(self, name), f"one of {', '.join(legal)}")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in ("int", "int | None") and value is not None:
                _require(isinstance(value, Integral), field.name, value, "a whole number")
        positive = (
            "num_epochs",
            "batch_size",
            "sessions_per_query",
            "learning_rate",
            "test_each_n_sessions",
            "encode_batch_tokens",
            "devices",
        )
        for name in positive:
            _require(getattr(self, name) > 0, name, getattr(self, name), "a number above 0")
        for name in ("query_lr", "items_lr", "max_steps", "max_negatives", "max_positives", "threads"):
            value = getattr(self, name)
            _require(value is None or value > 0, name, value, "a number above 0, or None")
        for name in (
            "items_weight_decay",
            "warmup_steps",
            "gradient_clip",
            "num_fixed_layers",
            "patience",
            "cache_frozen_mb",
            "cache_frozen_disk_mb",
            "drift_penalty",
            "mined_negatives",
            "seed",
            "examination_exponent",
        ):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _require(
            0 < self.negative_downsampling <= 1,
            "negative_downsampling",
            self.negative_downsampling,
            "a share in (0, 1]",
        )
        _require(self.dropout is None or 0 <= self.dropout < 1, "dropout", self.dropout, "a chance in [0, 1), or None")
        _require(
            self.in_batch_negatives or not self.mined_negatives,
            "mined_negatives",
            self.mined_negatives,
            "0 where in_batch_negatives is False",
        )
        _require(
            self.devices == 1 or not self.gradient_cache,
            "gradient_cache",
            self.gradient_cache,
            "False where devices is above 1: each device holds a share of the batch only",
        )
        _require(
            all(0 < share <= 1 for share in self.interpolation_shares) and bool(self.interpolation_shares),
            "interpolation_shares",
            self.interpolation_shares,
            "one or more shares in (0, 1]",
        )
        _require(
            bool(self.examples_order) and all(1 <= kind <= 11 for kind in self.examples_order),
            "examples_order",
            self.examples_order,
            "one or more numbers from 1 to 11",
        )
        for field in fields(self):
            value = getattr(self, field.name)
            _require(not isinstance(value, float) or math.isfinite(value), field.name, value, "a finite number")

    @classmethod
    def of(cls, **values: Any) -> TrainingConfig:
        """Build a configuration from keyword arguments; an unknown name is refused with the nearest legal one."""
        names = [field.name for field in fields(cls)]
        for name in values:
            if name not in names:
                raise ConfigurationError(f"There is no training parameter {name!r}. {suggest(name, names)}")
        return cls(**values)

    @property
    def tower_lr(self) -> float:
        """Peak learning rate of the shared tower."""
        return self.items_lr or self.learning_rate


def _require(legal: bool, name: str, value: object, rule: str) -> None:
    if not legal:
        raise ConfigurationError(f"{name} is {value!r}; legal is {rule}.")
