"""`python -m benchmarks.training.memory`: the most memory that a training at the defaults takes, in this process.

1,500 sessions of 20 results and four clicks on the demo's products, texts cut to 128 tokens, a tenth of the queries for
validation; 32 bits, as where nothing computes in bf16. A few steps are enough: all are alike.
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import replace
from typing import Any

import torch

from benchmarks.training.contenders import MODEL
from benchmarks.training.workload import workload
from estudio_core.experiments.model_downloader import resolve_model_name
from estudio_core.models.embedding_model import EmbeddingModel
from lightning_modules.config import TrainingConfig
from lightning_modules.fit import fit

SESSIONS, SHOWN, CLICKS, MAX_TOKENS, STEPS, DEV_EVERY = 1_500, 20, 4, 128, 3, 10


def measure(threads: int = 2, sessions: int = SESSIONS, **values: Any) -> dict[str, Any]:
    """Train with the defaults, but for `values`, and return peak memory in MB, and seconds and tokens of the steps.

    Memory is that of this process since it began, the interpreter and torch counted.
    """
    torch.set_num_threads(threads)
    data = workload(sessions, 1, SHOWN, CLICKS)
    dev = set(sorted({session.query_key for session in data.splits["train"]})[::DEV_EVERY])
    splits = {"train": [], "dev": [], "holdout": []} | {
        side: [session for session in data.splits["train"] if (session.query_key in dev) is held]
        for side, held in (("train", False), ("dev", True))
    }
    model = EmbeddingModel(resolve_model_name(MODEL), max_length=MAX_TOKENS)
    config = TrainingConfig(**{"max_steps": STEPS, "precision": "32"} | values)
    result = fit(model, replace(data, splits=splits), config)
    return {
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "seconds": round(result.seconds - result.validation_seconds, 1),
        "tokens_per_step": result.tokens // result.steps,
    }


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}"))))
