"""The chance of dropout while a model is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def dropout_of(model: nn.Module, chance: float | None) -> Iterator[None]:
    """Let all dropout of `model` have this chance inside the block; None: what the model came with.

    It is the probability of the model's `torch.nn.Dropout` modules, from which BERT's attention takes its own, and the
    number `attention_dropout` that newer encoders keep instead.
    """
    places = [] if chance is None else [place for module in model.modules() for place in _places(module)]
    before = [getattr(module, name) for module, name in places]
    try:
        for module, name in places:
            setattr(module, name, chance)
        yield
    finally:
        for (module, name), original in zip(places, before, strict=True):
            setattr(module, name, original)


def _places(module: nn.Module) -> list[tuple[nn.Module, str]]:
    names = ["p"] if isinstance(module, nn.Dropout) else []
    if isinstance(getattr(module, "attention_dropout", None), float):
        names.append("attention_dropout")
    return [(module, name) for name in names]
