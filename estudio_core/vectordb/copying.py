"""Binary COPY of objects and part vectors: the bulk of a load, without a Python object per number.

The format is PostgreSQL's (documentation of COPY, "Binary Format"); a pgvector value is its dimension, a zero (both
two bytes) and its numbers, all in network byte order; a jsonb value is a version, 1, and the text.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from estudio_core.vectordb.index_info import MetricAggregationType, SearchIndexInfo
from estudio_core.vectordb.items import (
    TEXT_LIMIT,
    VECTOR_MAX_DIMENSIONS,
    IndexedItem,
    average_vector,
    checked_vectors,
    payload_json,
    values_fit,
)

AVERAGE_PART = -1
"""Number of the average row among an object's parts."""

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_LENGTH = struct.Struct(">i").pack
_NUMBER = struct.Struct(">ii").pack
_NULL = b"\xff\xff\xff\xff"
OBJECT_COLUMNS = ("object_id", "original_id", "user_id", "payload", "content_hash", "source_hash", "body")
PART_COLUMNS = ("object_id", "part", "embedding", "is_average", "user_id")
_JSONB_VERSION = b"\1"


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


@dataclass(frozen=True)
class CopyChunk:
    """Items in the form in which they are sent: the content of two binary COPYs.

    Attributes:
        object_ids: Ids of the items.
        objects: Rows of the objects table.
        parts: Rows of the parts table, each object's average among them where averages are searched.
        part_count: Number of part vectors, averages not counted.
    """

    object_ids: list[str]
    objects: bytes
    parts: bytes
    part_count: int


def pack(items: Sequence[IndexedItem], info: SearchIndexInfo, encoding: str) -> CopyChunk:
    """Check the content of items and return them as COPY wants them.

    Raises:
        DimensionError: the vectors of an item are not [parts, dimensions].
        ItemError: an item has no part or a vector that an index would not find, or its payload is no JSON.
    """
    matrix = part_matrix(items, info)
    return CopyChunk(
        [item.object_id for item in items],
        b"".join((_HEADER, *_object_rows(items, encoding), _TRAILER)),
        b"".join((_HEADER, *_part_rows(items, matrix, info, encoding), _TRAILER)),
        len(matrix),
    )


def send(conn: psycopg.Connection, objects: sql.Identifier, parts: sql.Identifier, chunk: CopyChunk) -> None:
    """Write a chunk into the two tables."""
    _copy(conn, objects, OBJECT_COLUMNS, chunk.objects)
    _copy(conn, parts, PART_COLUMNS, chunk.parts)


def _copy(conn: psycopg.Connection, table: sql.Identifier, columns: Sequence[str], content: bytes) -> None:
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
        table, sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(content)


def _object_rows(items: Sequence[IndexedItem], encoding: str) -> Iterator[bytes]:
    fields = struct.pack(">h", len(OBJECT_COLUMNS))
    for item in items:
        payload = payload_json(item)
        yield fields + _text(item.object_id, encoding) + _text(item.original_id, encoding)
        yield _text(item.user_id, encoding)
        yield _NULL if payload is None else _jsonb(payload, encoding)
        yield _text(item.content_hash, encoding) + _text(item.source_hash, encoding)
        yield _text(item.text[:TEXT_LIMIT], encoding)


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
        before = struct.pack(">h", len(PART_COLUMNS)) + _text(item.object_id, encoding)
        user = _text(item.user_id, encoding)
        end = start + len(item.vectors)
        for part in range(start, end):
            yield before + _NUMBER(4, part - start) + vector
            yield rows[part].tobytes()
            yield b"\0\0\0\1\0" + user
        if averages:
            average = average_vector(matrix[start:end], item.object_id, info)
            yield before + _NUMBER(4, AVERAGE_PART) + vector
            yield average.astype(number).tobytes()
            yield b"\0\0\0\1\1" + user
        start = end


def _text(value: str | None, encoding: str) -> bytes:
    if value is None:
        return _NULL
    encoded = value.encode(encoding)
    return _LENGTH(len(encoded)) + encoded


def _jsonb(text: str, encoding: str) -> bytes:
    encoded = text.encode(encoding)
    return _LENGTH(len(encoded) + 1) + _JSONB_VERSION + encoded
