from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.mark.proof
def test_a_training_at_the_defaults_takes_three_gigabytes_at_most_in_32_bits() -> None:
    """Without the bound of activations it takes more: a batch shows up to 500 texts."""
    command = [sys.executable, "-m", "benchmarks.training.memory"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["tokens_per_step"] > 25_000, "a batch of this log is a large one"
    assert found["peak_memory_mb"] < 3e9 / 2**20
