"""Binary COPY of objects and part vectors: the bulk of a load, without a Python object per number.

The format is PostgreSQL's (documentation of COPY, "Binary Format"); a pgvector value is its dimension, a zero (both
two bytes) and its numbers, all in network byte order; a jsonb value is a version, 1, and the text.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from estudio_core.vectordb.index_info import MetricAggregationType, SearchIndexInfo
from estudio_core.vectordb.objects import (
    IndexedObject,
    average_vector,
    checked_vectors,
    payload_jsons,
    values_fit,
    words_of,
)

AVERAGE_PART = -1
"""Number of the average row among an object's parts."""

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_LENGTH = struct.Struct(">i").pack
_NULL = b"\xff\xff\xff\xff"
OBJECT_COLUMNS = ("object_id", "original_id", "user_id", "payload", "content_hash", "source_hash", "body")
PART_COLUMNS = ("object_id", "part", "embedding", "is_average", "user_id")
_JSONB_VERSION = b"\1"


def part_matrix(objects: Sequence[IndexedObject], info: SearchIndexInfo) -> NDArray[np.float32]:
    """Return the part vectors of `objects` below each other, float32 [parts, dimensions], checked.

    Raises:
        DimensionError: the vectors of an object are not [parts, dimensions].
        ItemError: an object has no part, or a vector that an index would not find.
    """
    parts = [np.asarray(obj.vectors, dtype=np.float32) for obj in objects]
    if all(rows.ndim == 2 and len(rows) and rows.shape[1] == info.dimensions for rows in parts):
        matrix = np.concatenate(parts)
        if values_fit(matrix, info):
            return matrix
    # Something is wrong: object by object, to name it.
    return np.concatenate([checked_vectors(obj, info) for obj in objects])


@dataclass(frozen=True)
class CopyChunk:
    """Objects in the form in which they are sent: the content of two binary COPYs.

    Attributes:
        object_ids: Ids of the objects.
        personal: Users and originals of the personal rows among them.
        objects: Rows of the objects table.
        parts: Rows of the parts table, each object's average among them where averages are searched.
        part_count: Number of part vectors, averages not counted.
    """

    object_ids: list[str]
    personal: list[tuple[str, str]]
    objects: bytes
    parts: bytes
    part_count: int


def pack(objects: Sequence[IndexedObject], info: SearchIndexInfo, encoding: str) -> CopyChunk:
    """Check the content of objects and return them as COPY wants them.

    Raises:
        DimensionError: the vectors of an object are not [parts, dimensions].
        ItemError: an object has no part or a vector that an index would not find, or its payload is no JSON.
    """
    matrix = part_matrix(objects, info)
    return CopyChunk(
        [obj.object_id for obj in objects],
        [(obj.user_id, obj.original_id) for obj in objects if obj.user_id is not None and obj.original_id is not None],
        b"".join((_HEADER, *_object_rows(objects, encoding), _TRAILER)),
        b"".join((_HEADER, *_part_rows(objects, matrix, info, encoding), _TRAILER)),
        len(matrix),
    )


def send(conn: psycopg.Connection, objects: sql.Identifier, parts: sql.Identifier, chunk: CopyChunk) -> None:
    """Write a chunk into the two tables."""
    _copy(conn, objects, OBJECT_COLUMNS, chunk.objects)
    send_parts(conn, parts, chunk)


def send_parts(conn: psycopg.Connection, parts: sql.Identifier, chunk: CopyChunk) -> None:
    """Write the part vectors of a chunk alone."""
    _copy(conn, parts, PART_COLUMNS, chunk.parts)


def _copy(conn: psycopg.Connection, table: sql.Identifier, columns: Sequence[str], content: bytes) -> None:
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
        table, sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(content)


