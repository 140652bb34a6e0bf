"""Search space for text encoders of six to twelve layers (MiniLM, E5, BERT)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

INITIAL_PARAMS: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "num_fixed_layers": (0, 3, 4),
        "learning_rate": (2e-4, 1e-4, 5e-5, 2e-5),
        "weight_decay": (0.0, 0.01),
        "margin": (0.0, 0.05, 0.1, 0.2),
        "not_irrelevant_only": (True,),
        "negative_downsampling": (0.5, 1.0),
        "examples_order": ((11,),),
    }
)
