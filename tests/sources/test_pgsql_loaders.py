"""The PostgreSQL loaders against a real server: keys, pages, bad rows, changes, processes."""

from __future__ import annotations

import json
import logging
import os
import uuid
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import Select, literal, select

from estudio_core.errors import ConfigurationError, DataError, SourceSchemaError
from estudio_core.sources.data_loader import DataLoader, KeyRange
from estudio_core.sources.item_meta import PgsqlFileMeta
from estudio_core.sources.pgsql_text_loader import PgsqlTextLoader
from estudio_core.sources.query_generator import QueryGenerator

from .conftest import ODD_KEYS


def metas(*ids: object) -> list[PgsqlFileMeta]:
    return [PgsqlFileMeta(object_id=object_id) for object_id in ids]


def ids_in(loader: DataLoader, key_range: KeyRange | None = None, batch_size: int = 2) -> list[str]:
    batches = list(loader.iter_items(key_range, batch_size))
    return [i for batch in batches for i in (*(item.id for item in batch.items), *batch.invalid)]


# --- by id -----------------------------------------------------------------------------------------


def test_items_come_in_the_order_asked_each_once(articles: str) -> None:
    found = PgsqlTextLoader(articles, table_name="articles").find_items(metas("100", 2, "1", "100"))
    assert [(item.id, item.data) for item in found.items] == [
        ("100", "Content 100"),
        ("2", "Content 2"),
        ("1", "Content 1"),
    ]


def test_missing_and_unusable_rows_are_reported_by_id_and_stop_no_other(articles: str, caplog) -> None:
    loader = PgsqlTextLoader(articles, table_name="articles")
    asked = metas("3", "5", "1", "4", "no number", "01", " 1", "99999999999999999999", "2\0")
    found = loader.find_items(asked)
    assert [item.id for item in found.items] == ["1"]
    assert found.missing == ["3", "no number", "01", " 1", "99999999999999999999", "2\0"]
    assert found.invalid == {"4": "'content' is NULL", "5": "'content' is blank"}
    with caplog.at_level(logging.WARNING):
        assert [item.id for item in loader.load_items(asked)] == ["1"]
    assert "'3', 'no number'" in caplog.text
    assert "4: 'content' is NULL" in caplog.text


def test_nothing_asked_is_nothing_loaded(articles: str) -> None:
    assert PgsqlTextLoader(articles, table_name="articles").find_items([]).items == []


def test_more_ids_than_one_query_takes(database_url: str, execute) -> None:
    execute("CREATE TABLE things AS SELECT i AS id, 'text ' || i AS content FROM generate_series(1, 6000) AS i")
    found = PgsqlTextLoader(database_url, table_name="things").find_items(metas(*range(6010, 0, -1)))
    assert [item.id for item in found.items] == [str(i) for i in range(6000, 0, -1)]
    assert len(found.missing) == 10


# --- keys ------------------------------------------------------------------------------------------


def test_odd_text_keys_are_found_and_harm_nothing(odd_keys: str) -> None:
    loader = PgsqlTextLoader(odd_keys, table_name="things")
    absent = ["'); DELETE FROM things; --", "' OR 1=1 --", "plain ", "", "\ud800"]
    found = loader.find_items(metas(*ODD_KEYS, *absent))
    assert {item.id: item.data for item in found.items} == {key: f"text of {key}" for key in ODD_KEYS}
    assert found.missing == absent
    assert loader.total_count() == len(ODD_KEYS)


@pytest.mark.parametrize("shards", [1, 2, 3, 7, len(ODD_KEYS), 1000])
def test_ranges_of_text_keys_are_disjoint_and_complete(odd_keys: str, shards: int) -> None:
    loader = PgsqlTextLoader(odd_keys, table_name="things")
    in_byte_order = sorted(ODD_KEYS, key=str.encode)
    assert ids_in(loader) == list(loader.iter_ids()) == in_byte_order
    ranges = [KeyRange(**json.loads(json.dumps(asdict(r)))) for r in loader.key_ranges(shards)]
    parts = [ids_in(loader, key_range, batch_size=3) for key_range in ranges]
    assert [i for part in parts for i in part] == in_byte_order
    assert [len(part) for part in parts] == [key_range.count for key_range in ranges]
    assert len(ranges) == min(shards, len(ODD_KEYS))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("key_type", "keys"),
    [
        ("int", ["-5", "0", "2", "10", "2147483647"]),
        ("smallint", ["-5", "0", "2", "10"]),
        ("bigint", ["-9223372036854775808", "9", "10", "9223372036854775807"]),
        ("uuid", sorted(str(uuid.UUID(int=i * 7**40)) for i in range(9))),
        ("varchar(10)", ["10", "9", "B", "a", "é"]),
        ("char(4)", ["B", "a", "abcd"]),
        ("mood", ["glad", "sad"]),
    ],
)
def test_ranges_of_each_key_type(database_url: str, execute, key_type: str, keys: list[str]) -> None:
    execute("CREATE TYPE mood AS ENUM ('sad', 'glad')")
    execute(f"CREATE TABLE things (id {key_type} PRIMARY KEY, content text)")
    execute(f"INSERT INTO things VALUES (%s::{key_type}, 'text')", *((key,) for key in reversed(keys)))
    loader = PgsqlTextLoader(database_url, table_name="things")
    assert ids_in(loader) == keys
    assert [i for r in loader.key_ranges(3) for i in ids_in(loader, r)] == keys
    found = loader.find_items(metas(*keys, "no such key"))
    assert [item.id for item in found.items] == keys
    assert found.missing == ["no such key"]


