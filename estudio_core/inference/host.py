"""What this machine offers to a model: cores, matrix units, a GPU."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


def usable_cores() -> int:
    """Return the physical cores that this process may use: CPU affinity, siblings and container quota counted.

    Two threads on one core, or more threads than the quota allows, make matrix products slower, not faster.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_siblings(cpu) for cpu in allowed}
    return max(1, min(len(cores), _quota()))


def inference_threads() -> int:
    """Return how many threads one model may use: the setting, else OMP_NUM_THREADS, else `usable_cores()`."""
    from estudio_core.settings import get_settings

    chosen = get_settings().inference_threads
    if chosen is not None:
        return chosen
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() and int(wanted) > 0 else usable_cores()


@cache
def multiplies_bfloat16() -> bool:
    """Return whether the CPU multiplies bfloat16 in hardware (AMX or AVX-512 BF16): about three times fp32's speed."""
    try:
        features = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return " amx_bf16" in features or " avx512_bf16" in features


def _siblings(cpu: int) -> str:
    """Return a name of the physical core that logical CPU `cpu` belongs to."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _quota() -> int:
    """Return the whole cores that the container's CPU quota allows; many where there is none."""
    unlimited = 1_000_000
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return unlimited if quota == "max" else max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return unlimited
