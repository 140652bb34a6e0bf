"""From what a plugin gives (a SentenceTransformer, a folder, a model name, a pair) to an encoder and its use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from estudio_core.errors import ConfigurationError, ModelError
from estudio_core.models.description import DESCRIPTION_FILE, HeadLayer
from estudio_core.models.folder import (
    FolderSays,
    head_layer,
    local_folder,
    pooling_said,
    prompts_said,
    read_folder,
    require_similarity,
    require_whole,
    tokenizer_of,
)

HEAD_FILE = "head.safetensors"
"""Weights of the modules after pooling, in folders that `storage.save_model` writes."""


@dataclass(frozen=True)
class OpenedSource:
    """An encoder, its tokenizer, what is said of its use, and the weights of what comes after pooling."""

    backbone: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    says: FolderSays = field(default_factory=FolderSays)
    head: Mapping[str, Tensor] = field(default_factory=dict)


def open_source(source: Any) -> OpenedSource:
    """Return the encoder of a SentenceTransformer, a folder or hub name, or a pair (transformers model, tokenizer).

    Raises:
        ConfigurationError: `source` is none of the legal kinds, or says something of its use that cannot be heeded.
        ModelError: a folder or name cannot be loaded.
    """
    if isinstance(source, str | PathLike):
        return _from_folder(str(source))
    if isinstance(source, tuple) and len(source) == 2:
        return OpenedSource(*cast(tuple[PreTrainedModel, PreTrainedTokenizerBase], source))
    first = source[0] if hasattr(source, "tokenizer") and hasattr(source, "encode") else None
    backbone = getattr(first, "auto_model", None)
    if backbone is None:
        raise ConfigurationError(
            f"A model cannot be made from {type(source).__name__}. Give a SentenceTransformer with a text transformer, "
            "a folder or model name, or a pair (transformers model, tokenizer)."
        )
    return _from_sentence_transformer(source, backbone)


def _from_folder(name: str) -> OpenedSource:
    says = read_folder(name)
    place = str(Path(name) / says.transformer) if Path(name).is_dir() else name
    options = {} if Path(name).is_dir() else {"subfolder": says.transformer}
    try:
        with quiet_transformers():
            backbone, loaded = AutoModel.from_pretrained(
                place, trust_remote_code=False, dtype=torch.float32, output_loading_info=True, **options
            )
    except Exception as error:  # transformers, safetensors, torch and pickle raise whatever they like
        raise ModelError(f"No model can be loaded from {name!r}: {error}") from error
    if missing := sorted(key for key in loaded["missing_keys"] if "pooler" not in key):
        raise ModelError(
            f"{name} has no weights for {len(missing)} parameters of its encoder, {missing[0]} the first: random "
            "numbers would take their place. Save the model as a whole."
        )
    return OpenedSource(backbone, tokenizer_of(name, says), says, _head_weights(local_folder(name), says))


def _from_sentence_transformer(source: Any, backbone: PreTrainedModel) -> OpenedSource:
    name = f"the {type(source).__name__}"
    modules = list(source)
    kinds = [_kind(name, module) for module in modules]
    if len(modules) < 2 or kinds[1] != "Pooling":
        raise ConfigurationError(f"The modules of {name} are {', '.join(kinds)}: a Pooling is needed as the second.")
    pooling, includes = pooling_said(name, modules[1].get_config_dict())
    width = int(backbone.config.hidden_size) * len(pooling)
    layers: list[HeadLayer] = []
    weights: dict[str, Tensor] = {}
    for kind, module in zip(kinds[2:], modules[2:], strict=True):
        layer = head_layer(name, kind, module.get_config_dict(), width)
        if layer is None:
            continue
        activation = getattr(module, "activation_function", None)
        if activation is not None and repr(activation) != repr(type(activation)()):
            raise ConfigurationError(f"A Dense module of {name} has the activation {activation!r} with arguments.")
        for key, tensor in module.state_dict().items():
            weights[f"{len(layers)}.{key}"] = tensor
        layers.append(layer)
        width = layer.outputs
    units = bool(layers) and layers[-1].kind == "normalize"
    require_similarity(name, getattr(source, "similarity_fn_name", None), units=units)
    require_whole(name, getattr(source, "truncate_dim", None))
    says = FolderSays(
        name=name,
        pooling=pooling,
        head=tuple(layers[:-1] if units else layers),
        includes_prompt=includes,
        max_length=source.max_seq_length,
        dimensions=width,
        **prompts_said(name, source.prompts, source.default_prompt_name),
    )
    return OpenedSource(backbone, source.tokenizer, says, weights)


def _kind(name: str, module: Any) -> str:
    kind = type(module)
    if not kind.__module__.startswith("sentence_transformers."):
        raise ConfigurationError(
            f"{name} has a module of a class of its own, {kind.__module__}.{kind.__qualname__}. Legal are "
            "sentence-transformers' Transformer, Pooling, Dense, LayerNorm, Dropout and Normalize."
        )
    return kind.__name__


def _head_weights(folder: Path, says: FolderSays) -> dict[str, Tensor]:
    """Return the weights of the head, `<place of the layer>.<name in the layer>`."""
    if not any(layer.kind != "normalize" for layer in says.head):
        return {}
    if (folder / DESCRIPTION_FILE).is_file():
        return read_weights(folder / HEAD_FILE)
    weights: dict[str, Tensor] = {}
    for place, (layer, path) in enumerate(zip(says.head, says.head_folders, strict=True)):
        if layer.kind == "normalize":
            continue
        safe, pickled = folder / path / "model.safetensors", folder / path / "pytorch_model.bin"
        found = read_weights(safe if safe.is_file() or not pickled.is_file() else pickled)
        weights |= {f"{place}.{key}": tensor for key, tensor in found.items()}
    return weights


def read_weights(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name; of a pickled one tensors alone are read. Raises: ModelError, it is none."""
    try:
        if file.suffix == ".bin":
            found: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
            return found
        return load_file(file)
    except Exception as error:  # pickle raises whatever it likes
        raise ModelError(f"{file} is missing or corrupt: {error}") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' loading bars and notes about unused poolers out of task logs."""
    logging: Any = transformers.utils.logging  # its functions carry no types
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