def test_rows_outside_the_keys_of_planning_time_fall_into_a_range(own_articles: str, execute) -> None:
    loader = PgsqlTextLoader(own_articles, table_name="articles")
    ranges = loader.key_ranges(3)
    assert [r.count for r in ranges] == [2, 2, 3]
    execute("INSERT INTO articles (id, content) VALUES (-1, 'early'), (3, 'between'), (1000, 'late')")
    assert [i for r in ranges for i in ids_in(loader, r)] == ["-1", "1", "2", "3", "4", "5", "10", "11", "100", "1000"]


def test_an_empty_table_has_no_ranges_and_no_items(database_url: str, execute) -> None:
    execute("CREATE TABLE things (id int PRIMARY KEY, content text)")
    loader = PgsqlTextLoader(database_url, table_name="things")
    assert loader.key_ranges(4) == []
    assert list(loader.iter_items()) == []
    assert loader.total_count() == 0


@pytest.mark.parametrize("key_type", ["numeric", "timestamptz", "double precision", "jsonb"])
def test_other_types_are_refused_as_keys(database_url: str, execute, key_type: str) -> None:
    execute(f"CREATE TABLE things (id {key_type}, content text)")
    with pytest.raises(SourceSchemaError, match=r"id column 'id' has the type .*integers, uuid or text"):
        PgsqlTextLoader(database_url, table_name="things").check()


def test_a_range_of_another_source_is_refused(articles: str) -> None:
    with pytest.raises(SourceSchemaError, match="'abc' is no key of the type integer"):
        list(PgsqlTextLoader(articles, table_name="articles").iter_items(KeyRange("abc", None)))


def test_an_iteration_sees_one_moment(own_articles: str, execute) -> None:
    batches = PgsqlTextLoader(own_articles, table_name="articles").iter_items(batch_size=2)
    first = next(batches)
    execute("DELETE FROM articles WHERE id >= 10")
    rest = [item.id for batch in batches for item in batch.items]
    assert [item.id for item in first.items] + rest == ["1", "2", "10", "11", "100"]


def test_an_abandoned_iteration_gives_its_connection_back(articles: str) -> None:
    loader = PgsqlTextLoader(articles, table_name="articles")
    for _ in range(12):  # more than the pool holds
        batches = loader.iter_items(batch_size=1)
        next(batches)
        batches.close()
    assert loader.total_count() == 7


# --- duplicate and absent ids ----------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_rows_of_an_id_one_is_used_and_the_others_are_named(database_url: str, execute, order: int) -> None:
    rows = [("a", "1"), ("b", "2"), ("b", "1"), ("c", "1"), ("d", "3"), ("d", "2"), ("d", "5"), ("e", "1"), ("e", "1")]
    execute("CREATE TABLE things (id text, content text, at timestamptz DEFAULT '2024-01-01')")
    execute("INSERT INTO things VALUES (%s, %s)", *rows[::order])
    loader = PgsqlTextLoader(database_url, table_name="things", updated_at_column="at")
    kept = [("a", "1"), ("b", "1"), ("c", "1"), ("d", "2"), ("e", "1")]
    left_out = {"b": 1, "d": 2, "e": 1}
    assert list(loader.iter_ids()) == ["a", "b", "c", "d", "e"]
    found = loader.find_items(metas("e", "a", "b", "d", "c"))
    assert sorted((item.id, item.data) for item in found.items) == kept
    assert found.duplicates == left_out
    since = datetime(2020, 1, 1, tzinfo=UTC)
    for batch_size in (1, 2, 3, 1000):
        for shards in (1, 2, 3, 7, 9):
            ranges = loader.key_ranges(shards)
            assert sum(keys.count for keys in ranges) == len(rows)
            batches = [batch for keys in ranges for batch in loader.iter_items(keys, batch_size)]
            assert [(item.id, item.data) for batch in batches for item in batch.items] == kept
            assert {i: n for batch in batches for i, n in batch.duplicates.items()} == left_out
            assert max(len(batch.items) for batch in batches) <= batch_size
        changed = list(loader.iter_changed(since, batch_size))
        assert [(item.id, item.data) for batch in changed for item in batch.items] == kept


