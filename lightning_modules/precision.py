"""Which number format a host computes fastest in without losing quality."""

from __future__ import annotations

from collections.abc import Set
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch

from lightning_modules.config import Precision

_FAST_BF16 = {"amx_bf16", "avx512_bf16"}
LightningPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]


def choose_precision(wanted: Precision, cpu_flags: Set[str] | None = None) -> LightningPrecision:
    """Return Lightning's name of the precision; `auto` looks at the host.

    >>> choose_precision("fp16")
    '16-mixed'

    auto: bf16 on GPUs that have it and on CPUs with AMX tiles (twice the training speed measured on one) or AVX-512
    BF16 (a layer's forward and backward pass took 0.4 of the processor time on one); fp16 on older GPUs; 32 bits
    elsewhere: on a CPU without either, bf16 was measured 4.5 times slower than 32 bits.

    Args:
        wanted: What the configuration says.
        cpu_flags: Features of the processor; None: read from the host.
    """
    if wanted != "auto":
        names: dict[Precision, LightningPrecision] = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
        return names[wanted]
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    flags = _cpu_flags() if cpu_flags is None else cpu_flags
    return "bf16-mixed" if _FAST_BF16 & flags else "32-true"


def autocast(precision: LightningPrecision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which a forward pass outside of Lightning computes in `precision`."""
    if precision == "32-true":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16-mixed" else torch.float16)


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()  # not Linux: take the safe choice
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())
