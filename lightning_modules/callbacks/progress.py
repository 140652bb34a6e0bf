"""Tells Estudio's progress sink how far training is."""

from __future__ import annotations

from typing import Any

import lightning

from estudio_core.progress import report


class ReportProgress(lightning.Callback):
    """Reports steps done of `total_steps` after every batch.

    Args:
        total_steps: Steps of the whole training, if it is not stopped early.
    """

    def __init__(self, total_steps: int) -> None:
        self._total_steps = total_steps

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report one more step."""
        loss = float(outputs["metrics"]["loss"])
        report("fine-tune", trainer.global_step, self._total_steps, "steps", f"loss {loss:.4f}")
