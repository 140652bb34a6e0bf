"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil
import torch


def machine() -> dict[str, str]:
    """Describe processor, memory, GPU and versions; nothing that names the host."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def describe() -> str:
    """Return the same in one line."""
    on = machine()
    gpu = "no GPU" if on["gpu"] == "none" else on["gpu"]
    return f"{on['processor']}, {on['cores']} cores, {on['memory']}, {gpu}, torch {on['torch']}, Python {on['python']}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {name.strip(): value.strip() for name, value in fields.items()}
    flags = found.get("flags", "").split()
    fast = [flag for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if flag in flags]
    return " ".join([found.get("model name", platform.machine()), f"({', '.join(fast)})" if fast else ""]).strip()
