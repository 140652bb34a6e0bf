"""Train a model on ranking data: the one function that experiments and pipeline call."""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from estudio_core.clickstream.ranking_data import RankingData
from estudio_core.clickstream.session_table import SessionTable
from estudio_core.errors import ConfigurationError, NotEnoughDataError
from estudio_core.models.embedding_model import EmbeddingModel
from lightning_modules.base_vectors import BaseVectors, rows_of_training
from lightning_modules.batches import BatchBuilder, Weights
from lightning_modules.callbacks.dev_validation import DevValidation, OnMetrics
from lightning_modules.callbacks.progress import ReportProgress
from lightning_modules.callbacks.refresh_negatives import RefreshNegatives
from lightning_modules.compilation import choose_backend
from lightning_modules.config import TrainingConfig
from lightning_modules.data_module import SessionBatches, SessionsDataModule, batches_per_epoch, steps_of_training
from lightning_modules.dev_evaluation import DevEvaluation
from lightning_modules.dropout import dropout_of
from lightning_modules.encoding import TextEncoder
from lightning_modules.fusion_weight import LearnedWeight
from lightning_modules.interpolation import Interpolation, choose_share, mixed, share_of_log
from lightning_modules.lexical_scores import LexicalScores
from lightning_modules.losses import default_loss
from lightning_modules.losses.pair_loss import configured
from lightning_modules.precision import LightningPrecision, autocast, choose_precision
from lightning_modules.query_tower import QueryTower
from lightning_modules.ranking_module import RankingModule, put_weights, weights_of
from lightning_modules.ranks import device_of, several_ranks, strategy_of
from lightning_modules.text_bank import TextBank

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitResult:
    """What training did. The model holds the weights that dev validation kept.

    Attributes:
        history: (optimiser step, metric values by name), in order; step 0 is the model as it came. It is never chosen:
            compare `metrics` with it, or better, let the gate decide.
        metrics: Dev metrics of the weights that the model holds now.
        best_step: Step whose weights were kept: the latest that dev queries do not find certainly worse.
        steps: Optimiser steps done.
        seconds: Wall-clock time of the whole call.
        validation_seconds: The part of it that dev metrics took.
        sessions: Training sessions seen, epochs counted.
        tokens: Tokens encoded in training steps.
        precision: Number format that was used.
        interpolation: Share of trained weights that the dev split chose, and the value of each share tried.
        stopped_early: True where patience ran out.
        fusion: What dev clicks make of the weight of words beside the model as it is now.
    """

    history: list[tuple[int, dict[str, float]]]
    metrics: dict[str, float]
    best_step: int
    steps: int
    seconds: float
    validation_seconds: float
    sessions: int
    tokens: int
    precision: str
    interpolation: Interpolation
    stopped_early: bool
    fusion: LearnedWeight


def fit(
    model: EmbeddingModel,
    data: RankingData,
    config: TrainingConfig | None = None,
    *,
    item_model: EmbeddingModel | None = None,
    loss: nn.Module | None = None,
    on_metrics: OnMetrics | None = None,
    click_propensity: Weights | None = None,
    confidences: Weights | None = None,
) -> FitResult:
    """Train `model` in place on the train split, choose weights on the dev split; holdout is never read.

    Args:
        model: Its lowest `config.fixed_layers` layers are frozen for good.
        data: Sessions and item texts.
        config: Every knob; None: the measured defaults.
        item_model: Where queries alone are trained (`config.train`), what gives items the vectors that they keep; it is
            not changed. None: `model` as it comes.
        loss: Loss over pairs, see `losses.pair_loss`; None: `losses.default_loss`.
        on_metrics: Called with (step, metrics); an exception it raises ends the training.
        click_propensity: For a session id, the weight of a click on each of its results; absent: 1.
        confidences: For a session id, the confidence of each of its results' click or skip; absent: 1.

    Raises:
        NotEnoughDataError: no training session has a click.
        ConfigurationError: the model has no more layers than are frozen, the loss cannot be given a value, or there is
            an item model, and items are trained.
        DataError: weights of a session are not as many as its results, below 0, or not finite.
        ModelError: training diverged.
    """
    started = time.monotonic()
    config = config or TrainingConfig()
    if config.train == "query":
        config = config.with_values({"devices": 1})  # a batch of queries is too short to be shared
    elif item_model is not None:
        raise ConfigurationError(
            "An item model is given, and train='both' trains one tower for both: say train='query'."
        )
    loss = configured(loss or default_loss(config.given), config)
    trained_layers(model, config)
    model.freeze_layers(config.fixed_layers)
    model.train()  # Lightning keeps the mode a model has, and a loaded one is in evaluation mode
    train = data.table("train")
    train = train.where(train.clicked)
    if not train:
        raise NotEnoughDataError("No training session has a click: collect more sessions, or widen the window.")
    job = _Job(model, item_model or model, train, data, config, loss, click_propensity, confidences)
    with (
        _threads(config.threads, config.devices),
        dropout_of(model, config.dropout),
        several_ranks(config.devices, _follow, job) as ranks,
    ):
        parts = _prepare(job, 0, on_metrics)
        ranks.join()
        base_weights = weights_of(model)
        steps = _train(parts, 0)
        model.to(device_of(0, config.devices))  # Lightning left it on the CPU
        shares = config.interpolation or (share_of_log(len(train.query_keys())),)
        interpolation = _interpolate(parts.module, parts.validation, base_weights, shares, config.keep_start)
        metrics = parts.validation.measure(parts.module)
        fusion = parts.validation.fusion_weight(parts.module)
        model.to("cpu").eval()
    history = parts.validation.history
    return FitResult(
        history=history.metrics,
        metrics=metrics,
        best_step=history.kept_step,
        steps=steps,
        seconds=time.monotonic() - started,
        validation_seconds=parts.validation.seconds,
        sessions=parts.module.sessions_seen,
        tokens=parts.module.tokens_encoded,
        precision=parts.precision,
        interpolation=interpolation,
        stopped_early=steps < parts.total_steps,
        fusion=fusion,
    )


