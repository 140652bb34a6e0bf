"""The hyper-parameters of one training: what a search varies and MLflow stores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator

from estudio_core.strict_model import StrictModel

_NOTHING = {"", "None", "none", "null"}


class ExamplesType(IntEnum):
    """Subsets of the training pairs, by difficulty of the similarity difference against the margin and by side."""

    medium_all = 1
    hard_all = 2
    soft_all = 3
    medium_positive = 4
    hard_positive = 5
    soft_positive = 6
    medium_negative = 7
    hard_negative = 8
    soft_negative = 9
    negative_only = 10
    all_examples = 11


class FineTuningParams(StrictModel):
    """Hyper-parameters of one trial. Every field has a default; None leaves the choice to the settings.

    `learning_rate` is accepted on input and sets `query_lr` and `items_lr` where they are not given. Of two rates or
    two decays of which one alone is given, the other is the same. One tower for queries and items takes their means.
    Unknown names and illegal values are `ConfigurationError`s.
    """

    input_aliases: ClassVar[dict[str, tuple[str, ...]]] = {"learning_rate": ("query_lr", "items_lr")}

    num_fixed_layers: int = Field(default=3, ge=0, le=1000)
    """Lowest transformer layers that are not trained."""
    query_lr: float = Field(default=2e-4, gt=0, le=1, allow_inf_nan=False)
    """Peak learning rate of the query tower."""
    items_lr: float = Field(default=2e-4, gt=0, le=1, allow_inf_nan=False)
    """Peak learning rate of the item tower; one tower for both takes the mean of the two rates."""
    query_weight_decay: float = Field(default=0.01, ge=0, le=1, allow_inf_nan=False)
    """AdamW decay of the query tower."""
    items_weight_decay: float = Field(default=0.01, ge=0, le=1, allow_inf_nan=False)
    """AdamW decay of the item tower; one tower for both takes the mean of the two decays."""
    margin: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    """Wanted gap between the similarities of clicked and skipped items; None: the loss's own."""
    not_irrelevant_only: bool = True
    """Learn from clicked sessions only; False: results of sessions without clicks are extra negatives."""
    negative_downsampling: float = Field(default=1.0, gt=0, le=1, allow_inf_nan=False)
    """Share of the skipped items that is kept; at least one per session is."""
    min_abs_difference_threshold: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    """Pairs whose similarities differ by less are left out; None: the loss's own."""
    max_abs_difference_threshold: float | None = Field(default=None, gt=0, le=2, allow_inf_nan=False)
    """Pairs whose similarities differ by more are left out; None: the loss's own."""
    examples_order: tuple[ExamplesType, ...] = Field(default=(ExamplesType.all_examples,), min_length=1)
    """Curriculum: stage i trains on subset i."""
    batch_size: int | None = Field(default=None, ge=1, le=65_536)
    """Groups of sessions of a query per step."""
    num_epochs: int | None = Field(default=None, ge=1, le=10_000)
    """Passes over the training sessions."""
    loss_form: Literal["softplus", "sigmoid"] | None = None
    """Shape of the loss over the missing part of the margin."""
    scale: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Steepness of the loss."""
    shift: float | None = Field(default=None, allow_inf_nan=False)
    """Offset of the loss' argument."""
    hardness_temperature: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Temperature of the weights that pairs get by hardness."""
    interpolation: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    """Share of the trained weights when they are mixed with those training started from."""

    @classmethod
    def _without_aliases(cls, data: dict[Any, Any]) -> dict[Any, Any]:
        given = super()._without_aliases(data)
        for query, items in (("query_lr", "items_lr"), ("query_weight_decay", "items_weight_decay")):
            for one, other in ((query, items), (items, query)):
                if one in given:
                    given.setdefault(other, given[one])
        return given

    @field_validator("*", mode="before")
    @classmethod
    def _absent(cls, value: Any) -> Any:
        return None if isinstance(value, str) and value.strip() in _NOTHING else value

    @field_validator("examples_order", mode="before")
    @classmethod
    def _stages(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [stage for stage in value.strip("[]() ").split(",") if stage.strip()]
        if isinstance(value, int):
            value = [value]
        return [_stage(stage) for stage in value]

    @field_validator("max_abs_difference_threshold")
    @classmethod
    def _above_the_minimum(cls, value: float | None, info: ValidationInfo) -> float | None:
        least = info.data.get("min_abs_difference_threshold")
        if value is not None and least is not None and value <= least:
            raise ValueError(f"it has to be above min_abs_difference_threshold ({least})")
        return value

    @property
    def learning_rate(self) -> float:
        """Rate of a tower that serves queries and items: the mean of the two rates."""
        return (self.query_lr + self.items_lr) / 2

    @property
    def weight_decay(self) -> float:
        """Decay of a tower that serves queries and items: the mean of the two decays."""
        return (self.query_weight_decay + self.items_weight_decay) / 2

    @property
    def id(self) -> str:
        """Sha256 of the parameters' canonical JSON: equal parameters, equal id.

        >>> FineTuningParams(margin=1).id == FineTuningParams.from_mlflow({"margin": "1.0"}).id
        True
        """
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return the parameters as JSON values, without those left to the settings."""
        return self.model_dump(mode="json", exclude_none=True)

    def to_mlflow(self) -> dict[str, str]:
        """Return the parameters as MLflow's strings.

        >>> FineTuningParams(learning_rate=3e-5).to_mlflow()["items_lr"]
        '3e-05'
        >>> FineTuningParams(examples_order=[3, 11]).to_mlflow()["examples_order"]
        '3,11'
        """
        values = self.to_json()
        order = values.pop("examples_order")
        return {name: str(value) for name, value in values.items()} | {"examples_order": ",".join(map(str, order))}

    @classmethod
    def from_mlflow(cls, strings: Mapping[str, str]) -> Self:
        """Read parameters back; what else a run has logged is passed over."""
        legal = {*cls.model_fields, *cls.input_aliases}
        return cls.model_validate({name: value for name, value in strings.items() if name in legal})


def _stage(value: Any) -> Any:
    if isinstance(value, str):
        name = value.strip().removeprefix("ExamplesType.")
        if name in ExamplesType.__members__:
            return ExamplesType[name]
        return int(name) if name.isdigit() else value
    return value
