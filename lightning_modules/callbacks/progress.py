"""Tells Estudio's progress sink how far training is."""

from __future__ import annotations

import math
from typing import Any

import lightning

from estudio_core.progress import report

_LOSS_EVERY_STEPS = 10
"""Steps between two readings of the loss: each makes the processor wait for a GPU."""


class ReportProgress(lightning.Callback):
    """Reports steps done of `total_steps` after every batch.

    Args:
        total_steps: Steps of the whole training, if it is not stopped early.
    """

    def __init__(self, total_steps: int) -> None:
        self._total_steps = total_steps
        self._loss = math.nan

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report one more step."""
        if batch_idx % _LOSS_EVERY_STEPS == 0:
            self._loss = float(outputs["loss"])
        report("fine-tune", trainer.global_step, self._total_steps, "steps", f"loss {self._loss:.4f}")
