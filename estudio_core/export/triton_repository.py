"""The model repository: entries that are written once, verified, and removed as a whole.

<repository>/<plugin>_v<version>/
    config.pbtxt       how Triton runs it
    1/model.onnx       the graph, pooling and normalisation included
    tokenizer.json     what clients tokenise with
    torch/             the same weights for bulk encoding on hosts where torch is faster
    bulk/model.onnx    the graph with int8 weights for bulk encoding on the others, where it was worth measuring
    manifest.json      digests, prefixes, golden texts with their vectors
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from estudio_core.errors import ExportError, ModelError, NotEnoughDataError, RepositoryError
from estudio_core.export.onnx_export import OPSET, WEIGHT_LIMIT, convert, export_onnx
from estudio_core.export.parity import check_parity
from estudio_core.export.ranking_loss import RankingCheck, require_small_loss
from estudio_core.export.triton_config import length_buckets, triton_config
from estudio_core.inference import staging
from estudio_core.inference.manifest import (
    BULK_FILE,
    CONFIG_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    TORCH_FOLDER,
    EntryManifest,
    Golden,
    Precision,
    file_digest,
    read_manifest,
    read_verified,
    split_name,
)

if TYPE_CHECKING:
    from estudio_core.models.embedding_model import EmbeddingModel

logger = logging.getLogger(__name__)

_FP32_FILE = "1/fp32.onnx"
"""What a graph in fewer bits is made from and measured against; it is not published."""

GOLDEN_TEXTS = (
    "usb c charger",
    "a",
    "Wireless over-ear headphones, 30 h battery, black",
    '4K OLED TV 65"',
    "Kühlschrank mit Gefrierfach, 60 x 180 cm",
    "ノートパソコン 14インチ",
    "The quick brown fox jumps over the lazy dog. " * 3,
    "specification: width 60 cm; height 85 cm; depth 58.5 cm; colour stainless steel; energy class A. " * 60,
)
"""Short, long beyond any input limit, with digits and signs, in three scripts."""

GOLDEN_MIN_COSINE: dict[Precision, float] = {"fp32": 0.999, "fp16": 0.999, "int8": 0.97}
"""int8 scales activations by batch, so that a text's vector depends a little on its neighbours."""


class ExportOptions(BaseModel):
    """How a model is published."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Precision = "fp32"
    """Arithmetic of the served graph. int8 is faster on CPUs, at a loss to be measured; fp16 is for GPUs."""
    max_batch_size: int = Field(default=64, ge=1, le=1024)
    """Most texts that Triton computes at once."""
    instances: Literal["cpu", "gpu"] = "cpu"
    """Where Triton runs the model."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of Triton's instance; None: one per core of the host, whatever its container may use."""
    include_torch: bool = True
    """Whether the entry carries the torch weights too, for bulk encoding: twice the size on disk."""
    opset: int = Field(default=OPSET, ge=14, le=20)


