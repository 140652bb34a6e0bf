"""In how many bits models are published: what a plugin may set of it."""

from __future__ import annotations

from pydantic import Field

from estudio_core.inference.manifest import Precision
from estudio_core.strict_model import StrictModel


class ExportSettings(StrictModel):
    """In how many bits a plugin's models are served."""

    precision: Precision = "fp32"
    """int8, per channel, is 1.6 to 2 times as fast on CPUs, at a loss that is measured; fp16 is for GPUs."""
    maximum_ndcg_loss: float = Field(default=0.005, ge=0, le=1)
    """Largest loss of nDCG@10 on held-out queries, against fp32, at which a model in fewer bits is published, and
    at which CPUs that multiply no bfloat16 encode items in bulk in int8."""
