"""Extracted sessions on disk: a Parquet file, written and read in pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estudio_core.clickstream.session_batch import BatchEvent, SessionBatch
from estudio_core.clickstream.sessions import SessionWithEvents
from estudio_core.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_ROW_GROUP = 50_000
_NAMES = ("session_id", "query", "created_at", "client_id", "visit_id", "user_id", "is_irrelevant", "is_refined")
_OF_EVENTS = ("result", "importance", "event_id", "event_type", "created_at")


def schema() -> pa.Schema:
    """Return the columns of a file. A list that is null is none at all: no score known, positions 0, 1, 2, ..."""
    import pyarrow as pa

    text, flag = pa.string(), pa.bool_()
    kinds = (text, text, pa.int64(), text, text, text, flag, flag)
    events = (pa.int32(), pa.float64(), text, text, pa.int64())
    return pa.schema(
        [
            *zip(_NAMES, kinds, strict=True),
            ("release", text),
            ("search_meta", text),
            ("results", pa.list_(text)),
            ("ranks", pa.list_(pa.float64())),
            ("positions", pa.list_(pa.int32())),
            *((f"events.{name}", pa.list_(kind)) for name, kind in zip(_OF_EVENTS, events, strict=True)),
        ]
    )


def values_of(metadata: Any, column: str) -> int:
    """Return how many values a column of a Parquet file has, those inside of lists counted one by one."""
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    columns = (group.column(place) for group in groups for place in range(group.num_columns))
    return sum(int(each.num_values) for each in columns if each.path_in_schema == column)


class SessionsWriter:
    """Writes batches into a file; use `writing`."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._batches: list[SessionBatch] = []
        self._count = 0

    def write(self, batch: SessionBatch) -> None:
        """Append a batch."""
        self._batches.append(batch)
        self._count += len(batch)
        if self._count >= _ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._batches:
            self._writer.write_batch(_record_batch(self._batches))
        self._batches, self._count = [], 0


@contextmanager
def writing(path: Path) -> Iterator[SessionsWriter]:
    """Yield what writes the file `path`."""
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema(), compression="zstd") as file:
        writer = SessionsWriter(file)
        yield writer
        writer.flush()


class StoredSessions:
    """The sessions of a file: as columns by `batches`, one by one by iteration, as often as is wanted.

    Args:
        path: Written by `writing`.

    Raises:
        DataError: there is no such file, or it is unreadable.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._path = path
        try:
            metadata = pq.read_metadata(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"No readable sessions in {path.name}: {error}. Run the extract step again.") from error

        self._count: int = metadata.num_rows
        self.shown = values_of(metadata, "results.list.element")
        """Shown results of all sessions, about: a session without any counts as one."""

    def __len__(self) -> int:
        """Return the number of sessions."""
        return self._count

    def batches(self, *names: str) -> Iterator[pa.RecordBatch]:
        """Yield the columns `names`, all by default, of some sessions after the other."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self._path) as file:
            yield from file.iter_batches(batch_size=_ROW_GROUP, columns=list(names) or None)

    def __iter__(self) -> Iterator[SessionWithEvents]:
        """Yield the sessions in order."""
        for batch in self.batches():
            yield from _session_batch(batch).sessions()


def _record_batch(batches: list[SessionBatch]) -> pa.RecordBatch:
    import pyarrow as pa

    def joined(name: str) -> list[Any]:
        return list(chain.from_iterable(getattr(batch, name) for batch in batches))

    of = schema()
    events: list[Any] = joined("events")
    values: dict[str, Any] = {name: joined(name) for name in (*_NAMES, "release", "results", "ranks", "positions")}
    values["search_meta"] = [json.dumps(each) if each else None for each in joined("search_meta")]
    for name in _OF_EVENTS:
        values[f"events.{name}"] = [each and [getattr(event, name) for event in each] for each in events]
    return pa.record_batch([pa.array(values[field.name], field.type) for field in of], schema=of)


def _session_batch(batch: pa.RecordBatch) -> SessionBatch:
    values: dict[str, list[Any]] = {name: batch.column(name).to_pylist() for name in batch.schema.names}
    metas = [each and json.loads(each) for each in values["search_meta"]]
    of_events = zip(*(values[f"events.{name}"] for name in _OF_EVENTS), strict=True)
    return SessionBatch(
        **{name: values[name] for name in (*_NAMES, "results", "ranks", "positions")},
        search_meta=metas,
        events=[
            [BatchEvent(on, worth, own, kind, at, None) for on, worth, own, kind, at in zip(*columns, strict=True)]
            if columns[0]
            else None
            for columns in of_events
        ],
    )
