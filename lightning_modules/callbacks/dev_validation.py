"""Measures the dev split while training, remembers the weights to keep, and stops when they get certainly worse."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from estudio_core.errors import ModelError
from lightning_modules.batches import SessionBatch
from lightning_modules.click_evidence import ClickEvidence
from lightning_modules.dev_evaluation import DevEvaluation, Floats, means
from lightning_modules.fusion_weight import LearnedWeight
from lightning_modules.precision import LightningPrecision, autocast
from lightning_modules.ranking_module import RankingModule, put_weights, weights_of

OnMetrics = Callable[[int, Mapping[str, float]], None]
"""Called with the number of optimiser steps done, and metric values by name."""

_TRAIN_WINDOW_STEPS = 10
"""Steps over whose mean training metrics are reported: enough for a curve, few enough for a tracking server."""


@dataclass
class History:
    """Metric values by step, and the weights to keep so far."""

    metrics: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    kept_step: int = 0
    kept_weights: dict[str, Tensor] = field(default_factory=dict)


CERTAINTY = 0.99
"""Of a test that is repeated at every validation, against the luckiest one so far. On four development partitions of
the Chorus queries (simulated clicks, one seed, no dropout) nDCG@10 gained +0.178 on queries asked and +0.093 on queries
never asked with 0.95, +0.188 and +0.097 with 0.99: with 0.95 one training had ended after a third of its steps."""


def certainly_worse(values: Floats, best: Floats) -> bool:
    """Return True where the mean of `values` is below that of `best`, with 99 % certainty (one-sided t-test).

    The test is on the differences query by query: [queries] each, NaN where a query has no value. One query alone
    makes nothing certain.

    >>> certainly_worse(np.array([0.4, 0.7]), np.array([0.5, 0.6])), certainly_worse(np.zeros(5), np.arange(1.0, 6.0))
    (False, True)

    Source: Student, "The Probable Error of a Mean" (Biometrika 1908); the paired test that Smucker, Allan, Carterette
    found to agree with the bootstrap for retrieval metrics (CIKM 2007).
    """
    from scipy.stats import t  # type: ignore[import-untyped]

    differences = (values - best)[~np.isnan(values - best)]
    if len(differences) < 2:
        return False
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    return float(differences.mean()) < -error * float(t.ppf(CERTAINTY, len(differences) - 1))


class DevValidation(lightning.Callback):
    """Validates before training and then every so many steps; with several ranks, the first does, and tells the others.

    The weights that are kept are the latest ones that are not certainly worse than the best ones so far. Clicks exist
    only for what the old model showed, so that a better model looks a little worse to them, and a few dev queries say
    little: on a development partition of the Chorus queries with five dev queries, the weights of the best value were
    those of step 2 of 36 (nDCG@10 of queries asked +0.082, never asked +0.012), while the last gave +0.206 and +0.036.
    For the same reason weights before the first step are measured, for the curve, and are no candidates:
    whether a trained model may replace the old one is the promotion gate's question.

    Args:
        evaluation: Metrics of the dev split.
        every_steps: Optimiser steps between two validations.
        patience: Validations in a row that are certainly worse than the best, after which training stops; 0: never.
        monitor: Name of the metric that decides; `test_loss` is better where smaller.
        precision: Of forward passes.
        on_metrics: Receives every metric.
    """

    def __init__(
        self,
        evaluation: DevEvaluation,
        *,
        every_steps: int,
        patience: int,
        monitor: str,
        precision: LightningPrecision,
        on_metrics: OnMetrics | None = None,
    ) -> None:
        self.history = History()
        self._evaluation = evaluation
        self._every_steps = every_steps
        self._patience = patience
        self._monitor = monitor
        self._precision = precision
        self._on_metrics = on_metrics
        self._worse = 0
        self._best: Floats | None = None
        self._window: list[tuple[SessionBatch, Tensor, Tensor]] = []
        self._measured_step = -1
        self.seconds = 0.0
        """Wall-clock time that metrics have taken so far."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Measure the model as it came."""
        self._validate(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Collect training metrics; validate when it is time."""
        if trainer.is_global_zero:
            self._window.append((batch, outputs["loss"], outputs["similarity"]))
        if len(self._window) == _TRAIN_WINDOW_STEPS:
            self._flush(trainer.global_step, pl_module)
        if trainer.global_step % self._every_steps == 0:
            self._flush(trainer.global_step, pl_module)
            self._validate(trainer, pl_module)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Measure the last weights too, then put back those that are kept."""
        self._flush(trainer.global_step, pl_module)
        self._validate(trainer, pl_module)
        if trainer.is_global_zero:
            put_weights(_ranking(pl_module).model, self.history.kept_weights)

    @property
    def has_sessions(self) -> bool:
        """False where there is nothing to choose by."""
        return bool(self._evaluation.rows)

    def value(self, metrics: Mapping[str, float]) -> float:
        """Return the monitored value, oriented so that larger is better; -inf where it is absent."""
        value = metrics.get(self._monitor, math.nan)
        if math.isnan(value):
            return -math.inf
        return -value if self._monitor == "test_loss" else value

    def measure(self, module: RankingModule) -> dict[str, float]:
        """Return the dev metrics of the module's present weights."""
        return means(self._by_query(module))

    def evidence(self, module: RankingModule) -> ClickEvidence:
        """Return what dev clicks say of the change from the model as it came to the module's present weights."""
        return self._evaluation.evidence(self._vectors(module))

    def fusion_weight(self, module: RankingModule) -> LearnedWeight:
        """Return what dev clicks make of the weight of words beside the module's present weights."""
        if not self.has_sessions:
            return LearnedWeight(module.config.lexical_weight, 0)
        return self._evaluation.fusion_weight(self._vectors(module))

    def _by_query(self, module: RankingModule) -> dict[str, Floats]:
        if not self.has_sessions:
            return {}
        started = time.monotonic()
        values = self._evaluation.by_query(self._vectors(module), module.loss_of)
        self.seconds += time.monotonic() - started
        return values

    def _vectors(self, module: RankingModule) -> Tensor:
        with autocast(self._precision, module.model.device):
            vectors = module.encoder.vectors(self._evaluation.rows)
        if not torch.isfinite(vectors).all():  # no metric would tell: NaN is in no order
            raise _diverged(module.global_step, "vectors of dev texts")
        return vectors

    def _validate(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.global_step == self._measured_step:
            return
        self._measured_step = trainer.global_step
        if trainer.is_global_zero:
            self._judge(trainer, _ranking(pl_module))
        if trainer.world_size > 1:
            trainer.should_stop = trainer.strategy.broadcast(trainer.should_stop)

    def _judge(self, trainer: lightning.Trainer, module: RankingModule) -> None:
        values = self._by_query(module)
        self._record(trainer.global_step, means(values))
        if trainer.global_step == 0:
            return
        # Without dev sessions there is nothing to choose by: the last weights are taken.
        monitored = values.get(self._monitor)
        if monitored is not None:
            monitored = -monitored if self._monitor == "test_loss" else monitored
            if self._best is not None and self.history.kept_weights and certainly_worse(monitored, self._best):
                self._worse += 1
                trainer.should_stop = trainer.should_stop or 0 < self._patience <= self._worse
                return
            if self._best is None or np.nanmean(monitored) > np.nanmean(self._best):
                self._best = monitored
        self._worse = 0
        self.history.kept_step = trainer.global_step
        weights = weights_of(module.model)
        if not all(torch.isfinite(weight).all() for weight in weights.values()):
            raise _diverged(trainer.global_step, "weights")
        self.history.kept_weights = weights

    def _flush(self, step: int, pl_module: lightning.LightningModule) -> None:
        window = [_ranking(pl_module).metrics_of(*kept) for kept in self._window]
        names = dict.fromkeys(name for metrics in window for name in metrics)
        means = {}
        for name in names:
            values = [metrics[name] for metrics in window if name in metrics]
            means[f"train_{name}"] = sum(values) / len(values)
        self._window.clear()
        if means:
            self._record(step, means)

    def _record(self, step: int, metrics: dict[str, float]) -> None:
        self.history.metrics.append((step, metrics))
        if self._on_metrics is not None and metrics:
            self._on_metrics(step, metrics)


def _diverged(step: int, what: str) -> ModelError:
    return ModelError(
        f"Training diverged: after step {step}, {what} are not finite. Lower learning_rate, or set gradient_clip to 1."
    )


def _ranking(module: lightning.LightningModule) -> RankingModule:
    assert isinstance(module, RankingModule)
    return module
