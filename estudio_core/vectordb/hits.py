"""What a search returns of an object, and how its nearest part is found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import sql

from estudio_core.vectordb.ordering import Request


@dataclass(frozen=True)
class SearchHit:
    """One object that was found.

    Attributes:
        object_id: The object; for a personal row the object that it replaces.
        distance: pgvector's distance (cosine distance, negative inner product, or Euclid's) of the object; not a number
            where words alone were searched for.
        payload: Its payload.
        part: The nearest part; None for AVG.
        personal: Whether the user's own vectors were compared.
        words: BM25 of the words that were searched for, see `lexical.bm25.unit`; None where they did not count.
    """

    object_id: str
    distance: float
    payload: dict[str, Any]
    part: int | None = None
    personal: bool = False
    words: float | None = None


def nearest_part(request: Request, object_id: sql.SQL) -> sql.Composable:
    """Return a LATERAL subquery (part, distance) of the nearest part of the object that a column names."""
    # "+ 0": the few parts of this object are compared; the planner must not walk the index for them.
    return sql.SQL(
        "LATERAL (SELECT p.part, {distance} AS distance FROM {parts} p"
        " WHERE p.object_id = {object_id} AND {compared} ORDER BY {distance} + 0, p.part LIMIT 1)"
    ).format(distance=request.distance, parts=request.collection.parts, object_id=object_id, compared=request.compared)
