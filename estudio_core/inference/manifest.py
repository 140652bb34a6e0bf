"""`manifest.json` of a repository entry: what the model is, what its files must be, what it must answer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from estudio_core.errors import RepositoryError

Precision = Literal["fp32", "fp16", "int8"]

INPUT_IDS, ATTENTION_MASK, EMBEDDING = "input_ids", "attention_mask", "embedding"
"""Names of the graph's tensors."""

WEIGHT_LIMIT_KEY = "estudio.weight_limit"
"""Key in an int8 graph's metadata: the largest weight. Graphs of earlier versions have none and use the full range."""

MANIFEST_FILE = "manifest.json"
MODEL_FILE = "1/model.onnx"
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "config.pbtxt"
BULK_FILE = "bulk/model.onnx"
"""The same model with int8 weights, for items in bulk on CPUs that multiply no bfloat16; not every entry has it."""
TORCH_FOLDER = "torch"
"""Weights for encoding in bulk by torch. Triton passes over folders whose name is no number."""

SERVING_FILES = (MODEL_FILE, f"{MODEL_FILE}.data", TOKENIZER_FILE, CONFIG_FILE)
"""What answers queries; the rest of an entry serves bulk encoding."""

_ENTRY_NAME = re.compile(r"(?P<plugin>[A-Za-z][A-Za-z0-9_]*)_v(?P<version>[0-9]+)")


class Parity(BaseModel):
    """Largest differences between graph and model over all compared shapes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_abs_difference: float
    min_cosine: float
    shapes: list[tuple[int, int]]
    """[batch, sequence] of the compared inputs; all but single tokens contain padding."""


class RankingLoss(BaseModel):
    """nDCG@10 of held-out queries, with the graph in 32 bits and with the published one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    queries: int
    items: int
    """Items that were ranked: the judged ones, and others to fill up."""
    ndcg_fp32: float
    ndcg: float
    maximum_loss: float
    """What was allowed."""

    @property
    def loss(self) -> float:
        """How much lower nDCG@10 is; negative where it is higher."""
        return self.ndcg_fp32 - self.ndcg


class Golden(BaseModel):
    """Texts and the vectors that the published graph gave for them: the health check of whoever serves the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    texts: list[str]
    query_vectors: list[list[float]]
    item_vectors: list[list[float]]
    min_cosine: float
    """What serves this entry has to reach at least, for every text."""


class EntryManifest(BaseModel):
    """Everything known of one entry `<plugin>_v<version>`; immutable like the entry itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), serialize_by_alias=True)

    format_version: Literal[1] = 1
    name: str
    plugin: str
    version: str
    """Version in the MLflow registry."""
    digest: str
    """sha256 of what decides the vectors: weights, tokenizer, prefixes, longest input, precision."""
    family: str = Field(validation_alias=AliasChoices("family", "kind"), serialization_alias="kind")
    """Of the model: one of `models.families.FAMILIES`."""
    precision: Precision
    opset: int
    dimensions: int
    max_length: int
    query_prefix: str
    item_prefix: str
    padding_id: int
    length_buckets: list[int]
    """Lengths to which a client pads, so that Triton can join requests."""
    max_batch_size: int
    parity: Parity
    ranking: RankingLoss | None = None
    """Quality on held-out queries against 32 bits; None for fp32, and where nothing was there to measure on."""
    bulk: RankingLoss | None = None
    """Quality where `BULK_FILE` encodes items and queries stay in 32 bits; None: the entry has no such file."""
    golden: Golden
    files: dict[str, str]
    """sha256 of every file of the entry but this one, by path inside the entry."""
    created_at: datetime
    extra: dict[str, Any] = Field(default_factory=dict)
    """What the publisher adds: run id, dataset id, metrics."""


def entry_name(plugin: str, version: str | int) -> str:
    """Return the name under which a version of a plugin's model is published.

    >>> entry_name("demo_catalog", 3)
    'demo_catalog_v3'

    Raises:
        RepositoryError: the result is no legal name.
    """
    name = f"{plugin}_v{version}"
    split_name(name)
    return name


def split_name(name: str) -> tuple[str, str]:
    """Return plugin and version of an entry.

    >>> split_name("demo_v2_v12")
    ('demo_v2', '12')

    Raises:
        RepositoryError: `name` is not `<plugin>_v<version>`.
    """
    found = _ENTRY_NAME.fullmatch(name)
    if found is None:
        raise RepositoryError(
            f"{name!r} cannot name a model: legal is <plugin>_v<version>, for example demo_catalog_v1."
        )
    return found["plugin"], found["version"]


def read_manifest(entry: Path) -> EntryManifest:
    """Return the manifest in the folder `entry`; files are not checked.

    Raises:
        RepositoryError: there is no entry, or its manifest is unreadable.
    """
    path = entry / MANIFEST_FILE
    if not entry.is_dir():
        raise RepositoryError(
            f"The model repository {entry.parent} has no entry {entry.name!r}. Run the release DAG of its plugin, or "
            "set ESTUDIO_TRITON_REPOSITORY to where the models are."
        )
    try:
        manifest = EntryManifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RepositoryError(f"{path} is missing or unreadable: {error}. {_way_out(entry.name)}") from error
    if manifest.name != entry.name:
        raise RepositoryError(
            f"{path} belongs to {manifest.name!r}: an entry must not be renamed. {_way_out(entry.name)}"
        )
    return manifest


def read_verified(entry: Path, files: Collection[str] | None = None) -> EntryManifest:
    """Return the manifest in the folder `entry` after comparing digests.

    Args:
        entry: Folder of the entry.
        files: Paths to compare, those the entry does not have are passed over; None: all.

    Raises:
        RepositoryError: a file is missing or differs; the message names it.
    """
    manifest = read_manifest(entry)
    compare_files(entry, manifest, files)
    return manifest


def compare_files(entry: Path, manifest: EntryManifest, files: Collection[str] | None = None) -> None:
    """Compare digests of the files in a folder with those of a manifest. Args and raises: as `read_verified`."""
    for name, wanted in manifest.files.items():
        if files is not None and name not in files:
            continue
        path = entry / name
        try:
            found = file_digest(path)
        except OSError as error:
            raise RepositoryError(f"{path} cannot be read: {error.strerror}. {_way_out(manifest.name)}") from error
        if found != wanted:
            raise RepositoryError(
                f"{path} is corrupt: its sha256 is {found[:12]}…, the manifest says {wanted[:12]}…. "
                f"{_way_out(manifest.name)}"
            )


def file_digest(path: Path) -> str:
    """Return the sha256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _way_out(name: str) -> str:
    return f"Run the release of {name!r} again: it replaces a damaged entry as a whole."
