"""Queries through Triton: the product's client against the bare tritonclient, from concurrent threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.index.timing import median, percentiles_ms
from estudio_core.inference.manifest import TOKENIZER_FILE, read_manifest
from estudio_core.inference.triton_control import TritonControl
from estudio_core.inference.triton_embedder import TritonEmbedder
from estudio_core.local.triton.environment import TritonEnvironment
from estudio_core.local.triton.server import running_server

BARE, OURS = "bare tritonclient", "Estudio"
QUERIES = [
    f"{kind} {colour} {number}" for number in range(8) for kind in ("usb c charger", "camera") for colour in "abc"
]

Encode = Callable[[str], NDArray[np.float32]]


def measure_triton_client(
    environment: TritonEnvironment, entry: Path, clients: int, log: Path, *, rounds: int = 3, round_s: float = 3.0
) -> dict[str, Any]:
    """Encode single queries with `clients` threads, contenders in turns, on a server of its own.

    Returns:
        By contender: p50 and p99, queries/s, and the largest difference of a vector from the bare client's.
    """
    latencies: dict[str, list[list[float]]] = {BARE: [], OURS: []}
    with running_server(environment, entry.parent, log) as server:
        control = TritonControl(server.url)
        control.load(entry)
        embedder = TritonEmbedder(server.url, entry)
        contenders = {BARE: _bare(server.url, entry), OURS: lambda text: embedder.embed_queries([text])[0]}
        difference = max(float(np.abs(contenders[BARE](q) - contenders[OURS](q)).max()) for q in QUERIES)
        for turn in range(rounds):
            for name in contenders if turn % 2 == 0 else [*contenders][::-1]:
                latencies[name].append(_round(contenders[name], clients, round_s))
        embedder.close()
        control.close()
    return {
        "clients": clients,
        "largest_difference": difference,
        "contenders": {
            name: {
                **percentiles_ms([latency for latencies_ in of_rounds for latency in latencies_]),
                "rounds": [percentiles_ms(latencies_) for latencies_ in of_rounds],
                "queries_per_s": median([len(latencies_) for latencies_ in of_rounds]) / round_s,
            }
            for name, of_rounds in latencies.items()
        },
    }


def _bare(url: str, entry: Path) -> Encode:
    """Return what one writes by hand: tokenise, pad to the served lengths, ask."""
    from tokenizers import Tokenizer
    from tritonclient import grpc

    manifest = read_manifest(entry)
    tokenizer = Tokenizer.from_file(str(entry / TOKENIZER_FILE))
    tokenizer.enable_truncation(manifest.max_length)
    client = grpc.InferenceServerClient(url)
    wanted = [grpc.InferRequestedOutput("embedding")]

    def encode(text: str) -> NDArray[np.float32]:
        ids = tokenizer.encode(manifest.query_prefix + text).ids
        length = next(bucket for bucket in manifest.length_buckets if bucket >= len(ids))
        tokens = np.full((1, length), manifest.padding_id, dtype=np.int64)
        tokens[0, : len(ids)] = ids
        mask = (np.arange(length) < len(ids)).astype(np.int64)[None, :]
        inputs = [grpc.InferInput(name, [1, length], "INT64") for name in ("input_ids", "attention_mask")]
        inputs[0].set_data_from_numpy(tokens)
        inputs[1].set_data_from_numpy(mask)
        answer = client.infer(manifest.name, inputs, outputs=wanted)
        vector: NDArray[np.float32] = answer.as_numpy("embedding")[0]
        return vector

    return encode


def _round(encode: Encode, clients: int, round_s: float) -> list[float]:
    latencies: list[float] = []
    failures: list[BaseException] = []
    barrier = threading.Barrier(clients)

    def client(number: int) -> None:
        own = []
        try:
            barrier.wait()
            end = time.perf_counter() + round_s
            while (began := time.perf_counter()) < end:
                encode(QUERIES[(number + len(own)) % len(QUERIES)])
                own.append(time.perf_counter() - began)
        except BaseException as error:
            failures.append(error)
        latencies.extend(own)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return latencies
