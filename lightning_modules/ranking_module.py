"""The LightningModule: encode a batch's texts once, compare queries and objects, lower the loss of the pairs."""

from __future__ import annotations

import math
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.optim.lr_scheduler import LambdaLR

from estudio_core.models.aggregation import object_similarities
from estudio_core.models.embedding_model import EmbeddingModel
from lightning_modules.base_vectors import BaseVectors
from lightning_modules.batches import SessionBatch
from lightning_modules.config import TrainingConfig
from lightning_modules.encoding import TextEncoder
from lightning_modules.example_kinds import ExampleKind
from lightning_modules.gradient_cache import CachedGradients
from lightning_modules.losses.pair_loss import HasMargin, PairLossCall
from lightning_modules.pairs import Pairs, build_pairs, guarded, of_kind
from lightning_modules.ranks import gathered, my_share
from lightning_modules.training_metrics import training_metrics


class RankingModule(lightning.LightningModule):
    """Trains `model` so that clicked objects are nearer to their query than the others.

    Args:
        model: The model; frozen already.
        loss: Loss over pairs, see `losses.pair_loss`.
        encoder: Encodes the texts of the bank with `model`.
        base_vectors: Vectors of the texts before training, by row of the bank; reference of shifts, guard and drift.
        config: Everything else.
        total_steps: Optimiser steps of the whole training, for decay of the rate and the curriculum.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        loss: nn.Module,
        encoder: TextEncoder,
        base_vectors: BaseVectors | Tensor,
        config: TrainingConfig,
        total_steps: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.loss_of = PairLossCall(loss)
        self.encoder = encoder
        self.config = config
        self.tokens_encoded = 0
        self.sessions_seen = 0
        graphs = activation_bytes(config, model.device)
        self._cached = CachedGradients(encoder, graphs) if graphs is not None else None
        self._base_vectors = base_vectors
        self._total_steps = max(1, total_steps)

    def transfer_batch_to_device(self, batch: SessionBatch, device: torch.device, dataloader_idx: int) -> SessionBatch:
        """Move the tensors of a batch; text rows stay."""
        return batch.to(device)

    def training_step(self, batch: SessionBatch, batch_idx: int) -> dict[str, Any]:
        """Return the loss of a batch, and its scores [sessions, objects] for `metrics_of`."""
        rows = [*batch.query_rows, *batch.part_rows]
        vectors = self._cached.encode(rows) if self._cached is not None else self._encode(rows)
        self.tokens_encoded += self.encoder.token_count(rows)
        self.sessions_seen += len(batch.session_query)
        similarity = self._scores(batch, vectors)
        # The loss sees a share of what words add; what is measured is the sum that is served.
        of_loss = similarity - (1 - self.config.residual) * batch.lexical
        loss = self._loss(batch, of_loss, self._pairs(batch, of_loss.detach()))
        if self.config.drift_penalty:
            moved = batch.query_rows if self.config.train == "query" else rows
            base = self._base_vectors[moved].to(vectors.device)
            loss = loss + self.config.drift_penalty * (1 - (vectors[: len(moved)] * base).sum(-1)).mean()
        return {"loss": loss, "similarity": similarity.detach()}

    def _encode(self, rows: list[int]) -> Tensor:
        """Return the vectors of `rows`; where there are several ranks, each computes a share."""
        if not dist.is_initialized():
            return self.encoder(rows)
        order = self.encoder.by_length(rows)
        vectors = gathered(self.encoder([rows[i] for i in my_share(order)]), len(rows))
        return vectors[torch.tensor(order, device=vectors.device).argsort()]

    def metrics_of(self, batch: SessionBatch, loss: Tensor, similarity: Tensor) -> dict[str, float]:
        """Return the metrics of a step by name, from what `training_step` returned; a GPU is waited for here only."""
        batch = batch.to(torch.device("cpu"))
        base = self._base_similarity(batch)
        metrics = training_metrics(similarity.cpu(), base, batch.clicked, batch.negatives, batch.rejected)
        return {"loss": float(loss), **{name: float(value) for name, value in metrics.items()}}

    def _base_similarity(self, batch: SessionBatch) -> Tensor:
        """Return the scores before training, on the device of the batch."""
        rows = [*batch.query_rows, *batch.part_rows]
        return self._scores(batch, self._base_vectors[rows].to(batch.clicked.device))

    def _scores(self, batch: SessionBatch, vectors: Tensor) -> Tensor:
        """Return each session's scores, similarity and what words add, float32 [sessions, objects]."""
        count = len(batch.query_rows)
        # Under autocast a product of float32 matrices has 8 bits: steps of 0.004, where margins are tenths.
        with torch.autocast(vectors.device.type, enabled=False):
            queries, parts = vectors[:count].float(), vectors[count:].float()
            per_query = object_similarities(queries, parts, batch.table, self.config.aggregation, self.config.metric)
            return per_query[batch.session_query] + batch.lexical

    def _pairs(self, batch: SessionBatch, similarity: Tensor) -> Pairs:
        pairs = build_pairs(batch.clicked, batch.negatives | batch.batch_negatives)
        if self.config.false_negative_guard is not None:
            base = self._base_similarity(batch)
            pairs = guarded(pairs, batch.batch_negatives, base, self.config.false_negative_guard)
        kind = self._stage()
        if kind is not ExampleKind.ALL:
            difference = similarity[pairs.session, pairs.positive] - similarity[pairs.session, pairs.negative]
            margin = self.loss.margin_at(self._done()) if isinstance(self.loss, HasMargin) else 0.0
            pairs = pairs.where(of_kind(difference, margin, kind))
        return pairs

    def _stage(self) -> ExampleKind:
        """Return the kind of pairs of the curriculum's current stage."""
        order = self.config.examples_order
        return order[min(int(self._done() * len(order)), len(order) - 1)]

    def _done(self) -> float:
        """Return the share of the training that is over."""
        return min(self.global_step / self._total_steps, 1.0)

    def _loss(self, batch: SessionBatch, similarity: Tensor, pairs: Pairs) -> Tensor:
        click = batch.confidence[pairs.session, pairs.positive]
        skip = batch.confidence[pairs.session, pairs.negative]
        click_weight = batch.click_weight[pairs.session, pairs.positive]
        return self.loss_of(
            similarity[pairs.session, pairs.positive],
            similarity[pairs.session, pairs.negative],
            {
                "confidences": torch.minimum(click, skip) * click_weight,
                "click_weights": click * click_weight,
                "skip_confidences": skip,
                "positive_index": pairs.positive_index,
                "session_index": pairs.session,
                "shown_margins": batch.shown_score[pairs.session, pairs.positive]
                - batch.shown_score[pairs.session, pairs.negative],
                "done": self._done(),
            },
        )

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Carry gradients back; chunk by chunk to the texts that were encoded without a graph."""
        super().backward(loss, *args, **kwargs)
        if self._cached is not None:
            self._cached.backward(self.trainer.precision_plugin.forward_context)

    def configure_optimizers(self) -> Any:
        """Return AdamW with linear warm-up and decay of the rate, stepped after every optimiser step."""
        decayed = [p for p in self.model.trainable_parameters() if p.ndim > 1]
        plain = [p for p in self.model.trainable_parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": self.config.weight_decay},
            {"params": [*plain, *self.loss.parameters()], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.config.learning_rate)
        scheduler = LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _rate(self, step: int) -> float:
        return rate_share(step, self._total_steps, self.config.warmup_steps, self.config.decay)


CPU_ACTIVATIONS_MB = 1024
"""Bound of activations on a CPU where none is given."""


def activation_bytes(config: TrainingConfig, device: torch.device) -> int | None:
    """Return the most that graphs of a step's texts may take on `device`; None: no bound.

    >>> activation_bytes(TrainingConfig(activations_mb=2), torch.device("cuda"))
    2097152
    """
    if config.activations_mb is not None:
        return config.activations_mb << 20
    return CPU_ACTIVATIONS_MB << 20 if device.type == "cpu" and config.devices == 1 else None


def rate_share(step: int, total_steps: int, warmup_steps: int, decay: str) -> float:
    """Return the share of the peak learning rate at optimiser step `step`, counted from 0.

    >>> [round(rate_share(step, 100, 2, "linear"), 2) for step in (0, 1, 2, 51, 100)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    warmup = min(warmup_steps, max(1, total_steps // 10))
    if step < warmup:
        return (step + 1) / warmup
    left = max(0.0, (total_steps - step) / max(1, total_steps - warmup))
    if decay == "linear":
        return left
    return 1.0 if decay == "constant" else 0.5 * (1 - math.cos(math.pi * left))


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the parameters that need gradient, on the CPU, by name."""
    return {n: p.detach().to("cpu", copy=True) for n, p in model.named_parameters() if p.requires_grad}


def put_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy `weights` (as `weights_of` returned them) into the model."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            parameters[name].copy_(value)