def _object_rows(objects: Sequence[IndexedObject], encoding: str) -> Iterator[bytes]:
    columns = (
        [struct.pack(">h", len(OBJECT_COLUMNS))] * len(objects),
        _texts([obj.object_id for obj in objects], encoding),
        _texts([obj.original_id for obj in objects], encoding),
        _texts([obj.user_id for obj in objects], encoding),
        [_jsonb(payload, encoding) for payload in payload_jsons(objects)],
        _texts([obj.content_hash for obj in objects], encoding),
        _texts([obj.source_hash for obj in objects], encoding),
        _texts([words_of(obj.text) for obj in objects], encoding),
    )
    return map(b"".join, zip(*columns, strict=True))


def _part_rows(
    objects: Sequence[IndexedObject], matrix: NDArray[np.float32], info: SearchIndexInfo, encoding: str
) -> Iterator[bytes]:
    """Yield rows of the parts table, those together whose ids have the same number of bytes."""
    counts = np.array([len(obj.vectors) for obj in objects])
    owners = np.repeat(np.arange(len(objects)), counts)
    numbers = np.arange(len(matrix)) - np.repeat(np.cumsum(counts) - counts, counts)
    if info.metric_aggregation_type == MetricAggregationType.AVG:
        parts = zip(np.split(matrix, np.cumsum(counts)[:-1]), objects, strict=True)
        averages = [average_vector(rows, obj.object_id, info) for rows, obj in parts]
        matrix = np.concatenate([matrix, averages])
        owners = np.concatenate([owners, np.arange(len(objects))])
        numbers = np.concatenate([numbers, np.full(len(objects), AVERAGE_PART)])
    ids = _texts([obj.object_id for obj in objects], encoding)
    users = _texts([obj.user_id for obj in objects], encoding)
    sizes = np.array([(len(object_id), len(user)) for object_id, user in zip(ids, users, strict=True)])
    for id_bytes, user_bytes in sorted(set(map(tuple, sizes.tolist()))):
        rows = np.flatnonzero((sizes == (id_bytes, user_bytes)).all(axis=1)[owners])
        block = np.empty(len(rows), _part_row(id_bytes, user_bytes, info))
        block["columns"] = len(PART_COLUMNS)
        block["object_id"] = _cells(ids, owners[rows], id_bytes)
        block["part_bytes"] = 4
        block["part"] = numbers[rows]
        block["embedding_bytes"] = block.dtype["embedding"].itemsize + 4
        block["dimensions"] = info.dimensions
        block["unused"] = 0
        block["embedding"] = matrix[rows]
        block["is_average_bytes"] = 1
        block["is_average"] = numbers[rows] == AVERAGE_PART
        block["user_id"] = _cells(users, owners[rows], user_bytes)
        yield block.tobytes()


def _part_row(id_bytes: int, user_bytes: int, info: SearchIndexInfo) -> np.dtype[np.void]:
    number = f">f{info.number_bytes}"
    return np.dtype(
        [
            ("columns", ">i2"),
            ("object_id", f"V{id_bytes}"),
            ("part_bytes", ">i4"),
            ("part", ">i4"),
            ("embedding_bytes", ">i4"),
            ("dimensions", ">u2"),
            ("unused", ">u2"),
            ("embedding", number, info.dimensions),
            ("is_average_bytes", ">i4"),
            ("is_average", "u1"),
            ("user_id", f"V{user_bytes}"),
        ]
    )


def _cells(texts: Sequence[bytes], owners: NDArray[np.intp], size: int) -> NDArray[np.void]:
    """Return the text of each owner, all of `size` bytes."""
    return np.frombuffer(b"".join([texts[owner] for owner in owners.tolist()]), f"V{size}")


def _texts(values: Sequence[str | None], encoding: str) -> list[bytes]:
    # The thread that sends the chunk before needs Python's lock for moments; without this it waits 5 ms for each.
    time.sleep(0)
    return [_NULL if value is None else _LENGTH(len(encoded := value.encode(encoding))) + encoded for value in values]


def _jsonb(text: str | None, encoding: str) -> bytes:
    if text is None:
        return _NULL
    encoded = text.encode(encoding)
    return _LENGTH(len(encoded) + 1) + _JSONB_VERSION + encoded