def publish_entry(
    repository: Path,
    name: str,
    model: EmbeddingModel,
    manifest_extra: Mapping[str, Any] | None = None,
    *,
    options: ExportOptions | None = None,
    golden_texts: Sequence[str] = GOLDEN_TEXTS,
    ranking_check: RankingCheck | None = None,
) -> EntryManifest:
    """Export, verify and publish `model` as the entry `name`; a second call with the same model changes nothing.

    A name is written once: what is there is never changed in place. Only an entry whose files are damaged is replaced,
    as a whole, and one of an earlier version whose int8 weights this CPU computes differently. At any moment, a kill
    included, the entry is either complete or absent.

    Args:
        repository: Root of the model repository; created where it is missing.
        name: `<plugin>_v<version>`.
        model: The trained model; it is left as it is.
        manifest_extra: JSON-able facts to keep in the manifest, such as the run id.
        options: Precision and how Triton runs it.
        golden_texts: Texts whose vectors are stored, for checks of everything that serves the entry.
        ranking_check: Measures a graph in fewer bits than 32 on held-out queries; what it finds is in the manifest. An
            entry in 32 bits gets a second graph, in int8, for items in bulk, if items lose no more by it than allowed.

    Returns:
        The manifest of the entry.

    Raises:
        ExportError: the graph does not compute what the model computes, or ranks worse than `ranking_check` allows.
        RepositoryError: the name holds another model, or the repository cannot be written.
    """
    from estudio_core.inference.onnx_embedder import OnnxEmbedder
    from estudio_core.models.storage import save_model

    plugin, version = split_name(name)
    options = options or ExportOptions()
    repository = Path(repository)
    work = staging.prepare(repository)
    digest = model_digest(model, options.precision)
    final = repository / name
    with staging.only_writer(work, name):
        full_range = model_digest(model, "int8", full_range=True) if options.precision == "int8" else None
        present = _present(final, digest, full_range)
        if present is not None:
            return present
        weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
        staging.require_space(work, 3 * weights + 64 * 2**20)
        if final.exists():
            logger.warning("The entry %s is replaced.", final)
            staging.retire(work, name, final)
        with staging.staged(work, name, final) as folder:
            (folder / MODEL_FILE).parent.mkdir()
            if options.precision == "fp32":
                export_onnx(model, folder / MODEL_FILE, opset=options.opset)
            else:
                export_onnx(model, folder / _FP32_FILE, opset=options.opset)
                convert(folder / _FP32_FILE, folder / MODEL_FILE, options.precision)
            parity = check_parity(model, folder / MODEL_FILE, options.precision)
            _write_tokenizer(model, folder / TOKENIZER_FILE)
            if options.include_torch:
                save_model(model, folder / TORCH_FOLDER)
            buckets = length_buckets(model.max_length)
            config = triton_config(
                name,
                dimensions=model.dimensions,
                buckets=buckets,
                max_batch_size=options.max_batch_size,
                instances=options.instances,
                threads=options.threads,
            )
            (folder / CONFIG_FILE).write_text(config, encoding="utf-8")
            unpublished = list((folder / "1").glob(f"{Path(_FP32_FILE).name}*"))
            files = {
                path.relative_to(folder).as_posix(): file_digest(path)
                for path in sorted(folder.rglob("*"))
                if path.is_file() and path not in unpublished
            }
            manifest = EntryManifest(
                name=name,
                plugin=plugin,
                version=version,
                digest=digest,
                family=model.family,
                precision=options.precision,
                opset=options.opset,
                dimensions=model.dimensions,
                max_length=model.max_length,
                query_prefix=model.query_prefix,
                item_prefix=model.item_prefix,
                padding_id=model.padding_id,
                length_buckets=buckets,
                max_batch_size=options.max_batch_size,
                parity=parity,
                golden=Golden(texts=[], query_vectors=[], item_vectors=[], min_cosine=0.0),
                files=files,
                created_at=datetime.now(UTC),
                extra=dict(manifest_extra or {}),
            )
            if ranking_check is not None and options.precision != "fp32":
                found = ranking_check(
                    OnnxEmbedder(folder, manifest=manifest, graph=_FP32_FILE), OnnxEmbedder(folder, manifest=manifest)
                )
                require_small_loss(found, name, options.precision)
                manifest = manifest.model_copy(update={"ranking": found})
            for path in unpublished:
                path.unlink()
            manifest = manifest.model_copy(update={"golden": _golden(folder, manifest, golden_texts)})
            if ranking_check is not None and options.precision == "fp32":
                manifest = _with_bulk(folder, manifest, ranking_check)
            # What is None is left out, so that an entry without a new part can be read by an earlier version.
            (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(exclude_none=True) + "\n", encoding="utf-8")
    return manifest


def read_entry(repository: Path, name: str) -> EntryManifest:
    """Return the manifest of an entry after comparing the digest of every file.

    Raises:
        RepositoryError: the entry is missing or damaged; the message names the file and the way out.
    """
    split_name(name)
    return read_verified(Path(repository) / name)


def list_entries(repository: Path) -> list[EntryManifest]:
    """Return the manifests of all readable entries, by plugin and version; unreadable ones are logged by name."""
    entries: list[EntryManifest] = []
    for folder in Path(repository).glob("*_v*/"):
        try:
            split_name(folder.name)
            entries.append(read_manifest(folder))
        except RepositoryError as error:
            logger.warning("Passed over in the model repository: %s", error)
    return sorted(entries, key=lambda entry: (entry.plugin, int(entry.version)))


def remove_entry(repository: Path, name: str) -> bool:
    """Remove an entry in one step. Returns whether there was one.

    Raises:
        RepositoryError: the repository cannot be written.
    """
    split_name(name)
    return staging.remove(Path(repository) / name)


def sweep_unfinished(repository: Path) -> None:
    """Delete what killed publications, copies and removals left beside the repository."""
    repository = Path(repository)
    if repository.is_dir():
        staging.sweep(staging.work_folder(repository))


