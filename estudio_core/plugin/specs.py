"""The arguments of `create_text_plugin`: typed, immutable, and strict about names."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, SecretStr, field_validator

from estudio_core.errors import ConfigurationError
from estudio_core.experiments.search_space import SearchSpace
from estudio_core.ids import storable
from estudio_core.lexical.settings import Bm25Settings
from estudio_core.models.families import FAMILIES
from estudio_core.strict_model import StrictModel
from estudio_core.vectordb.index_info import (
    MOST_FIELDS,
    FieldKind,
    HnswParameters,
    MetricAggregationType,
    MetricType,
    VectorStorage,
)
from lightning_modules.config import TrainingConfig

_Name = Annotated[str, Field(min_length=1), AfterValidator(storable)]
"""Of a table, a column or a connection."""


def is_data(given: object) -> bool:
    """Whether something is data, a number, a text or a list, where an object or a function is wanted."""
    return isinstance(given, str | bytes | int | float | complex | dict | list | tuple | set | frozenset)


class PostgresItems(StrictModel):
    """Where the items are: a PostgreSQL table.

    Give `connection_id` (an Airflow connection) or `url`; with neither, Estudio's own database is read.
    """

    table: _Name
    text: _Name | tuple[_Name, ...]
    """Column, or columns, whose text is searched; several are joined by `separator`."""
    id_column: _Name = "id"
    schema_name: _Name | None = None
    payload: tuple[_Name, ...] = ()
    """Columns kept beside the vectors, for filters, sorting and display."""
    updated_at: _Name | None = None
    """Column with the time of the last change, never null; lets `sync` read changed rows only."""
    change_queue: _Name | None = None
    """Table of changed ids that a trigger on `table` feeds, so that `sync` reads nothing else.
    `estudio plugins queue-sql NAME` prints the SQL that creates both."""
    connection_id: _Name | None = None
    url: SecretStr | None = None
    separator: str = ". "


class TextModel(StrictModel):
    """The embedding model to start from."""

    name: str
    """Folder, installed model package, or name on the model hub."""
    family: str = "bert"
    """What stands before texts and how token vectors become one: a name of `models.families.FAMILIES`. bert: what the
    model's own folder says (pooling, prompts), else nothing and the masked mean; e5: "query: " and "passage: ", masked
    mean; bge: its instruction before queries, the first token. A folder that says otherwise is refused."""
    query_prefix: str | None = None
    """What stands before queries, in place of what folder and family say."""
    item_prefix: str | None = None
    """What stands before texts of items, in place of what folder and family say."""
    max_tokens: int = Field(default=128, ge=8, le=8192)
    """Longest part of an item, special tokens and prefix included; longer texts become several parts. Left out, it is
    less where the model's folder says so (`max_seq_length`); more than that is refused."""

    @field_validator("family")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in FAMILIES:
            raise ValueError(f"there is no family {name!r}: {', '.join(FAMILIES)}")
        return name


class TextTraining(TrainingConfig):
    """How the model learns from clicks: any parameter of `TrainingConfig` that a plugin may set, and the following.

    What is not given takes the installation's value, else the measured default; preset and form of a run go before it.
    """

    loss: Any = None
    """A loss over pairs (`lightning_modules.losses.pair_loss` says what that is), or a function that returns one, so
    that torch is imported only where it is needed; `losses.default_loss` says what it is by default."""
    search_space: Mapping[str, Any] = Field(default_factory=dict)
    """Values to try, by parameter name, when a run asks for more than one trial."""
    test_size_ratio: float = Field(default=0.2, gt=0, lt=1)
    """Share of queries kept out of training: for early stopping and for the gate."""
    holdout_share: float = Field(default=0.5, ge=0, lt=1)
    """Share of `test_size_ratio` that only the gate reads."""

    @classmethod
    def _as_fields(cls, data: dict[Any, Any]) -> dict[Any, Any]:
        given = dict(data)
        further = dict(given.pop("settings", None) or {})
        if further:
            warnings.warn("TextTraining(settings=...): give its fields as arguments", DeprecationWarning, stacklevel=2)
        if twice := sorted(further.keys() & given.keys()):
            raise ConfigurationError(f"TextTraining: {', '.join(twice)} given twice, in settings and as an argument.")
        given |= further
        cls.refuse_elsewhere(given, "plugin")
        return given

    @field_validator("search_space")
    @classmethod
    def _can_be_searched(cls, space: Mapping[str, Any]) -> Mapping[str, Any]:
        SearchSpace(space)
        return space


class CatalogPretraining(StrictModel):
    """How `initialize` adapts the base model to the catalog alone, before the first click."""

    query_writer: Any = None
    """What writes queries for the items' texts: an object with a method `write(texts, count)`, or a class or function
    that returns one (`preprocessing.catalog.query_writers.QueryWriter`); None: word samples of titles and other fields,
    which are to find the rest of their item."""
    pair_scorer: Any = None
    """What scores queries with texts: an object with a method `score(pairs)`, or a class or function that returns one
    (`preprocessing.catalog.teachers.PairScorer`). The model then learns its margins between the item and others that
    it finds near itself; None: it learns to find the item among those of other queries."""
    items: int = Field(default=20_000, ge=1, le=1_000_000)
    """Most items that are learned from, drawn by hash."""
    queries_per_item: int = Field(default=2, ge=1, le=100)
    """Most queries of each."""
    negatives: int = Field(default=4, ge=1, le=100)
    """Items beside the right one that the scorer scores for each query."""
    known_items: int = Field(default=500, ge=10, le=10_000)
    """Most items that are kept out to judge by, a fifth of the catalog at most."""

    @field_validator("query_writer", "pair_scorer")
    @classmethod
    def _does_the_work(cls, given: Any) -> Any:
        if is_data(given):
            raise ValueError("give an object, or a class or function that makes one")
        return given


class TextIndex(StrictModel):
    """How vectors are stored and compared. The dimension is the model's."""

    metric: MetricType = MetricType.COSINE
    aggregation: MetricAggregationType = MetricAggregationType.MIN
    hnsw: HnswParameters = HnswParameters()
    storage: VectorStorage = VectorStorage.VECTOR
    """`halfvec` stores numbers in 16 bits instead of 32, see `VectorStorage`."""
    text_config: str = "english"
    """PostgreSQL's text search configuration: how texts and queries become words. `simple` takes them as they are,
    `english` and other languages reduce them to their stems."""
    lexical: Bm25Settings | None = Bm25Settings()
    """How words are ranked beside vectors; None: vectors alone are."""
    fields: Mapping[str, FieldKind] = Field(default_factory=dict, max_length=MOST_FIELDS)
    """Fields of the payload that searches filter or sort by, with what they hold: `number`, `time` or `text`, as
    `{"price": "number", "added": "time", "title": "text"}`. Each gets an index of its own with the next release."""
