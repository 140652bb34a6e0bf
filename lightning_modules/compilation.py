"""Whether `torch.compile` pays for a training on this host."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from lightning_modules.config import Compile

_BACKEND = "inductor"
_FEWEST_STEPS = 500
"""Steps below which compiling takes longer than it saves: it lasts about a minute, and saves some hundredths of a
second of a step of a small encoder."""
_OLDEST_GPU = (7, 0)
"""Compute capability that torch's compiler needs."""


def choose_backend(wanted: Compile, device: torch.device, steps: int) -> str | None:
    """Return the compiler's backend, None for running without one.

    >>> choose_backend("on", torch.device("cpu"), 10)
    'inductor'
    >>> choose_backend("auto", torch.device("cpu"), 10_000) is None
    True

    auto: on GPUs that the compiler knows, for trainings long enough to earn its time. Never on CPUs, where layers of an
    encoder spend their time in matrix products, which compiling leaves as they are.

    Args:
        wanted: What the configuration says.
        device: Of the model.
        steps: Optimiser steps of the training.
    """
    if wanted != "auto":
        return _BACKEND if wanted == "on" else None
    if device.type != "cuda" or steps < _FEWEST_STEPS or find_spec("triton") is None:
        return None
    return _BACKEND if torch.cuda.get_device_capability(device) >= _OLDEST_GPU else None
