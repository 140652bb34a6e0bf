"""Items are read in pages: what changes between them, and what the database of the items sees of it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from estudio_core.errors import SourceTimeoutError
from estudio_core.settings import get_settings
from estudio_core.sources import paging, pgsql_data_loader
from estudio_core.sources.data_loader import DataLoader, KeyRange
from estudio_core.sources.pgsql_text_loader import PgsqlTextLoader

START = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgsql_data_loader, "PAGE_ROWS", 4)
    monkeypatch.setattr(pgsql_data_loader, "_IDS_PER_PAGE", 4)


@pytest.fixture
def things(database_url: str, execute: Callable[..., None]) -> PgsqlTextLoader:
    """Thirty rows whose texts and times of change follow their keys."""
    execute(
        "CREATE TABLE things AS SELECT i AS id, 'text ' || i AS content,"
        " timestamptz '2024-01-01Z' + i / 3 * interval '1 h' AS at FROM generate_series(1, 30) AS i"
    )
    return PgsqlTextLoader(database_url, table_name="things", updated_at_column="at")


def ids(loader: DataLoader, bounds: KeyRange | None = None, batch_size: int = 2) -> list[str]:
    return [item.id for batch in loader.iter_items(bounds, batch_size) for item in batch.items]


def test_nothing_is_open_in_the_items_database_while_somebody_works_with_them(
    things: PgsqlTextLoader, database_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as witness:
        for batches in (things.iter_items(batch_size=2), things.iter_changed(START, 2), things.iter_ids()):
            for _ in batches:
                open_ = witness.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'estudio'"
                    " AND datname = current_database() AND xact_start IS NOT NULL"
                ).fetchone()
                assert open_ == (0,)


def test_reading_goes_on_behind_each_checkpoint(things: PgsqlTextLoader) -> None:
    all_ids = [str(i) for i in range(1, 31)]
    seen: list[str] = []
    for batch in things.iter_items(batch_size=3):
        seen += [item.id for item in batch.items]
        assert batch.checkpoint == seen[-1]
        assert seen + ids(things, KeyRange(after=batch.checkpoint)) == all_ids


def test_rows_of_one_key_stand_in_one_page_however_many(database_url: str, execute: Callable[..., None]) -> None:
    execute(
        "CREATE TABLE things AS SELECT key AS id, 'text ' || n AS content, timestamptz '2024-01-01Z' AS at"
        " FROM unnest(ARRAY['a', 'b', 'c', 'd'], ARRAY[1, 23, 3, 2]) AS k (key, rows), generate_series(1, rows) AS n"
    )
    loader = PgsqlTextLoader(database_url, table_name="things", updated_at_column="at")
    kept = [("a", "text 1"), ("b", "text 1"), ("c", "text 1"), ("d", "text 1")]
    for batches in (list(loader.iter_items(batch_size=1)), list(loader.iter_changed(START, 1))):
        assert [(item.id, item.data) for batch in batches for item in batch.items] == kept
        assert sum((Counter(batch.duplicates) for batch in batches), Counter()) == {"b": 22, "c": 2, "d": 1}
    assert list(loader.iter_ids()) == ["a", "b", "c", "d"]
    ranges = loader.key_ranges(5)
    assert [keys.count for keys in ranges] == [24, 5]
    assert [i for keys in ranges for i in ids(loader, keys)] == ["a", "b", "c", "d"]


def test_a_large_page_ends_early(things: PgsqlTextLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "_FETCHED", 2)
    monkeypatch.setattr(paging, "PAGE_BYTES", 12)
    sizes = []
    read = paging._page
    monkeypatch.setattr(paging, "_page", lambda *given: sizes.append(len((found := read(*given))[0])) or found)
    assert ids(things) == [str(i) for i in range(1, 31)]
    assert max(sizes[:-1]) == 2


def test_every_row_that_stays_is_read_once_while_others_come_go_and_change(
    things: PgsqlTextLoader, database_url: str
) -> None:
    stopped = threading.Event()

    def write() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            number = 0
            while not stopped.is_set():
                number += 1
                connection.execute("INSERT INTO things VALUES (%s, 'new', now())", (1000 + number,))
                connection.execute("DELETE FROM things WHERE id = %s", (1000 + number - 5,))
                connection.execute("UPDATE things SET content = 'changed', at = now() WHERE id = %s", (number % 20,))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            found = [int(i) for i in ids(things)]
            assert [i for i in found if i <= 30] == list(range(1, 31))
            assert len(set(found)) == len(found)
            changed = [int(item.id) for batch in things.iter_changed(START, 2) for item in batch.items]
            assert set(range(20, 31)) <= set(changed), "rows that nobody changed come whatever others do"
    finally:
        stopped.set()
        writer.join()


def test_changes_are_read_up_to_the_newest_at_the_beginning(things: PgsqlTextLoader, execute: Callable) -> None:
    seen = []
    for batch in things.iter_changed(START, 2):
        seen += [int(item.id) for item in batch.items]
        execute("UPDATE things SET at = now() + interval '1 day' WHERE id = 1")
    assert seen == list(range(1, 31))
    later = things.iter_changed(datetime.now(UTC) - timedelta(hours=1))
    assert [item.id for batch in later for item in batch.items] == ["1"]


def test_times_that_python_has_not_end_no_page(things: PgsqlTextLoader, execute: Callable[..., None]) -> None:
    execute("UPDATE things SET at = 'infinity' WHERE id > 12")
    found = [int(item.id) for batch in things.iter_changed(START, 2) for item in batch.items]
    assert found == list(range(1, 31))


def test_a_page_that_takes_too_long_names_what_mends_it(
    database_url: str, execute: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    execute("CREATE VIEW things AS SELECT 1 AS id, 'text'::text AS content FROM pg_sleep(5)")
    monkeypatch.setenv("ESTUDIO_SOURCE_TIMEOUT_S", "0.2")
    get_settings.cache_clear()
    loader = PgsqlTextLoader(database_url, table_name="things")
    try:
        with pytest.raises(SourceTimeoutError, match=r'takes more than 0.2 s.*COLLATE "C".*ESTUDIO_SOURCE_TIMEOUT_S'):
            list(loader.iter_items())
    finally:
        monkeypatch.undo()
        get_settings.cache_clear()


def test_rows_that_take_too_long_to_count_are_estimated_and_the_log_says_so(
    database_url: str, execute: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    execute("CREATE TABLE rows AS SELECT i AS id, 'text ' || i AS content FROM generate_series(1, 2000) AS i")
    execute("ALTER TABLE rows ADD PRIMARY KEY (id)")
    execute("ANALYZE rows")
    # Each row takes some tenths of a millisecond: a page is read at once, all of them are not.
    execute("CREATE VIEW things AS SELECT * FROM rows WHERE pg_sleep(0.0003) IS NOT NULL")
    monkeypatch.setattr(pgsql_data_loader, "PAGE_ROWS", 100)
    monkeypatch.setenv("ESTUDIO_SOURCE_TIMEOUT_S", "0.3")
    get_settings.cache_clear()
    loader = PgsqlTextLoader(database_url, table_name="things")
    try:
        assert 1_800 <= loader.total_count() <= 2_000
        assert "longer than 0.3 s: about 1,9" in caplog.text
        ranges = loader.key_ranges(20)
        assert len(ranges) == 20
        assert [int(i) for keys in ranges for i in ids(loader, keys, 100)] == list(range(1, 2001))
    finally:
        monkeypatch.undo()
        get_settings.cache_clear()
