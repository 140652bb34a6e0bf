"""Models on disk: safetensors, tokenizer files and `estudio_model.json`; nothing is pickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoTokenizer

from estudio_core.errors import ConfigurationError, ModelError
from estudio_core.models.description import DESCRIPTION_FILE, ModelDescription, read_description
from estudio_core.models.embedding_model import EmbeddingModel
from estudio_core.models.source import HEAD_FILE, read_weights

WEIGHTS_FILE = "model.safetensors"


def save_model(model: EmbeddingModel, folder: Path | str) -> None:
    """Write weights, configuration, tokenizer files and description into `folder`, which is created."""
    description = ModelDescription(
        family=model.family,
        query_prefix=model.query_prefix,
        item_prefix=model.item_prefix,
        max_length=model.max_length,
        dimensions=model.dimensions,
        pooling=model.pooling[0] if len(model.pooling) == 1 else model.pooling,
        head=model.head_layers,
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.backbone.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    model.backbone.config.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    if head := {name: tensor.detach().cpu().contiguous() for name, tensor in model.head.state_dict().items()}:
        save_file(head, folder / HEAD_FILE, metadata={"format": "pt"})
    # Without a head, what is written is what earlier versions wrote and read.
    text = description.model_dump_json(indent=2, exclude=None if description.head else {"head"})
    (folder / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf-8")


def load_model(folder: Path | str) -> EmbeddingModel:
    """Read what `save_model` wrote; the model is on the CPU, in float32 and evaluation mode.

    Raises:
        ModelError: a file is missing or corrupt, or weights and configuration do not belong together.
    """
    folder = Path(folder)
    description = read_description(folder)
    weights = read_weights(folder / WEIGHTS_FILE)
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
            pooling=description.pooling,
            head=description.head,
        )
        if model.head.state_dict():
            model.load_head(read_weights(folder / HEAD_FILE))
    except ConfigurationError as error:
        raise ModelError(f"{folder / DESCRIPTION_FILE} describes no model that can be made here: {error}") from error
    try:
        model.backbone.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(f"Weights and configuration in {folder} do not belong together: {error}") from error
    if model.dimensions != description.dimensions:
        raise ModelError(f"{folder} says {description.dimensions} dimensions, its weights have {model.dimensions}.")
    return model.eval()
