"""The arguments of `create_text_plugin`: typed, immutable, and strict about names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, SecretStr, field_validator

from estudio_core.experiments.fine_tuning_settings import FineTuningSettings
from estudio_core.models.families import FAMILIES
from estudio_core.strict_model import StrictModel
from estudio_core.vectordb.index_info import HnswParameters, MetricAggregationType, MetricType


class PostgresItems(StrictModel):
    """Where the items are: a PostgreSQL table.

    Give `connection_id` (an Airflow connection) or `url`; with neither, Estudio's own database is read.
    """

    table: str
    text: str | tuple[str, ...]
    """Column, or columns, whose text is searched; several are joined by `separator`."""
    id_column: str = "id"
    schema_name: str | None = None
    payload: tuple[str, ...] = ()
    """Columns kept beside the vectors, for filters, sorting and display."""
    updated_at: str | None = None
    """Column with the time of the last change, never null; lets `sync` read changed rows only."""
    change_queue: str | None = None
    """Table of changed ids that a trigger on `table` feeds, so that `sync` reads nothing else.
    `estudio plugins queue-sql NAME` prints the SQL that creates both."""
    connection_id: str | None = None
    url: SecretStr | None = None
    separator: str = ". "


class TextModel(StrictModel):
    """The embedding model to start from."""

    name: str
    """Folder, installed model package, or name on the model hub."""
    family: str = "bert"
    """What stands before texts and how token vectors become one: a name of `models.families.FAMILIES`. bert: nothing,
    masked mean; e5: "query: " and "passage: ", masked mean; bge: its instruction before queries, the first token."""
    max_tokens: int = Field(default=128, ge=8, le=8192)
    """Longest part of an item, special tokens and prefix included; longer texts become several parts."""

    @field_validator("family")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in FAMILIES:
            raise ValueError(f"there is no family {name!r}: {', '.join(FAMILIES)}")
        return name


class TextTraining(StrictModel):
    """How the model learns from clicks. What is None takes the measured default."""

    num_epochs: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    num_fixed_layers: int | None = Field(default=None, ge=0)
    margin: float | None = Field(default=None, ge=0)
    interpolation: float | None = Field(default=None, gt=0, le=1)
    """Share of the trained weights in the new model, the rest being those it started from: less is more careful."""
    loss: Any = None
    """A loss of `lightning_modules.losses`, or a function that returns one, so that torch is imported only where it is
    needed; CosineProbMarginRankingLoss by default."""
    settings: Mapping[str, Any] = Field(default_factory=dict)
    """Further fields of `FineTuningSettings`, by name."""
    search_space: Mapping[str, Sequence[Any]] = Field(default_factory=dict)
    """Values to try, by parameter name, when a run asks for more than one trial."""
    test_size_ratio: float = Field(default=0.2, gt=0, lt=1)
    """Share of queries kept out of training: for early stopping and for the gate."""
    holdout_share: float = Field(default=0.5, ge=0, lt=1)
    """Share of `test_size_ratio` that only the gate reads."""

    @field_validator("settings")
    @classmethod
    def _of_fine_tuning(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        here = {name: f"TextTraining({name}=...)" for name in ("num_epochs", "batch_size")}
        here |= {
            "loss_func": "TextTraining(loss=...)",
            "seed": "create_text_plugin(fine_tune=FineTuneParams(seed=...))",
        }
        for name in value:
            if name in here:
                raise ValueError(f"give {name} as {here[name]}")
        FineTuningSettings(loss_func=None, **value)
        return value


class TextIndex(StrictModel):
    """How vectors are stored and compared. The dimension is the model's."""

    metric: MetricType = MetricType.COSINE
    aggregation: MetricAggregationType = MetricAggregationType.MIN
    hnsw: HnswParameters = HnswParameters()
    text_config: str = "simple"
    """PostgreSQL's text search configuration for hybrid search: `simple` takes words as they are, `english` and
    other languages reduce them to their stems."""
