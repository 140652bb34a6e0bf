"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

_PACKAGES = ("torch", "transformers", "sentence-transformers", "lightning")


def accelerator() -> str:
    """Return the name of the GPU that is used, or `no GPU`."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def describe() -> str:
    """Return processor, cores, memory, GPU and the versions that matter, in one line."""
    memory = round(psutil.virtual_memory().total / 2**30)
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return (
        f"{_processor()}, {os.cpu_count()} cores ({torch.get_num_threads()} threads), {memory} GiB, {accelerator()}; "
        f"Python {platform.python_version()}, {versions}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    return name + (" with AMX" if "amx_bf16" in flags else " without AMX")
