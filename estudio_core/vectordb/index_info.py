"""How vectors of a plugin are stored and compared."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

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


class SearchIndexInfo(BaseModel):
    """Dimension, metric, aggregation, HNSW parameters and words of a plugin's index."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dimensions: int = Field(ge=1, le=4000)
    metric_type: MetricType = MetricType.COSINE
    metric_aggregation_type: MetricAggregationType = MetricAggregationType.MIN
    hnsw: HnswParameters = HnswParameters()
    text_config: str = Field(default="english", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")
    """PostgreSQL's text search configuration: how texts and queries become words. `simple` takes them as they are."""
    lexical: Bm25Settings | None = Bm25Settings()
    """How words are ranked beside vectors; None: vectors alone are."""
