"""How vectors of a plugin are stored and compared."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

from estudio_core.lexical.settings import Bm25Settings


class MetricType(StrEnum):
    """Distance between a query vector and a part vector."""

    COSINE = "cosine"
    DOT = "dot"
    EUCLID = "euclid"


class MetricAggregationType(StrEnum):
    """How the distances of an object's parts become the distance of the object.

    MIN: the nearest part. AVG: one vector per object, the mean of its part vectors
    (normalised again for COSINE). The same definition holds in loss, metrics, adjuster and SQL.
    """

    MIN = "min"
    AVG = "avg"


class HnswParameters(BaseModel):
    """Parameters of the HNSW index, as pgvector names them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    m: int = Field(default=16, ge=2, le=100)
    ef_construction: int = Field(default=64, ge=4, le=1000)
    ef_search: int = Field(default=100, ge=1, le=1000)


class FieldKind(StrEnum):
    """What a field of the payload mostly holds, and thus by what it is found in an index of its own.

    All kinds are found by `term`, `terms`, `exists`, ranges of numbers, and sorted by. TIME adds ranges of times, TEXT
    ranges of texts, `match`, `phrase`, and `wildcard` patterns that begin with text. What is of another kind is found
    too.
    """

    NUMBER = "number"
    TIME = "time"
    TEXT = "text"


class IndexedField(BaseModel):
    """A field of the payload that has an index, `maker.name` for one within an object."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    kind: FieldKind

    @property
    def path(self) -> tuple[str, ...]:
        """The names in each other."""
        return tuple(self.name.split("."))


class VectorStorage(StrEnum):
    """pgvector's type of the numbers: 32 bits each, or 16; two thirds of a build's memory at 384 dimensions."""

    VECTOR = "vector"
    HALFVEC = "halfvec"


VECTOR_MAX_DIMENSIONS = 2000
"""HNSW indexes `vector` up to here; longer vectors are stored as `halfvec`."""
MOST_FIELDS = 32
"""Indexes are written with every item."""


class SearchIndexInfo(BaseModel):
    """Dimension, metric, aggregation, HNSW parameters, storage, words and indexed fields of a plugin's index."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dimensions: int = Field(ge=1, le=4000)
    metric_type: MetricType = MetricType.COSINE
    metric_aggregation_type: MetricAggregationType = MetricAggregationType.MIN
    hnsw: HnswParameters = HnswParameters()
    storage: VectorStorage = VectorStorage.VECTOR
    """How numbers are stored, up to 2,000 dimensions; beyond, always as `halfvec`."""
    text_config: str = Field(default="english", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")
    """PostgreSQL's text search configuration: how texts and queries become words. `simple` takes them as they are."""
    lexical: Bm25Settings | None = Bm25Settings()
    """How words are ranked beside vectors; None: vectors alone are."""
    fields: tuple[IndexedField, ...] = Field(default=(), max_length=MOST_FIELDS)
    """Fields of the payload with an index of their own, built with the collection."""

    @property
    def vector_type(self) -> VectorStorage:
        """The type of the stored vectors."""
        return VectorStorage.HALFVEC if self.dimensions > VECTOR_MAX_DIMENSIONS else self.storage

    @property
    def number_bytes(self) -> int:
        """Bytes of a number of a stored vector."""
        return 2 if self.vector_type == VectorStorage.HALFVEC else 4

    def field_of(self, path: Sequence[str] | str) -> tuple[int, IndexedField] | None:
        """Return the indexed field of a path, and its number; None where it has no index."""
        wanted = tuple(path.split(".")) if isinstance(path, str) else tuple(path)
        return next(((number, field) for number, field in enumerate(self.fields) if field.path == wanted), None)

    @property
    def times_alone(self) -> SearchIndexInfo | None:
        """The same with its fields of times only, None where it has none: of them an index's value is told faster."""
        return _times_alone(self)

    @field_validator("fields")
    @classmethod
    def _each_once(cls, fields: tuple[IndexedField, ...]) -> tuple[IndexedField, ...]:
        names = [field.name for field in fields]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"fields named twice: {', '.join(twice)}")
        if broken := [field.name for field in fields if not all(field.path)]:
            raise ValueError(f"{broken} are no names of fields")
        return fields

    @model_serializer(mode="wrap")
    def _without_what_is_new_where_it_is_not_used(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write what the version before reads, as long as it can."""
        written: dict[str, Any] = handler(self)
        if not written.get("fields"):
            written.pop("fields", None)
        if self.storage == VectorStorage.VECTOR:
            written.pop("storage", None)
        return written


@lru_cache(maxsize=64)
def _times_alone(info: SearchIndexInfo) -> SearchIndexInfo | None:
    times = tuple(field for field in info.fields if field.kind == FieldKind.TIME)
    return info.model_copy(update={"fields": times}) if times else None
