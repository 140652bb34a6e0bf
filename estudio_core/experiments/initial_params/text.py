"""Search space for text encoders of six to twelve layers (MiniLM, E5, BERT)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from estudio_core.experiments.initial_params import own_copy

if TYPE_CHECKING:
    INITIAL_PARAMS: dict[str, list[Any]]

_SPACE: dict[str, list[Any]] = {
    "num_fixed_layers": [0, 3, 4],
    "learning_rate": [2e-4, 1e-4, 5e-5, 2e-5],
    "weight_decay": [0.0, 0.01],
    "margin": [0.05, 0.1, 0.2],
    "not_irrelevant_only": [True],
    "negative_downsampling": [0.5, 1.0],
    "examples_order": [[11]],
}


def __getattr__(name: str) -> Any:
    if name == "INITIAL_PARAMS":
        return own_copy(_SPACE)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
