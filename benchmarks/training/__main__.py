"""`python -m benchmarks.training`: measure what is missing, then write table and plot into `benchmarks/results/`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks.training.contenders import CONTENDERS
from benchmarks.training.table import write_table
from benchmarks.training.units import Unit, measured, stored

RESULTS = Path(__file__).parent.parent / "results"
SIZES, QUICK_SIZES = (1_000, 10_000, 100_000), (200,)
STEPS, QUICK_STEPS = 30, 4
WARMUP, QUICK_WARMUP = 3, 1


def main(argv: list[str] | None = None) -> int:
    """Measure and write; 1 where a unit failed: the others are in the table all the same."""
    asked = _arguments(argv)
    name = "training-quick" if asked.quick else "training"
    kept = asked.results / name
    if not asked.stored:
        print(f"Training on {'the GPU ' + torch.cuda.get_device_name(0) if torch.cuda.is_available() else 'the CPU'}.")
    failed = 0
    units = _units(asked, asked.sessions, asked.only)
    for number, unit in enumerate([] if asked.stored else units, start=1):
        print(f"[{number}/{len(units)}] {unit.contender}, {unit.sessions:,} sessions", end=": ", flush=True)
        if "sentence-transformers" in unit.contender and not (find_spec("datasets") and find_spec("accelerate")):
            print("left out, its trainer needs: pip install 'sentence-transformers[train]'")
            continue
        try:
            result = measured(unit, kept, fresh=asked.fresh)
        except RuntimeError as error:
            failed += 1
            print(f"failed\n{error}", file=sys.stderr)
            continue
        print(f"{result['sessions_per_s']:.1f} sessions/s, {result['peak_memory_mb']:,.0f} MB")
    # The table is of all that is stored, whichever part of it was measured now.
    sizes = QUICK_SIZES if asked.quick else SIZES
    results = stored(_units(asked, sorted({*sizes, *asked.sessions})), kept)
    if results:
        print(f"Table: {write_table(results, asked.results, name)}")
    else:
        print("Nothing is measured yet.", file=sys.stderr)
    return 1 if failed or not results else 0


def _units(asked: argparse.Namespace, sizes: Sequence[int], only: Sequence[str] | None = None) -> list[Unit]:
    """Return the units of `sizes`, of the contenders whose names have one of the parts `only`."""
    return [
        Unit(contender, size, asked.steps, asked.warmup, asked.batch_size, asked.precision, asked.threads, asked.seed)
        for size in sizes
        for contender in CONTENDERS
        if any(part in contender for part in only or [""])
    ]


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--sessions", type=int, nargs="+", help=f"sizes of the log; default {SIZES}")
    parser.add_argument("--steps", type=int, help=f"steps that are timed; default {STEPS}")
    parser.add_argument("--batch-size", type=int, default=24, help="sessions of a step")
    parser.add_argument("--precision", choices=["auto", "32", "bf16", "fp16"], default="auto")
    parser.add_argument("--threads", type=int, default=_threads(), help="CPU threads")
    parser.add_argument("--only", nargs="+", help="parts of the names of the contenders to measure; default all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a small table, to see that everything runs")
    parser.add_argument("--fresh", action="store_true", help="measure again what has been measured")
    parser.add_argument(
        "--stored", action="store_true", help="write the table of what is stored, on any machine; measure nothing"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the table")
    asked = parser.parse_args(argv)
    asked.sessions = asked.sessions or (QUICK_SIZES if asked.quick else SIZES)
    asked.warmup = QUICK_WARMUP if asked.quick else WARMUP
    asked.steps = asked.steps or (QUICK_STEPS if asked.quick else STEPS)
    return asked


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", "0")) or len(os.sched_getaffinity(0))


if __name__ == "__main__":
    sys.exit(main())
