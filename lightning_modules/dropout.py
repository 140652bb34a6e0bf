"""The chance of dropout while a model is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def dropout_of(model: nn.Module, chance: float | None) -> Iterator[None]:
    """Let all dropout of `model` have this chance inside the block; None: what the model came with.

    It is the probability of the model's `torch.nn.Dropout` modules, from which attention too takes its own.
    """
    modules = [] if chance is None else [module for module in model.modules() if isinstance(module, nn.Dropout)]
    before = [module.p for module in modules]
    try:
        for module in modules:
            module.p = float(chance or 0.0)
        yield
    finally:
        for module, original in zip(modules, before, strict=True):
            module.p = original
