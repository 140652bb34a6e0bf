"""Binary COPY of objects and part vectors: the bulk of a load, without a Python object per number.

The format is PostgreSQL's (documentation of COPY, "Binary Format"); a pgvector value is its dimension, a zero (both
two bytes) and its numbers, all in network byte order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.types.json import Jsonb

from estudio_core.vectordb.index_info import MetricAggregationType, SearchIndexInfo
from estudio_core.vectordb.items import (
    TEXT_LIMIT,
    VECTOR_MAX_DIMENSIONS,
    IndexedItem,
    average_vector,
    checked_vectors,
    values_fit,
)

AVERAGE_PART = -1
"""Number of the average row among an object's parts."""

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_PART_COLUMNS = 5


def part_matrix(items: Sequence[IndexedItem], info: SearchIndexInfo) -> NDArray[np.float32]:
    """Return the part vectors of `items` below each other, float32 [parts, dimensions], checked.

    Raises:
        DimensionError: the vectors of an item are not [parts, dimensions].
        ItemError: an item has no part, or a vector that an index would not find.
    """
    shapes = [np.shape(item.vectors) for item in items]
    if all(len(shape) == 2 and shape[0] and shape[1] == info.dimensions for shape in shapes):
        matrix = np.concatenate([np.asarray(item.vectors, dtype=np.float32) for item in items])
        if values_fit(matrix, info):
            return matrix
    # Something is wrong: item by item, to name it.
    return np.concatenate([checked_vectors(item, info) for item in items])


def copy_objects(
    conn: psycopg.Connection, table: sql.Identifier, items: Sequence[IndexedItem], payloads: Sequence[str | None]
) -> None:
    """Write the rows of the objects table; `payloads` are JSON texts, one per item."""
    statement = sql.SQL(
        "COPY {} (object_id, original_id, user_id, payload, content_hash, source_hash, body) FROM STDIN (FORMAT binary)"
    ).format(table)
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(["text", "text", "text", "jsonb", "text", "text", "text"])
        for item, payload in zip(items, payloads, strict=True):
            wrapped = None if payload is None else Jsonb(payload, dumps=str.encode)
            hashes = (item.content_hash, item.source_hash)
            copy.write_row((item.object_id, item.original_id, item.user_id, wrapped, *hashes, item.text[:TEXT_LIMIT]))


def copy_parts(
    conn: psycopg.Connection,
    table: sql.Identifier,
    items: Sequence[IndexedItem],
    matrix: NDArray[np.float32],
    info: SearchIndexInfo,
) -> None:
    """Write the rows of the parts table: those of `matrix`, and each object's average where averages are searched."""
    statement = sql.SQL("COPY {} (object_id, part, embedding, is_average, user_id) FROM STDIN (FORMAT binary)").format(
        table
    )
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(_HEADER + b"".join(_part_rows(items, matrix, info, conn.info.encoding)) + _TRAILER)


def _part_rows(
    items: Sequence[IndexedItem], matrix: NDArray[np.float32], info: SearchIndexInfo, encoding: str
) -> Iterator[bytes]:
    number = np.dtype(">f2" if info.dimensions > VECTOR_MAX_DIMENSIONS else ">f4")
    rows = matrix.astype(number)
    length = number.itemsize * info.dimensions
    vector = struct.pack(">iHH", length + 4, info.dimensions, 0)
    averages = info.metric_aggregation_type == MetricAggregationType.AVG
    start = 0
    for item in items:
        before = struct.pack(">h", _PART_COLUMNS) + _text(item.object_id, encoding)
        user = _text(item.user_id, encoding)
        end = start + len(item.vectors)
        for part in range(start, end):
            yield before + struct.pack(">ii", 4, part - start) + vector
            yield rows[part].tobytes()
            yield b"\0\0\0\1\0" + user
        if averages:
            average = average_vector(matrix[start:end], item.object_id, info)
            yield before + struct.pack(">ii", 4, AVERAGE_PART) + vector
            yield average.astype(number).tobytes()
            yield b"\0\0\0\1\1" + user
        start = end


def _text(value: str | None, encoding: str) -> bytes:
    if value is None:
        return _NULL
    encoded = value.encode(encoding)
    return struct.pack(">i", len(encoded)) + encoded
