"""What the PostgreSQL loaders make of a row: texts, dicts of texts, JSON fields, payloads."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, event

from estudio_core.errors import ConfigurationError, SourceSchemaError
from estudio_core.sources.item_meta import PgsqlFileMeta
from estudio_core.sources.pgsql_jsonb_loader import PgsqlJSONBLoader
from estudio_core.sources.pgsql_multi_text_column_loader import PgsqlMultiTextColumnLoader
from estudio_core.sources.pgsql_text_loader import PgsqlTextLoader


def metas(*ids: object) -> list[PgsqlFileMeta]:
    return [PgsqlFileMeta(object_id=object_id) for object_id in ids]


def test_payload_columns_become_json_values(database_url: str, execute) -> None:
    execute("""
        CREATE TABLE things (
            id int PRIMARY KEY, content text, price numeric, stock numeric, rating real, sold boolean, day date,
            at timestamptz, tags text[], sizes numeric[], attributes jsonb, code uuid, span interval, wrong float8,
            colour text, photo bytea
        );
        INSERT INTO things VALUES (
            1, 'x', 19.90, 3, 4.5, true, '2026-02-03', '2026-02-03 10:00+02', ARRAY['a', NULL], ARRAY[1.5, 2],
            '{"deep": [1, {"x": null}]}', '00000000-0000-0000-0000-000000000007', '1 hour', 'NaN', NULL, 'x'
        )
    """)
    expected = {
        "price": 19.9, "stock": 3, "rating": 4.5, "sold": True, "day": "2026-02-03",
        "at": "2026-02-03T08:00:00+00:00", "tags": ["a", None], "sizes": [1.5, 2],
        "attributes": {"deep": [1, {"x": None}]}, "code": "00000000-0000-0000-0000-000000000007", "span": "01:00:00",
        "wrong": "NaN", "colour": None,
    }  # fmt: skip
    loader = PgsqlTextLoader(database_url, table_name="things", payload_columns=tuple(expected))
    (item,) = loader.load_items([PgsqlFileMeta(object_id=1, payload={"shelf": "A", "stock": 0})])
    assert item.meta.payload == expected | {"shelf": "A"}
    assert json.loads(json.dumps(item.meta.payload)) == item.meta.payload
    assert isinstance(item.meta.payload["stock"], int)
    with pytest.raises(SourceSchemaError, match=r"\['photo'\] are bytea"):
        PgsqlTextLoader(database_url, table_name="things", payload_columns=["photo"]).check()


def test_several_text_columns_make_a_dict(articles: str) -> None:
    loader = PgsqlMultiTextColumnLoader(articles, table_name="articles", text_columns=["title", "content"])
    found = loader.find_items(metas("1", "4", "3"))
    assert [item.data for item in found.items] == [
        {"title": "Title 1", "content": "Content 1"},
        {"title": "Title 4", "content": ""},
    ]
    assert [item.data for item in loader.load_items(metas("1"))] == [{"title": "Title 1", "content": "Content 1"}]
    only_content = PgsqlMultiTextColumnLoader(articles, table_name="articles", text_columns=["content", "author_email"])
    assert only_content.find_items(metas("4")).invalid == {"4": "all of ['content', 'author_email'] are NULL or blank"}


@pytest.mark.parametrize("wrong", [(), "title"])
def test_text_columns_have_to_be_a_list(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="text_columns="):
        PgsqlMultiTextColumnLoader(table_name="articles", text_columns=wrong)


@pytest.mark.parametrize("column_type", ["jsonb", "json"])
def test_fields_of_a_json_column_make_an_item(database_url: str, execute, column_type: str) -> None:
    execute(f"""
        CREATE TABLE things (id int PRIMARY KEY, jsonb_data {column_type});
        INSERT INTO things VALUES
            (1, '{{"b": 1, "a": "x", "c": [2]}}'), (2, '{{"a": "y"}}'), (3, NULL), (4, '[1]'),
            (5, '{{"z": 1}}'), (6, 'null')
    """)
    found = PgsqlJSONBLoader(database_url, table_name="things", fields_to_keep=["a", "b"]).find_items(
        metas(*range(1, 7))
    )
    assert [list(item.data.items()) for item in found.items] == [[("a", "x"), ("b", 1)], [("a", "y")]]
    assert found.invalid["3"] == "'jsonb_data' is NULL"
    assert found.invalid["4"] == "'jsonb_data' is list, not a JSON object"
    assert found.invalid["5"] == "'jsonb_data' has none of the fields ['a', 'b']"
    everything = PgsqlJSONBLoader(database_url, table_name="things")
    assert everything.load_items(metas("1"))[0].data == {"a": "x", "b": 1, "c": [2]}
    assert [item.data for item in everything.load_items(metas("2"))] == [{"a": "y"}]


def test_what_is_read_and_where_is_in_the_fingerprint(database_url: str, execute) -> None:
    for schema in ("public", "other"):
        execute(f"CREATE SCHEMA IF NOT EXISTS {schema}; CREATE TABLE {schema}.things (id int, jsonb_data jsonb)")
    given: list[dict[str, Any]] = [{}, {"fields_to_keep": ["a"]}, {"fields_to_keep": ["b"]}, {"schema": "other"}]
    prints = [PgsqlJSONBLoader(database_url, table_name="things", **one).fingerprint for one in given * 2]
    assert len(set(prints)) == len(given)
    assert prints[: len(given)] == prints[len(given) :]
    assert "@" not in "".join(prints), "nobody's name or password"


def test_a_time_that_python_has_not_comes_as_text(database_url: str, execute) -> None:
    execute("""
        CREATE TABLE things (id int PRIMARY KEY, name text, until timestamptz, since date, changed_at timestamp);
        INSERT INTO things VALUES (1, 'a', 'infinity', '-infinity', 'infinity'), (2, 'b', '2030-01-02Z', NULL, now())
    """)
    loader = PgsqlTextLoader(
        database_url, table_name="things", text_column="name", payload_columns=["until", "since"],
        updated_at_column="changed_at",
    )  # fmt: skip
    payloads = {item.id: item.meta.payload for batch in loader.iter_items() for item in batch.items}
    assert payloads["1"] == {"until": "infinity", "since": "-infinity"}
    assert str(payloads["2"]["until"]).startswith("2030-01-02")
    changed = [item.id for batch in loader.iter_changed(datetime(2020, 1, 1, tzinfo=UTC)) for item in batch.items]
    assert sorted(changed) == ["1", "2"]


def test_bytes_and_numbers_are_texts_and_json_is_not(database_url: str, execute) -> None:
    execute("""
        CREATE TABLE things (id int PRIMARY KEY, raw bytea, number numeric, document jsonb);
        INSERT INTO things VALUES (1, 'caf\\303\\251', 1.50, '{}'), (2, '\\377', 2, '[]')
    """)
    raw = PgsqlTextLoader(database_url, table_name="things", text_column="raw").find_items(metas("1", "2"))
    assert (raw.items[0].data, raw.invalid["2"]) == ("café", "'raw' is not utf-8: invalid start byte at byte 0")
    number = PgsqlTextLoader(database_url, table_name="things", text_column="number").find_items(metas("1"))
    assert number.items[0].data == "1.50"
    document = PgsqlTextLoader(database_url, table_name="things", text_column="document").find_items(metas("1"))
    assert document.invalid == {"1": "'document' is dict, not text"}


def test_a_look_at_the_first_rows_reads_no_others(database_url: str, execute) -> None:
    execute("""
        CREATE TABLE things (id int PRIMARY KEY, content text);
        INSERT INTO things SELECT i, CASE WHEN i > 2 THEN 'text ' || i END FROM generate_series(1, 20000) i;
        INSERT INTO things VALUES (0, E' \\n')
    """)
    loader = PgsqlTextLoader(database_url, table_name="things")
    limits: list[int] = []

    @event.listens_for(Engine, "after_cursor_execute")
    def note(_: Any, __: Any, statement: str, values: dict[str, Any], *___: Any) -> None:
        if "LIMIT" in statement:
            limits.extend(value for value in values.values() if isinstance(value, int))

    try:
        found = loader.first_items(5)
    finally:
        event.remove(Engine, "after_cursor_execute", note)
    assert [item.id for item in found.items] == ["3", "4"]
    assert sorted(found.invalid) == ["0", "1", "2"]
    assert max(limits) == 6
    execute("TRUNCATE things")
    assert loader.first_items(5).items == []
