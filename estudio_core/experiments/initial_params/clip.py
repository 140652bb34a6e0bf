"""Search space for CLIP-like models of twelve layers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

INITIAL_PARAMS: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "num_fixed_layers": (5, 6, 7, 8),
        "learning_rate": (1e-4, 5e-5, 1e-5, 5e-6),
        "weight_decay": (0.0, 1e-6, 1e-5, 1e-4),
        "margin": (0.01, 0.025, 0.05),
        "not_irrelevant_only": (True,),
        "negative_downsampling": (0.5, 1.0),
        "examples_order": ((11,),),
    }
)