@dataclass(frozen=True)
class _Job:
    """What every rank of a training gets."""

    model: EmbeddingModel
    item_model: EmbeddingModel
    train: SessionTable
    data: RankingData
    config: TrainingConfig
    loss: nn.Module
    click_propensity: Weights | None
    confidences: Weights | None


@dataclass(frozen=True)
class _Parts:
    """What a rank trains with."""

    module: RankingModule
    sessions: SessionsDataModule
    validation: DevValidation
    callbacks: list[lightning.Callback]
    precision: LightningPrecision
    total_steps: int


def trained_layers(model: EmbeddingModel, config: TrainingConfig) -> int:
    """Return how many of a model's layers are trained.

    Raises:
        ConfigurationError: the model has no more layers than are frozen.
    """
    if config.fixed_layers >= model.num_layers:
        name = "query_fixed_layers" if config.train == "query" else "num_fixed_layers"
        raise ConfigurationError(
            f"{name} is {config.fixed_layers}, and this {type(model).__name__} has {model.num_layers} "
            f"layers: none is left to train. Use a number from 0 to {model.num_layers - 1}."
        )
    return model.num_layers - config.fixed_layers


def _prepare(job: _Job, rank: int, on_metrics: OnMetrics | None = None) -> _Parts:
    """Tokenise, encode what training will look at with the weights as they are, and put everything together."""
    config, model = job.config, job.model
    lightning.seed_everything(config.seed, verbose=False)
    device = device_of(rank, config.devices)
    precision = choose_precision(config.precision)
    epoch_steps = batches_per_epoch(job.train, config)
    total_steps = steps_of_training(job.train, config)
    if total_steps < epoch_steps * config.num_epochs:
        logger.info(
            "Training ends after %d of the %d steps of %d epochs: query_passes=%s, max_steps=%s.",
            total_steps, epoch_steps * config.num_epochs, config.num_epochs, config.query_passes, config.max_steps,
        )  # fmt: skip
    bank = TextBank(model, job.data.table("train").joined(job.data.table("dev")), job.data.items, job.item_model)
    bounds = (config.encode_batch_tokens, config.cache_frozen_mb << 20, config.cache_frozen_disk_mb << 20)
    options: Any = {
        "half": precision != "32-true",
        "compile_with": choose_backend(config.compile, device, total_steps),
    }
    model.to(device)
    if config.train == "both":
        encoder = items = TextEncoder(model, bank, *bounds, **options)
    else:
        encoder, items = (TextEncoder(tower.to(device), bank, bounds[0]) for tower in (model, job.item_model))
    words = job.data.words if config.lexical_weight > 0 else None
    lexical = LexicalScores(words, config.lexical_weight) if words is not None else None
    builder = BatchBuilder(bank, job.data.table("train"), config, job.click_propensity, job.confidences, lexical)

    def encode(rows: Sequence[int]) -> Tensor:
        with autocast(precision, device):
            if items is encoder:
                return encoder.vectors(rows)
            vectors = torch.empty(len(rows), model.dimensions)
            is_item = torch.tensor(rows) >= bank.query_count
            for tower, mine in ((encoder, ~is_item), (items, is_item)):
                if mine.any():
                    vectors[mine] = tower.vectors([rows[i] for i in mine.nonzero().flatten().tolist()])
            return vectors

    base_vectors = BaseVectors(encode, len(bank))
    batches = SessionBatches(job.train, builder, config)
    base_vectors.add(rows_of_training(batches, len(bank), total_steps, config))
    every_steps = _steps_between_validations(config, len(job.train), epoch_steps, total_steps)
    most_texts = _texts_of_validation(batches, total_steps, total_steps // every_steps, config)
    validation = DevValidation(
        DevEvaluation(bank, job.data.splits["dev"], base_vectors, config, job.click_propensity, lexical, most_texts),
        every_steps=every_steps,
        patience=config.patience,
        monitor=config.monitor,
        precision=precision,
        on_metrics=on_metrics,
    )
    callbacks: list[lightning.Callback] = [validation, ReportProgress(total_steps)]
    if config.mined_negatives:
        callbacks.append(RefreshNegatives(builder, bank, precision, lexical))
    base_vectors.seal()
    if config.train == "query":
        if job.item_model is not model:
            job.item_model.to("cpu")
        encoder = QueryTower(model, bank, base_vectors, *bounds, **options)
    module = RankingModule(model, job.loss, encoder, base_vectors, config, total_steps)
    sessions = SessionsDataModule(job.train, builder, config)
    return _Parts(module, sessions, validation, callbacks, precision, total_steps)


def _follow(job: _Job, rank: int, join: Callable[[], None]) -> None:
    """Train as a further rank, in a process of its own."""
    with _threads(job.config.threads, job.config.devices), dropout_of(job.model, job.config.dropout):
        parts = _prepare(job, rank)
        join()
        _train(parts, rank)


def _train(parts: _Parts, rank: int) -> int:
    """Train with Lightning, which writes nothing, and return the number of optimiser steps."""
    config = parts.module.config
    with tempfile.TemporaryDirectory(prefix="estudio-fit-") as folder, _quiet_lightning():
        trainer = lightning.Trainer(
            accelerator="gpu" if torch.cuda.is_available() else "cpu",
            devices=config.devices,
            strategy=strategy_of(rank, config.devices),
            precision=parts.precision,
            max_steps=parts.total_steps,
            max_epochs=-1,
            gradient_clip_val=config.gradient_clip or None,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=folder,
            callbacks=parts.callbacks,
        )
        trainer.fit(parts.module, parts.sessions)
        return int(trainer.global_step)


def _steps_between_validations(config: TrainingConfig, sessions: int, epoch_steps: int, total_steps: int) -> int:
    """Return `test_each_n_sessions` in steps; a share is one of the training where that is shorter than an epoch."""
    wanted = config.test_each_n_sessions
    steps = wanted * min(epoch_steps, total_steps) if wanted <= 1 else wanted / sessions * epoch_steps
    return max(1, round(steps))


VALIDATION_SHARE = 0.1
"""Most of a training's time that validations take, encoding counted."""
_PASSES_OF_A_STEP = 3
"""A step encodes a text forwards and backwards, which costs about three times as much as forwards."""


def _texts_of_validation(batches: SessionBatches, total_steps: int, validations: int, config: TrainingConfig) -> int:
    """Return how many texts one validation may encode, so that all of them take `VALIDATION_SHARE` of the training.

    Before training, after it, and for each share of interpolation there is one more.
    """
    first = next(batches.drawn(0))
    shown = {result for session in first for result in session.results} if config.train == "both" else ()
    of_step = len({session.query for session in first}) + len(shown)
    measured = validations + 2 + len(config.interpolation or (1,))
    return round(VALIDATION_SHARE * _PASSES_OF_A_STEP * of_step * total_steps / measured)


def _interpolate(
    module: RankingModule,
    validation: DevValidation,
    base: dict[str, Tensor],
    shares: Sequence[float],
    keep_start: bool,
) -> Interpolation:
    """Leave the best mix of base and trained weights in the model, or the base where dev clicks do not speak for it.

    Without dev sessions it is the largest share.
    """

    def measure() -> float:
        return validation.value(validation.measure(module))

    history = validation.history
    if not validation.has_sessions:
        share = max(shares)
        put_weights(module.model, mixed(base, history.kept_weights, share))
        return Interpolation(share, {})
    chosen = choose_share(module.model, base, history.kept_weights, shares, measure)
    evidence = validation.evidence(module)
    if keep_start and not evidence.speaks_for_the_change:
        logger.warning(
            "The model is left as it was: the clicks of %d dev queries do not speak for what training changed "
            "(z = %.2f, needed %.2f). Collect more sessions of the same queries, or set keep_start=False.",
            evidence.queries, evidence.z, evidence.needed,
        )  # fmt: skip
        put_weights(module.model, base)
        return replace(chosen, share=0.0, evidence=evidence)
    return replace(chosen, evidence=evidence)


@contextmanager
def _threads(count: int | None, processes: int) -> Iterator[None]:
    """Compute with `count` CPU threads inside the block; None: a share for each of the processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or max(1, before // processes))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's notes on hardware and data loading out of task logs."""
    lightnings = logging.getLogger("lightning.pytorch")
    level = lightnings.level
    lightnings.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        lightnings.setLevel(level)
