"""`estudio_model.json`: what `storage.save_model` says of a model that it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from estudio_core.errors import ModelError
from estudio_core.models.families import Pooling

DESCRIPTION_FILE = "estudio_model.json"
_UNREADABLE = "{} is missing or unreadable: {}. A model folder is written by save_model(model, folder)."


class HeadLayer(BaseModel):
    """One module after pooling."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["dense", "layer_norm", "normalize"]
    inputs: int
    """Length of the vectors that go in."""
    outputs: int
    bias: bool = True
    activation: str = "torch.nn.modules.linear.Identity"
    residual: bool = False
    """Whether the input is added to the output."""


class ModelDescription(BaseModel):
    """What `estudio_model.json` says: how text becomes a vector with these weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    family: str = Field(validation_alias=AliasChoices("family", "kind"), serialization_alias="kind")
    query_prefix: str
    item_prefix: str
    max_length: int
    dimensions: int
    pooling: Pooling | tuple[Pooling, ...] = "masked_mean"
    """One way, or several whose results are laid one after another."""
    head: tuple[HeadLayer, ...] = ()
    """Modules after pooling; their weights are in `head.safetensors`."""
    normalised: Literal[True] = True
    format_version: Literal[1] = 1


def read_description(folder: Path) -> ModelDescription:
    """Return what `estudio_model.json` of a folder says. Raises: ModelError, it is missing or damaged."""
    path = folder / DESCRIPTION_FILE
    try:
        return ModelDescription.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:5])
        raise ModelError(_UNREADABLE.format(path, wrong)) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(_UNREADABLE.format(path, error)) from error