def model_digest(model: EmbeddingModel, precision: Precision = "fp32", *, full_range: bool = False) -> str:
    """Return the sha256 of what decides a model's vectors: weights, tokenizer, prefixes, longest input, precision.

    Args:
        model: The model.
        precision: Of the graph.
        full_range: Of an int8 graph of an earlier version, whose vectors are others than those of today's.
    """
    import torch

    digest = hashlib.sha256()
    facts: tuple[object, ...] = (
        precision if full_range or precision != "int8" else f"int8 within {WEIGHT_LIMIT}",
        model.max_length,
        model.dimensions,
        model.padding_id,
        model.query_prefix,
        model.item_prefix,
    )
    # Masked mean goes without saying: entries of before there was another pooling keep their digests.
    if model.pooling != ("masked_mean",):
        facts += (model.pooling[0] if len(model.pooling) == 1 else model.pooling,)
    facts += tuple(layer.model_dump_json() for layer in model.head_layers)
    digest.update(repr(facts).encode())
    digest.update(_tokenizer_json(model).encode())
    for key, tensor in sorted(model.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{key} {plain.dtype} {tuple(plain.shape)}".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _present(final: Path, digest: str, full_range: str | None) -> EntryManifest | None:
    """Return the manifest of a sound entry with this digest; None where there is none, or one to be made anew.

    That is a damaged one, and one of an earlier version whose int8 weights this CPU computes differently: `full_range`
    is the digest that the same model had there.

    Raises:
        RepositoryError: the name holds a sound entry with another model.
    """
    from estudio_core.inference.onnx_embedder import OnnxEmbedder

    if not final.exists():
        return None
    try:
        manifest = read_verified(final)
    except RepositoryError as error:
        logger.warning("%s", error)
        return None
    if manifest.digest not in (digest, full_range):
        raise RepositoryError(
            f"{final} already holds another model (digest {manifest.digest[:12]}…, asked for {digest[:12]}…), and a "
            "name is written once. Register the model as a new version, or remove the entry first if nothing serves it."
        )
    if manifest.precision == "int8":
        embedder = OnnxEmbedder(final, manifest=manifest)
        if embedder.full_range:
            try:
                embedder.check()
            except ModelError as error:
                logger.warning("%s", error)
                return None
    return manifest


def _with_bulk(folder: Path, manifest: EntryManifest, check: RankingCheck) -> EntryManifest:
    """Make the graph for items in bulk and measure it: return the manifest with it, or as it was, and no graph.

    Whatever is wrong with it, the entry is published without.
    """
    from estudio_core.inference.onnx_embedder import BulkEmbedder, OnnxEmbedder

    exact, graph = OnnxEmbedder(folder, manifest=manifest), folder / BULK_FILE
    graph.parent.mkdir()
    try:
        convert(folder / MODEL_FILE, graph, "int8")
        with closing(BulkEmbedder(folder, exact, manifest=manifest)) as bulk:
            bulk.check()
            found = check(exact, bulk)
        if found.loss <= found.maximum_loss:
            files = {path.relative_to(folder).as_posix(): file_digest(path) for path in sorted(graph.parent.iterdir())}
            return manifest.model_copy(update={"bulk": found, "files": manifest.files | files})
        reason = (
            f"nDCG@10 of {found.queries} held-out queries is {found.ndcg:.4f} instead of {found.ndcg_fp32:.4f}, and at "
            f"most {found.maximum_loss:g} may be lost."
        )
    except (ExportError, ModelError, NotEnoughDataError) as error:
        reason = str(error)
    logger.info("Items of %s are encoded in 32 bits, not in int8: %s", manifest.name, reason)
    shutil.rmtree(graph.parent)
    return manifest


def _golden(folder: Path, manifest: EntryManifest, texts: Sequence[str]) -> Golden:
    from estudio_core.inference.onnx_embedder import OnnxEmbedder

    embedder = OnnxEmbedder(folder, manifest=manifest)
    return Golden(
        texts=list(texts),
        query_vectors=embedder.embed_queries(texts).tolist(),
        item_vectors=embedder.embed_items(texts).tolist(),
        min_cosine=GOLDEN_MIN_COSINE[manifest.precision],
    )


def _tokenizer_json(model: EmbeddingModel) -> str:
    """Return the tokenizer as `tokenizer.json`, without truncation and padding, which whoever used it last has set.

    Raises:
        ExportError: the tokenizer has no such form.
    """
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ExportError(
            f"{type(model.tokenizer).__name__} has no tokenizer.json: a fast tokenizer is needed (use_fast=True)."
        )
    from tokenizers import Tokenizer

    plain = Tokenizer.from_str(backend.to_str())
    plain.no_truncation()
    plain.no_padding()
    return str(plain.to_str())


def _write_tokenizer(model: EmbeddingModel, path: Path) -> None:
    path.write_text(_tokenizer_json(model), encoding="utf-8")
