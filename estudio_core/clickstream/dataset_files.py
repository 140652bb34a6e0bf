"""The files of a dataset, see `ranking_data`: written and read in pieces, so that a large log is never there twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from estudio_core.clickstream.arrow_columns import (
    floats_of,
    lengths_of,
    list_array,
    named_array,
    numbered,
    text_array,
    texts_of,
)
from estudio_core.clickstream.dataset_words import DatasetWords
from estudio_core.clickstream.ranking_data import SPLITS, ItemsSet, RankingData
from estudio_core.clickstream.session_files import values_of
from estudio_core.clickstream.session_table import NOBODY, SessionTable, Vocabulary
from estudio_core.clickstream.table_builder import TableBuilder
from estudio_core.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 50_000
"""Sessions or parts of items that are in memory as Arrow at a time."""


def write_dataset(data: RankingData, folder: Path) -> None:
    """Write the files of a dataset into the existing `folder`."""
    import pyarrow.parquet as pq

    schema = _sessions_schema(data)
    with pq.ParquetWriter(folder / "sessions.parquet", schema, compression="zstd") as writer:
        for split in SPLITS:
            for chunk in data.table(split).chunks(_ROWS):
                writer.write_batch(_batch(split, chunk, schema))
    with pq.ParquetWriter(folder / "items.parquet", _items_schema(), compression="zstd") as writer:
        ids = list(data.items)
        for start in range(0, len(ids), _ROWS):
            writer.write_table(_items_table(data.items, ids[start : start + _ROWS]))
    if data.words is not None:
        data.words.write(folder / "words.parquet")


def read_dataset(folder: Path) -> RankingData:
    """Read what `write_dataset` wrote.

    Raises:
        DataError: a file is missing or unreadable.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(folder / "sessions.parquet") as file:
            metadata = file.schema_arrow.metadata or {}
            whole, split_of = _sessions(file)
        items = _items(folder / "items.parquet")
        has_words = (folder / "words.parquet").is_file()
        words = DatasetWords.read(folder / "words.parquet") if has_words else None
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"No readable dataset in {folder}: {error}. Run the preprocessing step again.") from error
    return RankingData(
        splits={split: whole.take(np.flatnonzero(split_of == code)) for code, split in enumerate(SPLITS)},
        items=items,
        missing_items=tuple(json.loads(metadata.get(b"missing_items", b"[]"))),
        invalid_items=json.loads(metadata.get(b"invalid_items", b"{}")),
        words=words,
        left_out=json.loads(metadata.get(b"left_out", b"{}")),
        dataset_id=json.loads(metadata.get(b"dataset_id", b'""')),  # earlier versions did not say it
    )


def _sessions_schema(data: RankingData) -> pa.Schema:
    import pyarrow as pa

    fields = [
        ("split", pa.string()),
        ("session_id", pa.string()),
        ("query", pa.string()),
        ("results", pa.list_(pa.string())),
        ("positions", pa.list_(pa.int32())),
        ("ranks", pa.list_(pa.float64())),
        ("click_weights", pa.list_(pa.float64())),
        ("timestamp", pa.int64()),
        ("user_id", pa.string()),
        ("release", pa.string()),
        ("query_variants", pa.list_(pa.string())),
    ]
    # What datasets of earlier versions do not hold is there where a session says it.
    if any((data.table(split).of_session("client") >= 0).any() for split in SPLITS):
        fields.append(("client_id", pa.string()))
    if not all(data.table(split).of_session("by_relevance").all() for split in SPLITS):
        fields.append(("by_relevance", pa.bool_()))
    told = {"missing_items": data.missing_items, "invalid_items": dict(data.invalid_items)}
    told |= {"left_out": dict(data.left_out), "dataset_id": data.dataset_id}
    return pa.schema(fields, metadata={name.encode(): json.dumps(value).encode() for name, value in told.items()})


