"""Loading a collection: checks, packing and COPY of the product, against a bare binary COPY of the same bytes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg

from benchmarks.index.generated import generated_items
from benchmarks.index.timing import median
from estudio_core import database
from estudio_core.database import migrate
from estudio_core.vectordb.collection import COPY_CHUNK, Collection
from estudio_core.vectordb.copying import OBJECT_COLUMNS, PART_COLUMNS, pack
from estudio_core.vectordb.index_info import SearchIndexInfo


def measure_copy(items: int, *, dimensions: int = 384, rounds: int = 5) -> dict[str, Any]:
    """Write generated items into empty tables, in turns.

    Both write the same bytes into tables of the same columns, keys and generated document. The product starts from
    items in memory, in one transaction; the bare COPY from the finished bytes, in one transaction too.

    Returns:
        Median rows/s of both, and all seconds.
    """
    written = list(generated_items(0, items, dimensions))
    info = SearchIndexInfo(dimensions=dimensions)
    seconds: dict[str, list[float]] = {"bare COPY": [], "Estudio": []}
    migrate()
    with database.connect(autocommit=True) as connection:
        chunks = [
            pack(written[start : start + COPY_CHUNK], info, connection.info.encoding)
            for start in range(0, items, COPY_CHUNK)
        ]

        def ours(collection: Collection) -> None:
            collection.copy_objects(connection, written)

        def bare(collection: Collection) -> None:
            objects = f'COPY estudio."{collection.name("objects")}" ({", ".join(OBJECT_COLUMNS)}) FROM STDIN BINARY'
            parts = f'COPY estudio."{collection.name("parts")}" ({", ".join(PART_COLUMNS)}) FROM STDIN BINARY'
            with connection.transaction(), connection.cursor() as cursor:
                for chunk in chunks:
                    for statement, content in ((objects, chunk.objects), (parts, chunk.parts)):
                        with cursor.copy(statement) as copy:
                            copy.write(content)

        _timed(connection, info, ours)
        for number in range(rounds):
            turns = [("bare COPY", bare), ("Estudio", ours)]
            for name, load in turns if number % 2 == 0 else turns[::-1]:
                seconds[name].append(_timed(connection, info, load))
    return {
        "items": items,
        "bytes": sum(len(chunk.objects) + len(chunk.parts) for chunk in chunks),
        "seconds": seconds,
        "items_per_s": {name: items / median(values) for name, values in seconds.items()},
        "ratio": float(np.median(np.array(seconds["bare COPY"]) / np.array(seconds["Estudio"]))),
    }


def _timed(connection: psycopg.Connection, info: SearchIndexInfo, load: Callable[[Collection], None]) -> float:
    """Return the seconds of a load into an empty collection, which is dropped afterwards."""
    collection = Collection(f"copied_{uuid.uuid4().hex[:8]}", info)
    collection.create(connection)
    began = time.perf_counter()
    load(collection)
    took = time.perf_counter() - began
    collection.drop(connection)
    connection.execute("CHECKPOINT")  # what one wrote is not left for the next to write out
    return took
