"""Every parameter of training, declared once: type, range, unit, meaning, measured default, and where it may be set.

All else derives from this class: the form of `fine_tune`, a plugin's arguments, what a search may vary, environment
variables, MLflow's strings, the table in docs/settings.md, and the refusal of unknown names. A further parameter is a
line here, and its use. How the measurements were made: docs/learning.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator

from estudio_core.errors import ConfigurationError
from estudio_core.lexical.settings import Fusion
from estudio_core.strict_model import StrictModel
from estudio_core.vectordb.index_info import MetricAggregationType, MetricType
from lightning_modules.example_kinds import ExampleKind, example_kind

Place = Literal["installation", "plugin", "form", "search", "index"]
"""Where a parameter may be set. installation: `ESTUDIO_TRAINING_<NAME>`. plugin: `TextTraining(...)`. form: that of
`fine_tune`. search: a plugin's search space. index: it follows the plugin's index or experiments manager."""

Precision = Literal["auto", "32", "bf16", "fp16"]
Compile = Literal["auto", "on", "off"]
Monitor = Literal[
    "test_quality",
    "test_ndcg@10",
    "test_pool_ndcg@10",
    "test_pairwise_accuracy",
    "test_not_irrelevant_dist_shift",
    "test_irrelevant_dist_shift",
    "test_loss",
]
"""Dev metrics that can decide, see `dev_evaluation.DevEvaluation`; larger is better, except for the loss."""

_WRITTEN_NONE = {"", "None", "null"}
"""How forms and MLflow write None."""
_OWN_NONE = {"max_negatives": "all", "max_positives": "all", "dropout": "model"}
"""Words that say what None means for a parameter."""


def parameter(
    default: Any,
    says: str,
    *where: Place,
    title: str | None = None,
    unit: str = "",
    measured: str = "",
    of_loss: str = "",
    **limits: Any,
) -> Any:
    """Declare a parameter.

    Args:
        default: Its value where nobody sets it.
        says: What it means, in a sentence or two.
        where: Places where it may be set.
        title: Heading in the form.
        unit: What it counts, where the name does not say so.
        measured: The measurement behind the default.
        of_loss: Argument of the loss that takes it; None, then, is the loss's own value.
        limits: Ranges, as of `pydantic.Field`.
    """
    about: dict[str, Any] = {"where": list(where), "unit": unit, "measured": measured, "of_loss": of_loss}
    return Field(default=default, title=title, description=says, json_schema_extra=about, **limits)


class TrainingConfig(StrictModel):
    """How a model is trained. Unknown names and illegal values are `ConfigurationError`s that name the legal ones."""

    # --- how long, and how fast ------------------------------------------------------------------------

    train: Literal["both", "query"] = parameter(
        "both",
        "What is trained. both: the one tower that encodes queries and items; query: a copy of it that encodes "
        "queries alone. Items keep the vectors that they have, and a release builds no index.",
        *("plugin", "form"),
        title="Train",
    )
    num_epochs: int = parameter(
        6,
        "Passes over the training sessions, at most: the dev split ends them where it sees a certain loss.",
        *("plugin", "form", "search"),
        title="Epochs",
        ge=1,
        le=10_000,
    )
    query_passes: float | None = parameter(
        3.0,
        "How often each distinct query is seen on average before training ends, whatever the epochs, but not before "
        "step 100; None: no limit. A group of a batch is of one query.",
        *("plugin", "search"),
        measured="NFCorpus' development queries, similarity and words together, simulated clicks of 1,750 queries, the "
        "tower of queries alone, one seed: 100 steps (1.8 passes) gained +0.0024 nDCG@10, 300 (5.5 passes) +0.0049, "
        "both with intervals of about 0.007.",
        gt=0,
        allow_inf_nan=False,
    )
    max_steps: int | None = parameter(
        2000,
        "Optimiser steps after which training ends, whatever the log; None: no limit. A bound of cost.",
        *("plugin", "search"),
        ge=1,
    )
    batch_size: int = parameter(
        32,
        "Groups of sessions per optimiser step; a group is of one query.",
        *("plugin", "form", "search"),
        title="Batch size",
        ge=1,
        le=65_536,
    )
    sessions_per_query: int = parameter(
        4,
        "Most sessions of a query that a batch takes together. They showed the same items: what one of them draws is "
        "encoded once, and is evidence for all. 1: sessions are drawn independently of each other.",
        *("plugin", "search"),
        ge=1,
    )
    learning_rate: float = parameter(
        2e-4,
        "Peak rate of the one tower for queries and items.",
        *("plugin", "form", "search"),
        title="Learning rate",
        measured="A development partition of Chorus, simulated clicks, one seed, gain of nDCG@10 on queries asked "
        "and never asked: 30 steps of 48 sessions at this rate +0.189 and +0.029, 58 of 24 at half of it +0.181 and "
        "+0.025.",
        gt=0,
        le=1,
        allow_inf_nan=False,
    )
    weight_decay: float = parameter(
        0.01,
        "AdamW decay of matrices; biases and layer norms are never decayed.",
        *("plugin", "search"),
        ge=0,
        le=1,
        allow_inf_nan=False,
    )
    warmup_steps: int = parameter(
        10, "Steps of linear warm-up; at most a tenth of all steps is used.", *("plugin", "search"), ge=0
    )
    decay: Literal["linear", "cosine", "constant"] = parameter(
        "linear", "Course of the rate after warm-up: down to 0, or not at all.", *("plugin", "search")
    )
    gradient_clip: float = parameter(
        1.0,
        "Largest L2 norm of the gradient; 0: not clipped.",
        *("plugin", "search"),
        ge=0,
        allow_inf_nan=False,
    )
    dropout: float | None = parameter(
        0.0,
        "Chance of dropout in the layers that are trained; None: the model's own.",
        *("plugin", "search"),
        measured="Four development partitions of Chorus, simulated clicks, one seed, asked and never asked: +0.182 and "
        "+0.093 with MiniLM's 0.1, +0.178 and +0.093 without; a step took 1.3 times as long with it on two CPU cores.",
        ge=0,
        lt=1,
    )
    num_fixed_layers: int = parameter(
        3,
        "Lowest transformer layers (and the embeddings) that are not trained.",
        *("plugin", "form", "search"),
        title="Frozen layers",
        ge=0,
        le=1000,
    )
    query_fixed_layers: int = parameter(
        0,
        "The same where queries alone are trained (`train`), in place of `num_fixed_layers`.",
        *("plugin", "search"),
        ge=0,
        le=1000,
    )
    seed: int = parameter(
        42,
        "Of batches, sampling and dropout. The split of the queries does not change with it.",
        *("plugin", "form"),
        title="Seed",
        ge=0,
        lt=2**32,
    )

    # --- the loss --------------------------------------------------------------------------------------

    margin: float | None = parameter(
        None,
        "Wanted similarity gap of clicked over skipped items; None: the loss's own.",
        *("plugin", "form", "search"),
        title="Margin",
        of_loss="base_margin",
        ge=0,
        le=2,
        allow_inf_nan=False,
    )
    loss_form: Literal["softplus", "sigmoid"] | None = parameter(
        None,
        "Shape of the loss over the missing part of the margin; None: the loss's own.",
        *("plugin", "search"),
        of_loss="form",
    )
    scale: float | None = parameter(
        None,
        "Steepness of the loss, per unit of similarity; None: the loss's own.",
        *("plugin", "search"),
        of_loss="scale",
        gt=0,
        allow_inf_nan=False,
    )
    shift: float | None = parameter(
        None,
        "Offset of the loss' argument; None: the loss's own.",
        *("plugin", "search"),
        of_loss="shift",
        allow_inf_nan=False,
    )
    hardness_temperature: float | None = parameter(
        None,
        "Temperature of the softmax over negatives, or of the weights that pairs get by hardness, in units of "
        "similarity; None: the loss's own.",
        *("plugin", "search"),
        of_loss="temperature",
        gt=0,
        allow_inf_nan=False,
    )
    residual: float = parameter(
        0.0,
        "Share of what words add to similarities that the loss sees too: 1 trains the encoder for what words leave "
        "over, 0 as if it ranked alone.",
        *("plugin", "search"),
        measured="NFCorpus' development queries, simulated clicks, the tower of queries alone, one seed: +0.0024 with "
        "0, +0.0025 with a third, -0.0052 with 1; with a third of the clicks at random -0.0010 and -0.0210. A division "
        "of Chorus, half of the trained weights: queries asked +0.106 and +0.095, never asked -0.016 and -0.024. Words "
        "and clicks disagree most where clicks are wrong.",
        ge=0,
        le=1,
        allow_inf_nan=False,
    )
    min_abs_difference_threshold: float | None = parameter(
        None,
        "Pairs whose similarities differ by less are left out; None: the loss's own.",
        *("plugin", "search"),
        of_loss="min_abs_difference_threshold",
        ge=0,
        le=2,
        allow_inf_nan=False,
    )
    max_abs_difference_threshold: float | None = parameter(
        None,
        "Pairs whose similarities differ by more are left out; None: the loss's own.",
        *("plugin", "search"),
        of_loss="max_abs_difference_threshold",
        gt=0,
        le=2,
        allow_inf_nan=False,
    )

    # --- what is learned from --------------------------------------------------------------------------

    not_irrelevant_only: bool = parameter(
        True,
        "Learn from clicked sessions only. False: results of click-less sessions of the same query are further "
        "negatives.",
        *("plugin", "search"),
    )
    negative_downsampling: float = parameter(
        1.0,
        "Share of a session's skipped results, the same ones in all epochs, of which negatives are drawn; at least one "
        "is. Those that other sessions of the query drew count too. Never in validation.",
        *("plugin", "search"),
        gt=0,
        le=1,
    )
    max_negatives: int | None = parameter(
        2,
        "Most negatives of a session that are drawn and encoded for it, a bound of token cost; None: all. Its other "
        "ones count too where the batch holds them.",
        *("plugin", "search"),
        ge=1,
    )
    max_positives: int | None = parameter(
        2,
        "Most clicked items of a session that are drawn and encoded for it, anew in every epoch; None: all. Its other "
        "ones count too where the batch holds them.",
        *("plugin", "search"),
        ge=1,
    )
    in_batch_negatives: bool = parameter(
        True,
        "Items of other sessions in the batch are negatives, unless clicked for the same query in any session.",
        *("plugin", "search"),
    )
    mined_negatives: int = parameter(
        0,
        "Items per session that the model ranks high for the query, though they were not shown for it; mined anew "
        "before every epoch among all items that a train or dev session showed, at the price of encoding them. Needs "
        "in-batch negatives.",
        *("plugin", "search"),
        ge=0,
    )
    false_negative_guard: float | None = parameter(
        None,
        "An in-batch negative that the base model finds more similar to the query than the clicked item plus this is "
        "left out; None: none is. Where the lists shown were that model's own best, 0 or more leaves out nothing: "
        "whatever is nearer than a clicked item was shown.",
        *("plugin", "search"),
        unit="similarity",
        allow_inf_nan=False,
    )
    drift_penalty: float = parameter(
        1.0,
        "Weight of the mean 1 - cosine between a text's vector and that of the model before training; of queries' "
        "vectors where they alone are trained.",
        *("plugin", "search"),
        measured="Two development divisions of Chorus, similarity and words together, simulated clicks, one seed, half "
        "of the trained weights, mean gain of nDCG@10, full and judged: queries asked +0.095 and +0.017 with 1, +0.100 "
        "and +0.020 with 0; never asked +0.015 and +0.003 with 1, +0.000 and -0.013 with 0.",
        ge=0,
        allow_inf_nan=False,
    )
    examples_order: tuple[ExampleKind, ...] = parameter(
        (ExampleKind.ALL,),
        "Kinds of pairs to train on, one after another in equal parts of the training: numbers or names of "
        "`ExampleKind`. 11: all.",
        *("plugin", "search"),
        min_length=1,
    )

    # --- what clicks are worth -------------------------------------------------------------------------

    position_bias: Literal["ipw", "coec", "none"] = parameter(
        "ipw",
        "How clicks are corrected for where results stood. ipw: by the inverse of the examination of the position; "
        "coec: by clicks over expected clicks; none: not at all, and skips neither, whatever `examination`.",
        "plugin",
    )
    examination: Literal["power_law", "em", "harvesting"] | tuple[float, ...] = parameter(
        "power_law",
        "How attention falls with the position. power_law: (position + 1)**-exponent, positions from 0. em, "
        "harvesting: a chance per position, estimated from results that stood at several positions for the same "
        "query (with fewer than 20 clicks away from where a result usually stands, training fails). Numbers in (0, "
        "1]: those chances themselves, from the top; positions beyond take the last one.",
        "plugin",
    )
    examination_exponent: float | None = parameter(
        None,
        "Exponent of the power law. Clicks far down count for more, skips far down for less; 0: all alike; None: "
        "estimated from the log.",
        "plugin",
        ge=0,
        le=3,
        allow_inf_nan=False,
    )
    pooling: Literal["query", "session"] = parameter(
        "query",
        "What tells how sure a click or a skip is: all sessions of its query, or its own alone.",
        "plugin",
        measured="NFCorpus' development queries, simulated clicks, one seed: `query` gained +0.0056 nDCG@10, "
        "`session` +0.0041.",
    )

    # --- validation, and what is kept ------------------------------------------------------------------

    test_each_n_sessions: float = parameter(
        0.4,
        "Validate each so many training sessions: a whole number above 1; in (0, 1] a share of an epoch, or of a "
        "training that is shorter than one.",
        "plugin",
        gt=0,
        allow_inf_nan=False,
    )
    patience: int = parameter(
        3,
        "Validations in a row that are certainly worse than the best, after which training stops; 0: never.",
        *("plugin", "search"),
        ge=0,
    )
    interpolation: tuple[float, ...] | None = parameter(
        None,
        "Share of the trained weights, the rest being those of the model it started from: less is more careful. None: "
        "as many distinct queries have clicks, n / (n + 150). Of several shares the dev split chooses, which it does "
        "badly: dev clicks are about the lists shown, and choose too little.",
        *("plugin", "search"),
        measured="Development queries never asked, similarity and words together, simulated clicks, one seed, mean "
        "gain of nDCG@10 at 0.2, 0.35, 0.5 and 1: Chorus with 46 queries asked (two divisions) +0.033, +0.018, +0.009 "
        "and -0.014; attributes with 46 queries +0.002, +0.006, +0.006 and +0.001, with 220 +0.006, +0.012, +0.016 and "
        "+0.024, with 1,240 (the tower of queries alone) +0.003, +0.005, +0.008 and +0.015.",
        min_length=1,
    )
    keep_start: bool = parameter(
        True,
        "Leave the model as it was where the clicks of dev queries, enough of them to show a gain, do not speak for "
        "what training changed. False: the gate alone decides.",
        *("plugin", "search"),
        measured="NFCorpus' development queries, simulated clicks, one seed, 179 dev queries, which need 0.96: z was "
        "2.7 for a training that gained +0.0024, -0.75 and -1.1 for two that lost 0.0089 and 0.0120.",
    )
    monitor: Monitor = parameter(
        "test_quality", "Dev metric that decides on stopping and on the weights that are kept.", "index"
    )
    aggregation: MetricAggregationType = parameter(
        MetricAggregationType.MIN, "How parts become items; that of the index.", "index"
    )
    lexical_weight: float = parameter(
        Fusion().weight,
        "Weight of BM25 beside the similarity where the dataset has words: dev queries judge the sum, which is served. "
        "That of the release; 0: vectors alone are served.",
        "index",
        ge=0,
        allow_inf_nan=False,
    )
    metric: MetricType = parameter(MetricType.COSINE, "Similarity; that of the index.", "index")

    # --- machine ---------------------------------------------------------------------------------------

    precision: Precision = parameter(
        "auto",
        "Number format. auto: bf16 where CPU (AMX, AVX-512 BF16) or GPU have it, fp16 on older GPUs, else 32 bits.",
        *("installation", "plugin"),
    )
    compile: Compile = parameter(
        "auto",
        "torch.compile of the trained layers; auto: on GPUs, for trainings that are long enough.",
        *("installation", "plugin"),
    )
    threads: int | None = parameter(
        None, "CPU threads of a training process; None: one per physical core.", "installation", ge=1
    )
    devices: int = parameter(
        1,
        "GPUs of a machine that one training uses, by Lightning's DDP (without a GPU: processes). Each encodes a "
        "share of every batch; the result is that of one, dropout aside. Queries alone are trained on one.",
        "installation",
        ge=1,
    )
    encode_batch_tokens: int = parameter(
        8192,
        "Most padded tokens of one forward pass, a bound of memory.",
        *("installation", "plugin"),
        ge=1,
    )
    cache_frozen_mb: int = parameter(
        1024,
        "Memory for outputs of the frozen layers, kept over steps and epochs; 0: computed anew each time.",
        *("installation", "plugin"),
        unit="MiB",
        ge=0,
    )
    cache_frozen_disk_mb: int = parameter(
        16_384,
        "Size of the temporary file that holds them where they are larger than that memory; 0: none, what does not "
        "fit is computed anew.",
        *("installation", "plugin"),
        unit="MiB",
        ge=0,
    )
    activations_mb: int | None = parameter(
        None,
        "Memory for what a step keeps of the texts that it encodes, until its gradients are known; what finds no room "
        "is encoded twice; 0: everything. None: 1024 on CPUs, no bound on GPUs, or on several devices, each of which "
        "holds a share.",
        *("installation", "plugin"),
        ge=0,
    )

    # --- reading ---------------------------------------------------------------------------------------

    @field_validator("examples_order", "interpolation", "examination", mode="before")
    @classmethod
    def _sequence(cls, value: Any, info: ValidationInfo) -> Any:
        """Read one value, or several as MLflow and people write them, as a tuple."""
        if isinstance(value, str) and not (info.field_name == "examination" and value[:1].isalpha()):
            value = [one for one in value.strip("[]() ").split(",") if one.strip()]
        elif isinstance(value, int | float):
            value = [value]
        if info.field_name == "examples_order" and isinstance(value, list | tuple):
            value = [example_kind(one) for one in value]
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _written(cls, value: Any, info: ValidationInfo) -> Any:
        """Read None as MLflow and people write it; pydantic asks this one first, being the last that is declared."""
        written = value.strip() if isinstance(value, str) else None
        return (
            None if written in _WRITTEN_NONE or (written and written == _OWN_NONE.get(str(info.field_name))) else value
        )

    @field_validator("interpolation", "examination")
    @classmethod
    def _shares(cls, value: Any) -> Any:
        if isinstance(value, tuple) and not (value and all(0 < share <= 1 for share in value)):
            raise ValueError("give numbers above 0 and at most 1")
        return value

    @field_validator("test_each_n_sessions")
    @classmethod
    def _share_or_number(cls, value: float) -> float:
        if value > 1 and not value.is_integer():
            raise ValueError("give a share in (0, 1] or a whole number of sessions")
        return value

    def _contradiction(self) -> str | None:
        least, most = self.min_abs_difference_threshold, self.max_abs_difference_threshold
        if least is not None and most is not None and most <= least:
            return f"max_abs_difference_threshold ({most}) has to be above min_abs_difference_threshold ({least})"
        if self.mined_negatives and not self.in_batch_negatives:
            return f"mined_negatives ({self.mined_negatives}) is legal with in_batch_negatives only"
        if self.activations_mb is not None and self.devices > 1:
            return f"activations_mb is legal on one device, not on {self.devices}: each holds a share of the batch only"
        if self.examination_exponent is not None and self.examination != "power_law":
            return "examination_exponent is the exponent of examination='power_law', and has no meaning for another one"
        return None

    # --- derived ---------------------------------------------------------------------------------------

    @classmethod
    def settable(cls, place: Place) -> tuple[str, ...]:
        """Return the names of the parameters that may be set there, in the order of their declaration.

        >>> TrainingConfig.settable("form")
        ('train', 'num_epochs', 'batch_size', 'learning_rate', 'num_fixed_layers', 'seed', 'margin')
        """
        return tuple(name for name in TrainingConfig.model_fields if place in about(name)["where"])

    @classmethod
    def refuse_elsewhere(cls, names: Collection[str], place: Place) -> None:
        """Refuse the parameters among `names` that are set in another place.

        Raises:
            ConfigurationError: it names one, and its place.
        """
        for name in sorted({*names} & {*TrainingConfig.model_fields} - {*TrainingConfig.settable(place)}):
            by_installation = f"in the environment, as ESTUDIO_TRAINING_{name.upper()}"
            elsewhere = "by the experiments manager" if name == "monitor" else f"by the index, as TextIndex({name}=...)"
            where = by_installation if "installation" in about(name)["where"] else elsewhere
            raise ConfigurationError(f"{cls.__name__}: {name} is not set here: give it {where}.")

    @property
    def given(self) -> dict[str, Any]:
        """The parameters that were set, by name; defaults are left out."""
        return {name: getattr(self, name) for name in TrainingConfig.model_fields if name in self.model_fields_set}

    @property
    def for_loss(self) -> dict[str, Any]:
        """What the loss is given, by its own arguments' names; what is None is left to the loss."""
        found = {about(name)["of_loss"]: getattr(self, name) for name in TrainingConfig.model_fields}
        return {argument: value for argument, value in found.items() if argument and value is not None}

    @property
    def fixed_layers(self) -> int:
        """Lowest layers that are not trained, of what is trained."""
        return self.query_fixed_layers if self.train == "query" else self.num_fixed_layers

    def with_values(self, values: Mapping[str, Any]) -> TrainingConfig:
        """Return the configuration with other values, validated.

        >>> TrainingConfig(margin=0.1).with_values({"batch_size": "8"}).given
        {'batch_size': 8, 'margin': 0.1}
        """
        return TrainingConfig.model_validate(self.given | dict(values))

    def as_json(self) -> dict[str, Any]:
        """Return all parameters as JSON values."""
        return self.model_dump(mode="json", include=set(TrainingConfig.model_fields))

    @property
    def id(self) -> str:
        """Sha256 of what differs from the defaults: equal trainings have equal ids, and a new parameter changes none.

        >>> TrainingConfig(margin=1).id == TrainingConfig.from_mlflow({"margin": "1.0"}).id
        True
        """
        usual = TrainingConfig().as_json()
        changed = {name: value for name, value in self.as_json().items() if value != usual[name]}
        return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()

    def to_mlflow(self) -> dict[str, str]:
        """Return all parameters as MLflow's strings.

        >>> TrainingConfig(learning_rate=3e-5, examples_order=[3, 11]).to_mlflow()["examples_order"]
        '3,11'
        """
        values = self.as_json().items()
        return {name: ",".join(map(str, v)) if isinstance(v, list) else str(v) for name, v in values}

    @classmethod
    def from_mlflow(cls, strings: Mapping[str, str]) -> Self:
        """Read parameters back, those of earlier versions too; what else a run has logged is passed over."""
        from lightning_modules.earlier_names import translated

        known = translated(strings)
        return cls.model_validate({name: known[name] for name in TrainingConfig.model_fields if name in known})


def about(name: str) -> dict[str, Any]:
    """Return what `parameter` was told of a parameter besides type, default and range."""
    extra = TrainingConfig.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return extra