def test_rows_without_an_id_are_counted_once_and_stop_no_other(database_url: str, execute) -> None:
    execute(
        "CREATE TABLE things (id int, content text, at timestamptz DEFAULT now());"
        " INSERT INTO things VALUES (1, 'x'), (NULL, 'y'), (2, 'z'), (NULL, 'y')"
    )
    loader = PgsqlTextLoader(database_url, table_name="things", updated_at_column="at")
    ranges = loader.key_ranges(2)
    assert [keys.count for keys in ranges] == [1, 1]
    for read in ([None], ranges):
        batches = [batch for keys in read for batch in loader.iter_items(keys)]
        assert [item.id for batch in batches for item in batch.items] == ["1", "2"]
        assert [batch.invalid for batch in batches if batch.invalid] == [{"(no id)": "2 rows have no 'id'"}]
    assert list(loader.iter_ids()) == ["1", "2"]
    changed = loader.iter_changed(datetime(2020, 1, 1, tzinfo=UTC))
    assert [item.id for batch in changed for item in batch.items] == ["1", "2"]


# --- schema errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table_name": "artikles"}, "no table 'artikles' at .*Did you mean 'articles'"),
        ({"table_name": "articles", "text_column": "contents"}, "no column 'contents'. Did you mean 'content'"),
        ({"table_name": "articles", "id_column": "idd"}, "no column 'idd'. Did you mean 'id'"),
        ({"table_name": "articles", "payload_columns": ["prize"]}, "no column 'prize'"),
        ({"table_name": "articles", "updated_at_column": "changed"}, "no column 'changed'"),
        ({"table_name": "articles", "updated_at_column": "title"}, "'title' is no timestamp"),
        ({"table_name": "articles", "schema": "shop"}, "no schema 'shop'.*Legal names: .*'public'"),
        ({"table_name": "public.articles"}, r"PostgresItems\(table='articles', schema_name='public'\)"),
        ({"table_name": 'articles"; DROP TABLE articles; --'}, "no table"),
        ({"table_name": "articles", "text_column": 'content" FROM articles; DROP TABLE articles; --'}, "no column"),
        ({"table_name": "articles", "id_column": "id; DROP TABLE articles"}, "no column"),
    ],
)
def test_a_table_or_column_that_does_not_exist_is_named(articles: str, arguments: dict, message: str) -> None:
    loader = PgsqlTextLoader(articles, **arguments)
    with pytest.raises(SourceSchemaError, match=f"(?s){message}"):
        loader.check()
    with pytest.raises(SourceSchemaError, match=f"(?s){message}"):
        list(loader.iter_items())
    assert PgsqlTextLoader(articles, table_name="articles").total_count() == 7


def test_names_that_need_quoting_are_quoted(database_url: str, execute) -> None:
    execute('''
        CREATE SCHEMA "my ""shop""";
        CREATE TABLE "my ""shop"""."the ""things""; --%"
            ("the id%s" int PRIMARY KEY, "Text (col) :x" text, "p%(a)s" int);
        INSERT INTO "my ""shop"""."the ""things""; --%" VALUES (1, 'one', 5), (2, 'two', 6)
    ''')
    loader = PgsqlTextLoader(
        database_url,
        table_name='the "things"; --%',
        schema='my "shop"',
        id_column="the id%s",
        text_column="Text (col) :x",
        payload_columns=["p%(a)s"],
    )
    (item,) = loader.load_items(metas("2"))
    assert (item.data, item.meta.payload) == ("two", {"p%(a)s": 6})
    assert [i for r in loader.key_ranges(2) for i in ids_in(loader, r)] == ["1", "2"]


def test_check_sees_a_column_that_went_away(own_articles: str, execute) -> None:
    loader = PgsqlTextLoader(own_articles, table_name="articles")
    loader.check()
    execute("ALTER TABLE articles DROP COLUMN content")
    with pytest.raises(SourceSchemaError, match="content"):
        loader.total_count() or list(loader.iter_items())
    with pytest.raises(SourceSchemaError, match="no column 'content'"):
        loader.check()


