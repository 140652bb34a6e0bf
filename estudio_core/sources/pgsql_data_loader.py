"""Items from PostgreSQL: by id, in ranges of keys, by time of change."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, cast

from sqlalchemy import Connection, Engine, Select, func, select

from estudio_core.errors import ConfigurationError, SourceSchemaError
from estudio_core.sources.change_queue import ChangeQueue, queue_end_sql, queue_sql
from estudio_core.sources.columns import BYTEA, Column, item_column, payload_column, type_categories, untranslated
from estudio_core.sources.data_loader import DataLoader, DownloadedItem, KeyRange, LoadResult
from estudio_core.sources.generator_factory import GeneratorArgument, generator_factory
from estudio_core.sources.item_meta import ItemMeta, PgsqlFileMeta
from estudio_core.sources.paging import PAGE_ROWS, Row, count_rows, key_ranges, read_pages
from estudio_core.sources.query_generator import QueryGenerator
from estudio_core.sources.source_database import SourceDatabase
from estudio_core.sources.table_layout import layout, tables_of

NO_ID = "(no id)"
"""Stands for all rows without an id among items that cannot be used."""
_KEY = "key of the item"
_IDS_PER_QUERY = 5000
_IDS_PER_PAGE = 100_000
_TIMESTAMP_OIDS = {1114, 1184}  # timestamp, timestamp with time zone


class PgsqlDataLoader(DataLoader):
    """Base of the PostgreSQL loaders: a subclass says which columns make an item, and how.

    Args:
        connection_string: URL of the database. Without it and `connection_id`: the database of an instance given as
            `query_generator`, else Estudio's own.
        query_generator: `QueryGenerator` for one table; a subclass, an instance, or a callable from an engine to one.
        table_name: Table, view or materialised view; needed unless the generator knows its own.
        id_column: Key: integer, UUID or text, unique; of several rows of a key the first by content is used. None: the
            generator's, which is `id` unless it says otherwise.
        schema: Schema of the table; None: the search path.
        payload_columns: Columns that go into `meta.payload` as JSON values.
        connection_id: Airflow connection, in place of `connection_string`.
        updated_at_column: Timestamp of the last change, for `iter_changed`; without time zone it is read as UTC.
        change_queue: Table of changed ids beside the items, which a trigger feeds: see `change_queue_sql`.
    """

    item_meta_cls: ClassVar[type[ItemMeta]] = PgsqlFileMeta

    def __init__(
        self,
        connection_string: str | None = None,
        query_generator: GeneratorArgument = QueryGenerator,
        *,
        table_name: str | None = None,
        id_column: str | None = None,
        schema: str | None = None,
        payload_columns: Sequence[str] = (),
        connection_id: str | None = None,
        updated_at_column: str | None = None,
        change_queue: str | None = None,
    ) -> None:
        if isinstance(payload_columns, str):
            raise ConfigurationError(f"payload_columns={payload_columns!r} is one text: give a list of column names.")
        if isinstance(query_generator, QueryGenerator) and not connection_string and not connection_id:
            connection_string = query_generator.engine.url.render_as_string(hide_password=False)
        self.payload_columns = tuple(payload_columns)
        self.updated_at_column = updated_at_column
        self.tracks_changes = updated_at_column is not None
        self._make_generator = generator_factory(query_generator, table_name, id_column, schema)
        self._database = SourceDatabase(connection_string, connection_id, schema)
        self._schema = schema
        self.change_queue = ChangeQueue(self._database, change_queue, schema) if change_queue else None
        self._bound: tuple[Engine, QueryGenerator] | None = None
        self._item: list[Column] = []
        self._payload: list[Column] = []

    @property
    @abstractmethod
    def item_columns(self) -> tuple[str, ...]:
        """Columns from which `to_item` makes an item."""

    @abstractmethod
    def to_item(self, row: Row) -> Any:
        """Return the data of an item.

        Raises:
            ValueError: the row has none; the message is the reason.
        """

    def find_items(self, metas: Sequence[ItemMeta]) -> LoadResult:
        """Load the items of `metas` in their order, each id once. Raises: as `DataLoader.find_items`."""
        wanted: dict[str, ItemMeta] = {}
        for meta in metas:
            wanted.setdefault(meta.id, meta)
        if not wanted:
            return LoadResult()
        rows, twice = self._database.read(lambda connection: self._rows_by_id(connection, list(wanted)))
        result = self._result(((i, rows[i]) for i in wanted if i in rows), twice, wanted)
        result.missing.extend(i for i in wanted if i not in rows)
        return result

    def iter_items(self, key_range: KeyRange | None = None, batch_size: int = 1000) -> Iterator[LoadResult]:
        """Yield all items of a range, page by page. Raises: as `DataLoader.find_items`."""
        bounds = key_range or KeyRange()
        for page in self._in_key_order(bounds, max(PAGE_ROWS, batch_size)):
            for rows, twice in _batches(page, self._ready(), batch_size):
                yield self._result(rows, twice, checkpoint=self._checkpoint(rows))
        if bounds.until is None and (without := self._database.read(self._without_id)):
            yield LoadResult(invalid={NO_ID: f"{without} rows have no {self._ready().id_column!r}"})

    def first_items(self, rows: int) -> LoadResult:
        """Return the items of the first rows in key order, and read no others. Raises: as `DataLoader.find_items`."""
        # One more: the rows of the last key of a page may go on in the next one, which tells that they do not.
        page = next(self._in_key_order(KeyRange(), rows + 1), [])
        batches = [self._result(*batch) for batch in _batches(page, self._ready(), max(1, len(page)))]
        return batches[0] if batches else LoadResult()

    def iter_ids(self) -> Iterator[str]:
        """Yield the ids of all rows in key order, those of unusable items included."""
        for page in self._in_key_order(KeyRange(), _IDS_PER_PAGE, ids_only=True):
            yield from dict.fromkeys(self._ready().key_type.format(row[_KEY]) for row in page)

    def iter_changed(self, since: datetime, batch_size: int = 1000) -> Iterator[LoadResult]:
        """Yield the items changed after `since`, oldest change first; rows without a time of change never come.

        What is changed again after this began may be left to the next call.

        `watermark` of each result is the `since` to go on from. A transaction that commits late may carry an earlier
        time: subtract the longest one that can happen, and skip what did not change.

        Raises:
            ConfigurationError: there is no `updated_at_column`, or `since` has no time zone.
        """
        column = self.updated_at_column
        if column is None:
            raise ConfigurationError(
                "The loader knows no time of change: give it updated_at_column='the timestamp column', "
                "or compare all items with iter_items()."
            )
        if since.tzinfo is None:
            raise ConfigurationError(f"since={since.isoformat()} has no time zone. Write datetime(…, tzinfo=UTC).")
        newest = self._database.read(lambda connection: connection.scalar(self._ready().newest_change(column)))
        if newest is None:
            return
        until = newest if isinstance(newest, str) else _aware(newest)

        def query(behind: Row | None) -> Select[Any]:
            generator = self._ready()
            if behind is None:
                return self._selected(generator.changed(column, since, until=until), self._read, column)
            at = behind[column]
            begin = at if isinstance(at, str) else _aware(at)
            assert begin is not None
            key = self._resumed(behind)
            return self._selected(generator.changed(column, begin, key, until), self._read, column)

        for page in read_pages(self._database, query, lambda row: (row[column], row[_KEY]), max(PAGE_ROWS, batch_size)):
            for rows, twice in _batches(page, self._ready(), batch_size):
                yield self._result(rows, twice, watermark=_aware(rows[-1][1][column]))

    def clock(self) -> datetime:
        """Return the time by the clock of the database."""

        def now(connection: Connection) -> datetime:
            found: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
            return found

        return self._database.read(now)

    @property
    def fingerprint(self) -> str:
        """Database, tables as the catalog has them, columns, and the plain options of loader and query generator."""
        generator = self._database.read(lambda _: self._ready())
        tables = tables_of(generator.rows) | {(self._schema, generator.table_name)}
        options = sorted((n, v) for n, v in vars(self).items() if n[0] != "_" and isinstance(v, str | tuple | None))
        return repr(
            (
                self._database.identity,
                self._schema,
                type(self).__qualname__,
                type(generator).__qualname__,
                generator.table_name,
                generator.id_column,
                self._columns,
                options,
                self._database.read(lambda connection: layout(connection, tables)),
            )
        )

    def unfed(self) -> list[str]:
        """Return the tables whose changes nothing queues, where there is a queue: see `ChangeQueue.unfed`."""
        if self.change_queue is None:
            return []
        return self.change_queue.unfed(self._database.read(lambda _: self._ready()).table_name)

    def change_queue_sql(self, *, drop: bool = False) -> str:
        """Return the SQL that creates the queue and the triggers on the table which feed it, or that drops both.

        Raises:
            ConfigurationError: the loader was given no `change_queue`.
            SourceSchemaError: the items are no table.
        """
        if self.change_queue is None:
            raise ConfigurationError(
                "The loader has no queue: name one, as PostgresItems(..., change_queue='product_changes')."
            )
        generator = self._database.read(lambda _: self._ready())
        if drop:
            return queue_end_sql(self._database, generator.table_name, self.change_queue.name, self._schema)
        return queue_sql(
            self._database, generator.table_name, generator.id_column, self.change_queue.name, self._schema
        )

    def key_ranges(self, shards: int) -> list[KeyRange]:
        """Divide the keys into at most `shards` ranges whose counts differ by one at most.

        The first range has no lower and the last no upper bound, so that rows added later are in one of them.
        An empty source has no ranges.

        Raises: as `DataLoader.find_items`.
        """
        if shards < 1:
            raise ConfigurationError(f"shards={shards}: give 1 or more.")
        return key_ranges(self._database, self._ready, shards)

    def total_count(self) -> int:
        """Return the number of rows that have a key; what the planner estimates where counting takes too long."""
        return count_rows(self._database, self._ready)

    def check(self) -> None:
        """Look up table and columns anew; no row is read. Raises: as `DataLoader.check`."""
        self._bound = None
        self._database.read(lambda _: self._ready())

    def close(self) -> None:
        """Close the connections of this process; the next use opens new ones."""
        self._bound = None
        self._database.close()

    @property
    def _columns(self) -> tuple[str, ...]:
        return (*self.item_columns, *self.payload_columns)

    @property
    def _read(self) -> list[Column]:
        return [*self._item, *self._payload]

    def _ready(self) -> QueryGenerator:
        """Return the generator of this process, its columns checked."""
        engine = self._database.engine
        if self._bound is None or self._bound[0] is not engine:
            generator = self._make_generator(engine)
            self._check_columns(generator)
            self._bound = engine, generator
        return self._bound[1]

    def _check_columns(self, generator: QueryGenerator) -> None:
        changed_at = self.updated_at_column
        generator.require([generator.id_column, *self._columns, *([changed_at] if changed_at else [])])
        _ = generator.key_type
        types = generator.column_types
        binary = [name for name in self.payload_columns if types[name] == BYTEA]
        if binary:
            raise SourceSchemaError(f"Payload columns hold JSON values; {binary} are bytea. Leave them out.")
        if changed_at and types[changed_at] not in _TIMESTAMP_OIDS:
            raise SourceSchemaError(f"updated_at_column={changed_at!r} is no timestamp: choose one that is.")
        with generator.engine.connect() as connection:
            categories = type_categories(connection, {name: types[name] for name in self.item_columns})
        self._item = [
            untranslated(item_column(name, types[name], categories[name]), types[name], generator.encoding)
            for name in dict.fromkeys(self.item_columns)
        ]
        self._payload = [
            untranslated(payload_column(name, types[name], place), types[name], generator.encoding)
            for place, name in enumerate(dict.fromkeys(self.payload_columns))
        ]

    def _rows_by_id(self, connection: Connection, ids: list[str]) -> tuple[dict[str, Row], dict[str, int]]:
        """Return a row for each id that there is, and how many others of that id were left out."""
        generator = self._ready()
        key_type = generator.key_type
        keys = [key for item_id in ids if (key := key_type.parse(item_id)) is not None]
        found: dict[str, Row] = {}
        twice: dict[str, int] = {}
        wanted = set(ids)
        for start in range(0, len(keys), _IDS_PER_QUERY):
            rows = generator.fetch_all(keys[start : start + _IDS_PER_QUERY]).subquery("found")
            names = list(dict.fromkeys((generator.id_column, *self._columns)))
            absent = [name for name in names if name not in rows.c]
            if absent:
                raise SourceSchemaError(
                    f"{type(generator).__name__}.fetch_all() selects no {absent}, which all() has. "
                    "Select the same columns in both, or override all() alone."
                )
            key = key_type.selected(rows.c[generator.id_column])
            selected = [key.label(_KEY), *(column.selected(rows.c) for column in self._read)]
            for row in connection.execute(select(*selected)).mappings():
                item_id = key_type.format(row[_KEY])
                if item_id in found:
                    found[item_id] = min(found[item_id], cast(Row, row), key=_content)
                    twice[item_id] = twice.get(item_id, 0) + 1
                elif item_id in wanted:
                    found[item_id] = cast(Row, row)
        return found, twice

    def _in_key_order(self, bounds: KeyRange, page_rows: int, *, ids_only: bool = False) -> Iterator[list[Row]]:
        """Yield pages of the rows of a range."""

        def query(behind: Row | None) -> Select[Any]:
            after = bounds.after if behind is None else self._resumed(behind)
            generator = self._ready()
            return self._selected(generator.after(after, until=bounds.until), () if ids_only else self._read)

        return read_pages(self._database, query, lambda row: row[_KEY], page_rows)

    def _selected(self, query: Select[Any], columns: Iterable[Column], *further: str) -> Select[Any]:
        """Return a query of `rows` with the key and these columns alone."""
        given = query.selected_columns
        generator = self._ready()
        key = generator.key_type.selected(given[generator.id_column])
        return query.with_only_columns(
            key.label(_KEY), *(column.selected(given) for column in columns), *(given[name] for name in further)
        )

    def _resumed(self, row: Row) -> str | bytes:
        """Return the key of a row as a query begins behind it."""
        key = row[_KEY]
        return key if isinstance(key, bytes) else self._ready().key_type.format(key)

    def _checkpoint(self, rows: Sequence[tuple[str, Row]]) -> str | None:
        item_id, row = rows[-1]
        return None if self._ready().key_type.fault(row[_KEY]) else item_id

    def _without_id(self, connection: Connection) -> int:
        generator = self._ready()
        rows = generator.rows
        counted = select(func.count()).select_from(rows).where(rows.c[generator.id_column].is_(None))
        return int(connection.execute(counted).scalar_one())

    def _result(
        self,
        rows: Iterable[tuple[str, Row]],
        duplicates: dict[str, int],
        metas: Mapping[str, ItemMeta] | None = None,
        watermark: datetime | None = None,
        checkpoint: str | None = None,
    ) -> LoadResult:
        result = LoadResult(watermark=watermark, duplicates=duplicates, checkpoint=checkpoint)
        key_type = self._ready().key_type
        for item_id, row in rows:
            given = None if metas is None else metas[item_id]
            if fault := key_type.fault(row[_KEY]):
                result.invalid[item_id] = f"its id {fault}"
                continue
            try:
                data = self.to_item({column.name: column.read(row) for column in self._item})
                payload = {column.name: column.read(row) for column in self._payload} if self._payload else None
                if given is None:
                    meta = self.item_meta_cls(object_id=item_id, payload=payload)
                elif payload is None:
                    meta = given
                else:
                    meta = given.model_copy(update={"payload": (given.payload or {}) | payload})
            except ValueError as reason:
                result.invalid[item_id] = str(reason)
            else:
                result.items.append(DownloadedItem(item_id, data, meta))
        return result


def _aware(time: Any) -> datetime | None:
    """Return the time with a time zone; None for one that Python has not, such as `infinity`."""
    if not isinstance(time, datetime):
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _content(row: Row) -> str:
    """Return the values of a row as a text to order by: which row of an id is used depends on nothing else."""
    return repr(tuple(row.values()))


def _batches(
    page: Sequence[Row], generator: QueryGenerator, batch_size: int
) -> Iterator[tuple[list[tuple[str, Row]], dict[str, int]]]:
    """Yield rows with their ids, `batch_size` at a time, and by id how many rows of the same id were left out.

    Of rows of one id, which follow each other, the first by content stays, as in `_rows_by_id`.
    """
    rows: list[tuple[str, Row]] = []
    twice: dict[str, int] = {}
    for row in page:
        item_id = generator.key_type.format(row[_KEY])
        if rows and rows[-1][0] == item_id:
            rows[-1] = item_id, min(rows[-1][1], row, key=_content)
            twice[item_id] = twice.get(item_id, 0) + 1
            continue
        if len(rows) == batch_size:
            yield rows, twice
            rows, twice = [], {}
        rows.append((item_id, row))
    if rows:
        yield rows, twice
