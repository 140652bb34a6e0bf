"""Where the layers of a transformer are, and how to run the lower and the upper ones apart."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from estudio_core.errors import ModelError


def find_layers(backbone: nn.Module) -> str:
    """Return the dotted name of the list of transformer layers inside `backbone`.

    It is the one `ModuleList` whose elements are all of one class and as many as the configuration says
    (`encoder.layer` in BERT, XLM-R and MPNet, `transformer.layer` in DistilBERT).

    Raises:
        ModelError: there is no such list, or more than one.
    """
    count = getattr(getattr(backbone, "config", None), "num_hidden_layers", None)
    found: list[str] = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) > 0
        and len({type(layer) for layer in module}) == 1
        and count in (None, len(module))
    ]
    if len(found) != 1:
        raise ModelError(
            f"{type(backbone).__name__} has {len(found)} lists of transformer layers {found}; exactly one is needed. "
            "Legal are encoders built like BERT, XLM-RoBERTa, MPNet or DistilBERT."
        )
    if not isinstance(getattr(backbone, "embeddings", None), nn.Module):
        raise ModelError(f"{type(backbone).__name__} has no module named 'embeddings' below its layers.")
    return found[0]


class GivenHidden(nn.Module):
    """Stands in for the embeddings module: returns the hidden states that are passed as `inputs_embeds`."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the only floating-point tensor among the arguments."""
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor) and value.is_floating_point():
                return value
        raise ModelError("The upper layers were run without hidden states.")


def lower_part(backbone: nn.Module, layers: str, count: int) -> nn.Module:
    """Return a module that shares `backbone`'s parameters and ends after its lowest `count` layers."""
    kept = nn.ModuleList(list(backbone.get_submodule(layers).children())[:count])
    return _with_replaced(backbone, layers, kept)


def upper_part(backbone: nn.Module, layers: str, count: int) -> nn.Module:
    """Return a module that shares `backbone`'s parameters and starts after its lowest `count` layers.

    Its input is `inputs_embeds`: what `lower_part` of the same `count` returned.
    """
    kept = nn.ModuleList(list(backbone.get_submodule(layers).children())[count:])
    part = _with_replaced(backbone, layers, kept)
    part._modules["embeddings"] = GivenHidden()
    return part


def _with_replaced(module: nn.Module, path: str, replacement: nn.Module) -> nn.Module:
    """Return a copy of the modules along `path` with the one at its end replaced; all else is shared."""
    name, _, rest = path.partition(".")
    shared = copy.copy(module)
    shared.__dict__["_modules"] = dict(module._modules)
    child = module.get_submodule(name)
    shared._modules[name] = _with_replaced(child, rest, replacement) if rest else replacement
    return shared


def pad(sequences: list[list[int]], padding_id: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Return `(input_ids, attention_mask)`, int64 [n, longest], padded at the right.

    >>> ids, mask = pad([[5, 6], [7]], padding_id=0)
    >>> ids.tolist(), mask.tolist()
    ([[5, 6], [7, 0]], [[1, 1], [1, 0]])
    """
    longest = max(len(s) for s in sequences)
    ids = torch.tensor([s + [padding_id] * (longest - len(s)) for s in sequences], dtype=torch.long)
    mask = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in sequences], dtype=torch.long)
    return ids.to(device), mask.to(device)