def test_a_table_without_permission_is_named(own_articles: str, execute) -> None:
    role = f"reader_{uuid.uuid4().hex[:8]}"
    execute(f"CREATE ROLE {role} LOGIN")
    try:
        loader = PgsqlTextLoader(own_articles.replace("postgres:@", f"{role}:@"), table_name="articles")
        with pytest.raises(ConfigurationError, match=r"permission denied for table articles.*Grant"):
            loader.check()
    finally:
        execute(f"DROP ROLE {role}")


def test_views_are_sources_too(own_articles: str, execute) -> None:
    execute("CREATE VIEW good_articles AS SELECT id, content FROM articles WHERE id > 5")
    execute("CREATE MATERIALIZED VIEW kept_articles AS SELECT id, content FROM articles WHERE id > 10")
    assert ids_in(PgsqlTextLoader(own_articles, table_name="good_articles")) == ["10", "11", "100"]
    assert ids_in(PgsqlTextLoader(own_articles, table_name="kept_articles")) == ["11", "100"]


class DividesByZero(QueryGenerator):
    """Counts how often it is asked."""

    counts = 0

    def count(self) -> Select:
        type(self).counts += 1
        return select(literal(1) / (self.table.c.id - self.table.c.id))


def test_a_data_error_is_not_retried(articles: str) -> None:
    loader = PgsqlTextLoader(articles, DividesByZero, table_name="articles")
    loader.check()
    with pytest.raises(DataError, match=r"query for items fails.*division by zero"):
        loader.total_count()
    assert DividesByZero.counts == 1


# --- changes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("column_type", ["timestamptz", "timestamp"])
def test_changed_items_come_oldest_first_with_a_watermark(own_articles: str, execute, column_type: str) -> None:
    execute(f"ALTER TABLE articles ALTER updated_at TYPE {column_type} USING updated_at AT TIME ZONE 'UTC'")
    execute("""
        DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Tokyo''', current_database()); END $$
    """)
    execute("UPDATE articles SET updated_at = NULL WHERE id = 11")
    execute("SET timezone = 'UTC'; UPDATE articles SET updated_at = '2026-01-01 05:00+00' WHERE id = 10")
    loader = PgsqlTextLoader(own_articles, table_name="articles", updated_at_column="updated_at")
    since = datetime(2026, 1, 1, 2, tzinfo=UTC)
    batches = list(loader.iter_changed(since, batch_size=2))
    assert [[*(i.id for i in b.items), *b.invalid] for b in batches] == [["4", "5"], ["10", "100"]]
    assert [b.watermark for b in batches] == [
        datetime(2026, 1, 1, 5, tzinfo=UTC),
        datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=100),
    ]
    assert list(loader.iter_changed(batches[-1].watermark)) == []


def test_changes_need_a_column_and_a_time_zone(articles: str) -> None:
    loader = PgsqlTextLoader(articles, table_name="articles")
    assert not loader.tracks_changes
    with pytest.raises(ConfigurationError, match="updated_at_column="):
        next(loader.iter_changed(datetime(2026, 1, 1, tzinfo=UTC)))
    loader = PgsqlTextLoader(articles, table_name="articles", updated_at_column="updated_at")
    assert loader.tracks_changes
    with pytest.raises(ConfigurationError, match="no time zone"):
        next(loader.iter_changed(datetime(2026, 1, 1)))


# --- processes -------------------------------------------------------------------------------------


def test_a_forked_process_reads_through_its_own_connection(own_articles: str, execute) -> None:
    execute("CREATE VIEW backend AS SELECT pg_backend_pid() AS id, 'text' AS content")
    loader = PgsqlTextLoader(own_articles, table_name="backend")
    loader.check()  # looks up the view through a connection of its own
    _, (server_process,) = list(loader.iter_ids()), loader.iter_ids()
    child = os.fork()
    if child == 0:
        (other,) = loader.iter_ids()
        loader.close()
        os._exit(0 if other != server_process else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert list(loader.iter_ids()) == [server_process]


def test_a_closed_loader_leaves_no_connection_and_opens_new_ones(own_articles: str) -> None:
    loader = PgsqlTextLoader(own_articles, table_name="articles")
    assert loader.total_count() == 7
    loader.close()
    with psycopg.connect(own_articles) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'estudio' AND datname = current_database()"
        ).fetchone()
    assert row == (0,)
    assert loader.total_count() == 7
