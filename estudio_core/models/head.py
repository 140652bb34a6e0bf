"""What comes after pooling in some models: linear layers with an activation, layer norms, normalisation in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from estudio_core.errors import ConfigurationError
from estudio_core.models.description import HeadLayer


class Dense(nn.Module):
    """A linear layer and an activation, float [n, in] to [n, out]; with `residual` the input is added.

    Names of its parameters are those that sentence-transformers gives its own.
    """

    def __init__(self, layer: HeadLayer) -> None:
        super().__init__()
        self.linear = nn.Linear(layer.inputs, layer.outputs, bias=layer.bias)
        self.activation = activation_of(layer.activation)
        if layer.residual and layer.inputs != layer.outputs:
            self.residual = nn.Linear(layer.inputs, layer.outputs, bias=False)
        self._adds_input = layer.residual

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the vectors of the next layer."""
        result = cast(Tensor, self.activation(self.linear(vectors)))
        if not self._adds_input:
            return result
        return result + (self.residual(vectors) if hasattr(self, "residual") else vectors)


class Norm(nn.Module):
    """A layer norm, float [n, dim] to [n, dim]."""

    def __init__(self, layer: HeadLayer) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(layer.inputs)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the vectors of the next layer."""
        return cast(Tensor, self.norm(vectors))


class UnitLength(nn.Module):
    """Division by the L2 norm, float [n, dim] to [n, dim]."""

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the vectors of the next layer."""
        return nn.functional.normalize(vectors, dim=-1)


def make_head(layers: Sequence[HeadLayer]) -> nn.Sequential:
    """Return the layers as a module, with weights that are still to be loaded."""
    made: list[nn.Module] = []
    for layer in layers:
        if layer.kind == "normalize":
            made.append(UnitLength())
        else:
            made.append(Dense(layer) if layer.kind == "dense" else Norm(layer))
    return nn.Sequential(*made)


def activation_of(name: str) -> nn.Module:
    """Return the activation with the class path `name`, one of torch's own without arguments and parameters.

    Raises:
        ConfigurationError: it is something else, which would run code of others, or could not be kept.
    """
    short = name.rpartition(".")[2]
    kind = getattr(torch.nn, short, None) if name.startswith("torch.nn.") else None
    if isinstance(kind, type) and issubclass(kind, nn.Module):
        plain = kind is nn.Identity or kind.__module__ == "torch.nn.modules.activation"
        try:
            made = kind() if plain else None
        except TypeError:
            made = None
        if made is not None and not list(made.parameters()):
            return made
    raise ConfigurationError(
        f"A Dense module has the activation {name!r}. Legal are the activations of torch.nn that need no arguments and "
        "learn nothing, such as torch.nn.modules.activation.Tanh, and torch.nn.modules.linear.Identity."
    )