def _batch(split: str, table: SessionTable, schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    columns, lengths = table.columns, table.lengths
    variants = [columns.variant_sets[code] for code in table.of_session("variants").tolist()]
    rank = table.of_result("rank")
    found: dict[str, Any] = {
        "split": pa.repeat(split, len(table)),
        "session_id": text_array(columns.ids, table.rows),
        "query": named_array(columns.queries.texts, table.of_session("query")),
        "results": list_array(lengths, named_array(columns.items.texts, table.of_result("item"))),
        "positions": list_array(lengths, pa.array(table.of_result("position").astype(np.int32))),
        "ranks": list_array(lengths, pa.array(rank, mask=np.isnan(rank))),
        "click_weights": list_array(lengths, pa.array(table.weights)),
        "timestamp": pa.array(table.of_session("timestamp")),
        "user_id": named_array(columns.people.texts, table.of_session("user")),
        "release": named_array(columns.releases.texts, table.of_session("release")),
        "query_variants": pa.array(variants, pa.list_(pa.string())),
        "client_id": named_array(columns.people.texts, table.of_session("client")),
        "by_relevance": pa.array(table.of_session("by_relevance")),
    }
    return pa.record_batch([found[name] for name in schema.names], schema=schema)


def _sessions(file: Any) -> tuple[SessionTable, Any]:
    """Return all sessions of a file, and the number of the split of each, int8."""
    metadata = file.metadata
    builder = TableBuilder(metadata.num_rows, values_of(metadata, "results.list.element"))
    splits = Vocabulary(SPLITS)
    split_of = []
    for batch in file.iter_batches(batch_size=_ROWS):
        count = batch.num_rows
        at = {name: batch.column(name) for name in batch.schema.names}
        nobody = np.full(count, NOBODY, dtype=np.int32)
        split_of.append(numbered(splits, at["split"]).astype(np.int8))
        builder.add_columns(
            ids=texts_of(at["session_id"]),
            query=numbered(builder.queries, at["query"]),
            client=numbered(builder.people, at["client_id"]) if "client_id" in at else nobody,
            user=numbered(builder.people, at["user_id"]),
            release=numbered(builder.releases, at["release"]),
            timestamp=at["timestamp"].to_numpy(zero_copy_only=False).astype(np.int64),
            by_relevance=(
                at["by_relevance"].to_numpy(zero_copy_only=False).astype(bool)
                if "by_relevance" in at
                else np.ones(count, dtype=bool)
            ),
            variants=_variants(builder, at["query_variants"]),
            lengths=lengths_of(at["results"]),
            item=numbered(builder.items, at["results"].flatten()),
            position=at["positions"].flatten().to_numpy(zero_copy_only=False).astype(np.int32),
            rank=floats_of(at["ranks"].flatten()),
            weight=floats_of(at["click_weights"].flatten()),
        )
    return builder.table(), np.concatenate(split_of) if split_of else np.empty(0, dtype=np.int8)


def _variants(builder: TableBuilder, variants: pa.Array) -> Any:
    if len(variants.flatten()) == 0:
        return np.zeros(len(variants), dtype=np.int32)
    return builder.variant_codes(tuple(each) for each in variants.to_pylist())


def _items_schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([("object_id", pa.string()), ("variant", pa.int32()), ("part", pa.int32()), ("text", pa.string())])


def _items_table(items: ItemsSet, ids: list[str]) -> pa.Table:
    import pyarrow as pa

    rows = [
        (object_id, variant, part, text)
        for object_id in ids
        for variant, parts in enumerate(items.variants(object_id))
        for part, text in enumerate(parts)
    ]
    return pa.Table.from_arrays([list(column) for column in zip(*rows, strict=True)], schema=_items_schema())


def _items(path: Path) -> ItemsSet:
    import pyarrow.parquet as pq

    parts: dict[str, list[str]] = {}
    variants: dict[str, dict[int, list[str]]] = {}
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_ROWS, columns=["object_id", "variant", "text"]):
            for object_id, variant, text in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                if variant == 0:
                    parts.setdefault(object_id, []).append(text)
                else:
                    variants.setdefault(object_id, {}).setdefault(variant, []).append(text)
    return ItemsSet(parts, {key: list(each.values()) for key, each in variants.items()})
