"""Search space for CLIP-like models of twelve layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from estudio_core.experiments.initial_params import own_copy

if TYPE_CHECKING:
    INITIAL_PARAMS: dict[str, list[Any]]

_SPACE: dict[str, list[Any]] = {
    "num_fixed_layers": [5, 6, 7, 8],
    "learning_rate": [1e-4, 5e-5, 1e-5, 5e-6],
    "weight_decay": [0.0, 1e-6, 1e-5, 1e-4],
    "margin": [0.01, 0.025, 0.05],
    "not_irrelevant_only": [True],
    "negative_downsampling": [0.5, 1.0],
    "examples_order": [[11]],
}


def __getattr__(name: str) -> Any:
    if name == "INITIAL_PARAMS":
        return own_copy(_SPACE)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
