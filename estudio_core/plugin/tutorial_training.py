"""The tutorial's two classes of training parameters: `TrainingConfig` under the tutorial's names."""

from __future__ import annotations

from typing import Any

from lightning_modules.config import TrainingConfig
from lightning_modules.earlier_names import translated


class FineTuningParams(TrainingConfig):
    """Parameters of a trial; `query_lr`, `items_lr` and further names of the tutorial are understood."""

    @classmethod
    def _without_aliases(cls, data: dict[Any, Any]) -> dict[Any, Any]:
        return translated(data)


class FineTuningSettings(FineTuningParams):
    """Parameters of all trials of a plugin, and its loss; they go before those of the installation."""

    loss_func: Any
    """A loss over pairs, such as `CosineProbMarginRankingLoss()`; trials work on a copy of it."""
