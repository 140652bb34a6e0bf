"""Encoding in bulk: the embedder that a re-index uses, and others, against `SentenceTransformer.encode`."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.index.timing import median
from estudio_core.evaluation.evaluate import evaluate_judgments
from estudio_core.evaluation.judgments import Judgments
from estudio_core.evaluation.scores import EncodedCatalog
from estudio_core.export.triton_repository import ExportOptions, publish_entry
from estudio_core.inference.embedder import Vectors
from estudio_core.inference.manifest import EntryManifest
from estudio_core.inference.onnx_embedder import OnnxEmbedder
from estudio_core.inference.opening import open_bulk_embedder
from estudio_core.models.storage import load_model
from estudio_core.settings import get_settings
from estudio_core.vectordb.index_info import SearchIndexInfo

CHUNK = 1024
"""Texts of one call, as in a re-index; contenders take turns after each."""
REFERENCE = "SentenceTransformer.encode"

Encode = Callable[[Sequence[str]], Vectors]


def measure_encoder(
    texts: Sequence[str],
    owners: Sequence[str],
    judgments: Judgments,
    index: SearchIndexInfo,
    entry: EntryManifest,
    model_path: str,
    *,
    only_bulk: bool = False,
) -> dict[str, Any]:
    """Let every contender encode all texts, chunk by chunk in turns.

    Args:
        texts: Part texts of items.
        owners: Id of the item of each text; parts of one item follow each other.
        judgments: To rank the items by.
        index: How vectors are compared.
        entry: The published model, with its torch weights.
        model_path: The same model as sentence-transformers opens it.
        only_bulk: Leave out what a re-index does not use on this machine.

    Returns:
        By contender: median and all texts/s, and nDCG@10 of the judged queries over the items.
    """
    contenders = {REFERENCE: _sentence_transformers(model_path)}
    embedder = open_bulk_embedder(entry.name)
    bulk = f"Estudio, bulk ({type(embedder).__name__})"
    contenders[bulk] = embedder.embed_items
    queries: dict[str, Encode] = {REFERENCE: contenders[REFERENCE], bulk: embedder.embed_queries}
    if not only_bulk:
        folder = get_settings().triton_repository / entry.name
        plain, eight = OnnxEmbedder(folder), OnnxEmbedder(_int8(entry, folder))
        contenders |= {"Estudio, ONNX Runtime fp32": plain.embed_items, "Estudio, ONNX Runtime int8": eight.embed_items}
        queries |= {
            "Estudio, ONNX Runtime fp32": plain.embed_queries,
            "Estudio, ONNX Runtime int8": eight.embed_queries,
        }
    vectors: dict[str, list[Vectors]] = {name: [] for name in contenders}
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for encode in contenders.values():
        encode(list(texts[:32]))  # threads start and memory is claimed
    for number, start in enumerate(range(0, len(texts), CHUNK)):
        chunk = list(texts[start : start + CHUNK])
        # Who comes first changes, so that nobody always works on a cooler processor.
        order = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
        for name in order:
            began = time.perf_counter()
            vectors[name].append(np.asarray(contenders[name](chunk), dtype=np.float32))
            speeds[name].append(len(chunk) / (time.perf_counter() - began))
    asked = list(judgments)
    results = {}
    for name in contenders:
        catalog = _catalog(owners, np.concatenate(vectors[name]))
        found = evaluate_judgments(asked, queries[name](asked), catalog, index, judgments)
        results[name] = {
            "texts_per_s": median(speeds[name]),
            "all_texts_per_s": speeds[name],
            "ndcg_at_10": float(np.mean(found.values["ndcg@10"])),
        }
    gc.collect()
    return {"texts": len(texts), "queries": len(found.queries), "bulk": bulk, "contenders": results}


def _sentence_transformers(model_path: str) -> Encode:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(model_path, device="cuda" if _has_gpu() else "cpu", local_files_only=True)
    return lambda texts: np.asarray(model.encode(list(texts), show_progress_bar=False))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _int8(entry: EntryManifest, folder: Path) -> Path:
    """Return an int8 entry of the same model, beside the installation's repository."""
    repository = folder.parent.parent / "int8_repo"
    publish_entry(repository, entry.name, load_model(folder / "torch"), options=ExportOptions(precision="int8"))
    return repository / entry.name


def _catalog(owners: Sequence[str], vectors: Vectors) -> EncodedCatalog:
    ids = tuple(dict.fromkeys(owners))
    starts = [i for i, owner in enumerate(owners) if i == 0 or owners[i - 1] != owner]
    return EncodedCatalog(ids, vectors, np.array([*starts, len(owners)], dtype=np.int64))
