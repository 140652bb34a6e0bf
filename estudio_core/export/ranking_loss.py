"""What a model loses in ranking by being published in fewer bits, and whether that is too much."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from estudio_core.errors import ExportError

if TYPE_CHECKING:
    from estudio_core.inference.embedder import Embedder


class RankingLoss(BaseModel):
    """nDCG@10 of held-out queries, with the graph in 32 bits and with the published one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    queries: int
    items: int
    """Items that were ranked: the judged ones, and others to fill up."""
    ndcg_fp32: float
    ndcg: float
    maximum_loss: float
    """What was allowed."""

    @property
    def loss(self) -> float:
        """How much lower nDCG@10 is; negative where it is higher."""
        return self.ndcg_fp32 - self.ndcg


RankingCheck = Callable[["Embedder", "Embedder"], RankingLoss]
"""Measures the second embedder, in fewer bits, against the first."""


def require_small_loss(found: RankingLoss, name: str, precision: str) -> None:
    """Refuse a graph that ranks worse than allowed.

    Raises:
        ExportError: the loss of nDCG@10 exceeds `maximum_loss`.
    """
    if found.loss > found.maximum_loss:
        raise ExportError(
            f"{name} in {precision} ranks worse than in fp32: nDCG@10 {found.ndcg:.4f} against {found.ndcg_fp32:.4f} "
            f"on {found.queries} held-out queries over {found.items} items, a loss of {found.loss:.4f}; at most "
            f"{found.maximum_loss:g} is allowed. Nothing was published. Set the plugin's export to "
            'ExportSettings(precision="fp32"), or allow more with maximum_ndcg_loss.'
        )
