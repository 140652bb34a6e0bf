"""What a model loses in ranking by being published in fewer bits, and whether that is too much."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from estudio_core.errors import ExportError
from estudio_core.inference.manifest import RankingLoss

if TYPE_CHECKING:
    from estudio_core.inference.embedder import Embedder


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
