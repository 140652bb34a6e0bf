"""One contender at one size, measured in a process of its own and kept as a JSON file."""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import machine
from benchmarks.training.contenders import CONTENDERS, Load
from benchmarks.training.workload import workload
from estudio_core.experiments.iteration import code_tags


@dataclass(frozen=True)
class Unit:
    """What is measured; units that differ in any field are kept apart."""

    contender: str
    sessions: int
    steps: int
    warmup: int
    """First steps whose time does not count: threads start and memory is claimed in them."""
    batch_size: int
    precision: str
    threads: int
    seed: int

    def path(self, folder: Path, on: dict[str, str]) -> Path:
        """Return where the result is kept, for this machine."""
        what = json.dumps([asdict(self), on], sort_keys=True)
        name = "".join(c if c.isalnum() else "-" for c in self.contender)
        return folder / f"{name}-{self.sessions}-{hashlib.sha256(what.encode()).hexdigest()[:10]}.json"


def measure(unit: Unit) -> dict[str, Any]:
    """Run the unit in this process."""
    torch.set_num_threads(unit.threads)
    load = Load(
        data=workload(unit.sessions, unit.seed),
        steps=unit.warmup + unit.steps,
        batch_size=unit.batch_size,
        precision=unit.precision,  # type: ignore[arg-type]  # checked by argparse
        seed=unit.seed,
    )
    course = CONTENDERS[unit.contender](load)
    if len(course.done_s) != load.steps:
        raise RuntimeError(f"{unit.contender} did {len(course.done_s)} of {load.steps} steps.")
    seconds = course.done_s[-1] - course.done_s[unit.warmup - 1]
    cpu_seconds = course.cpu_s[-1] - course.cpu_s[unit.warmup - 1]
    sessions = unit.steps * unit.batch_size
    gpu = torch.cuda.is_available()
    return {
        "unit": asdict(unit),
        "machine": machine(),
        "code": code_tags().get("mlflow.source.git.commit", "")[:12],
        "precision": course.precision,
        "sessions_per_s": sessions / seconds,
        "sessions_per_cpu_s": sessions / cpu_seconds,
        "tokens_per_s": course.tokens * unit.steps / load.steps / seconds,
        "tokens_per_session": course.tokens / load.steps / unit.batch_size,
        "preparation_s": course.first_step_s,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_gpu_memory_mb": torch.cuda.max_memory_allocated() / 2**20 if gpu else None,
        "step_ends_s": [round(second, 4) for second in course.done_s],
    }


def stored(units: Sequence[Unit], folder: Path) -> list[dict[str, Any]]:
    """Return the kept results of `units`, those of other machines too, this machine's last."""
    wanted = [asdict(unit) for unit in units]
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    here = machine()
    return sorted((each for each in found if each["unit"] in wanted), key=lambda each: each["machine"] == here)


def measured(unit: Unit, folder: Path, *, fresh: bool = False) -> dict[str, Any]:
    """Return the kept result of the unit, or measure it in a new process and keep it.

    Raises:
        RuntimeError: the process failed; its output ends the message.
    """
    kept = unit.path(folder, machine())
    if kept.exists() and not fresh:
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    folder.mkdir(parents=True, exist_ok=True)
    staged = kept.with_suffix(".staged")
    command = [sys.executable, "-m", "benchmarks.training.units", json.dumps(asdict(unit)), str(staged)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"{unit.contender} at {unit.sessions} sessions failed:\n{(done.stdout + done.stderr)[-2000:]}"
        )
    staged.replace(kept)
    result: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return result


if __name__ == "__main__":
    found = measure(Unit(**json.loads(sys.argv[1])))
    Path(sys.argv[2]).write_text(json.dumps(found, indent=1), encoding="utf-8")
