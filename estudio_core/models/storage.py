"""Models on disk: safetensors, tokenizer files and `estudio_model.json`; nothing is pickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoTokenizer

from estudio_core.errors import ConfigurationError, ModelError
from estudio_core.models.embedding_model import EmbeddingModel
from estudio_core.models.families import Pooling

DESCRIPTION_FILE = "estudio_model.json"
WEIGHTS_FILE = "model.safetensors"


class ModelDescription(BaseModel):
    """What `estudio_model.json` says: how text becomes a vector with these weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    family: str = Field(validation_alias=AliasChoices("family", "kind"), serialization_alias="kind")
    query_prefix: str
    item_prefix: str
    max_length: int
    dimensions: int
    pooling: Pooling = "masked_mean"
    normalised: Literal[True] = True
    format_version: Literal[1] = 1


def save_model(model: EmbeddingModel, folder: Path | str) -> None:
    """Write weights, configuration, tokenizer files and description into `folder`, which is created."""
    description = ModelDescription(
        family=model.family,
        query_prefix=model.query_prefix,
        item_prefix=model.item_prefix,
        max_length=model.max_length,
        dimensions=model.dimensions,
        pooling=model.pooling,
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.backbone.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    model.backbone.config.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    (folder / DESCRIPTION_FILE).write_text(description.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_model(folder: Path | str) -> EmbeddingModel:
    """Read what `save_model` wrote; the model is on the CPU, in float32 and evaluation mode.

    Raises:
        ModelError: a file is missing or corrupt, or weights and configuration do not belong together.
    """
    folder = Path(folder)
    description = _read_description(folder)
    weights = _read_weights(folder)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        auto: Any = AutoModel  # from_config carries no types
        backbone = auto.from_config(config, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"Configuration or tokenizer in {folder} cannot be read: {error}") from error
    try:
        model = EmbeddingModel(
            (backbone, tokenizer),
            max_length=description.max_length,
            family=description.family,
            query_prefix=description.query_prefix,
            item_prefix=description.item_prefix,
        )
    except ConfigurationError as error:
        raise ModelError(f"{folder / DESCRIPTION_FILE} describes no model that can be made here: {error}") from error
    try:
        model.backbone.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(f"Weights and configuration in {folder} do not belong together: {error}") from error
    if model.pooling != description.pooling:
        raise ModelError(
            f"{folder} says pooling {description.pooling}, its family {description.family!r} pools by {model.pooling}."
        )
    if model.dimensions != description.dimensions:
        raise ModelError(f"{folder} says {description.dimensions} dimensions, its weights have {model.dimensions}.")
    return model.eval()


def _read_description(folder: Path) -> ModelDescription:
    path = folder / DESCRIPTION_FILE
    try:
        return ModelDescription.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise ModelError(
            f"{path} is missing or unreadable: {error}. A model folder is written by save_model(model, folder)."
        ) from error


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    path = folder / WEIGHTS_FILE
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} is missing or corrupt: {error}") from error
