"""Every type of PostgreSQL, in the payload and as text: as PostgreSQL means it, or that item alone is reported."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from estudio_core import exact_json
from estudio_core.sources.item_meta import PgsqlFileMeta
from estudio_core.sources.pgsql_jsonb_loader import PgsqlJSONBLoader
from estudio_core.sources.pgsql_text_loader import PgsqlTextLoader

SAMPLES: dict[str, list[str]] = {
    "bool": ["true", "false"],
    "char": ["x", ""],
    "name": ["n" * 63],
    "int8": ["9223372036854775807", "-9223372036854775808", "9007199254740993"],
    "int2": ["-32768"],
    "int4": ["2147483647"],
    "text": ["", "tab\there", "null", "\"quoted\\\" 'text'", "😀"],
    "varchar": ["x "],
    "bpchar": ["ab  "],
    "float4": ["0.1", "NaN", "Infinity", "-Infinity", "1e-45", "3.4028235e38", "-0"],
    "float8": ["0.1", "0.30000000000000004", "NaN", "Infinity", "-Infinity", "5e-324", "1.7976931348623157e308", "-0"],
    "numeric": ["0", "19.90", "NaN", "Infinity", "-Infinity", "0.1234567890123456789012345678901234567890",
                "123456789012345678901234567890.5", "1e130", "1e-130", "-3"],
    "money": ["12.34", "-92233720368547758.08"],
    "date": ["2026-02-03", "infinity", "-infinity", "0044-03-15 BC", "5874897-12-31"],
    "time": ["24:00", "00:00", "12:34:56.789"],
    "timetz": ["24:00+05:30", "12:00:00.5-08"],
    "timestamp": ["2026-02-03 04:05:06.789", "infinity", "-infinity", "0001-01-01 BC", "294276-12-31 23:59:59.999999"],
    "timestamptz": ["2026-02-03 04:05:06+02", "infinity", "-infinity", "4713-01-01 00:00Z BC", "10000-01-01Z"],
    "interval": ["1 year 2 mons 3 days 04:05:06.5", "-1 day", "1000000 years", "infinity", "0"],
    "uuid": ["00000000-0000-0000-0000-000000000007"],
    "json": ['{"a": 1, "a": 2}', "123456789012345678901234567890", "0.12345678901234567890123", "null",
             '"\\ud83d\\ude00"', '{"b": 1, "a": [1e2, {"x": null}]}', "  []  "],
    "jsonb": ['{"a": 1, "a": 2}', "123456789012345678901234567890", "0.12345678901234567890123", "null", "1e300"],
    "jsonpath": ["$.a[*] ? (@ > 1)"],
    "xml": ["<a>x</a>"],
    "bit": ["1"],
    "varbit": ["10101", ""],
    "inet": ["192.168.0.1", "192.168.0.1/24", "::1", "2001:db8::1/64"],
    "cidr": ["10.0.0.0/8", "2001:db8::/32"],
    "macaddr": ["08:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "tsvector": ["'fat':2A 'cat':1"],
    "tsquery": ["fat & (cat | !dog)"],
    "point": ["(1.5,2)", "(NaN,Infinity)"],
    "line": ["{1,2,3}"],
    "lseg": ["[(0,0),(1,1)]"],
    "box": ["(1,1),(0,0)"],
    "path": ["[(0,0),(1,1)]", "((0,0),(1,1))"],
    "polygon": ["((0,0),(1,1),(1,0))"],
    "circle": ["<(0,0),1>"],
    "oid": ["4294967295"],
    "xid": ["4294967295"],
    "cid": ["7"],
    "tid": ["(0,1)"],
    "xid8": ["18446744073709551615"],
    "pg_lsn": ["16/B374D848"],
    "pg_snapshot": ["10:20:10,14"],
    "txid_snapshot": ["10:20:10,14"],
    "refcursor": ["some cursor"],
    "regclass": ["pg_class"],
    "regtype": ["integer"],
    "regproc": ["now"],
    "regprocedure": ["now()"],
    "regoper": ["||/"],
    "regoperator": ["+(integer,integer)"],
    "regrole": ["postgres"],
    "regnamespace": ["pg_catalog"],
    "regcollation": ['"C"'],
    "regconfig": ["english"],
    "regdictionary": ["simple"],
    "regdatabase": ["postgres"],
    "aclitem": ["postgres=r/postgres"],
    "int2vector": ["1 2 3"],
    "oidvector": ["1 2 3"],
    "gtsvector": [],
    "bytea": ["\\xdeadbeef"],
    "vector": ["[1,2.5]"],
    "halfvec": ["[1,2.5]"],
    "sparsevec": ["{1:1.5}/5"],
    "mood": ["sad", "o'k"],
    "price": ["19.90"],
    "pair": ['(1,"a ""b""")', "(,)"],
    "int4range": ["[1,5)", "empty", "(,)"],
    "int8range": ["[1,9223372036854775807)"],
    "numrange": ["[1.50,)"],
    "daterange": ["[2026-01-01,2026-02-01)", "[infinity,infinity]", "[0044-03-15 BC,)"],
    "tsrange": ["[2026-01-01 10:00,2026-01-02)"],
    "tstzrange": ["[2026-01-01 10:00+02,infinity)"],
    "floatrange": ["[0.1,NaN]"],
    "int4multirange": ["{[1,3),[5,7)}", "{}"],
    "int8multirange": ["{[1,3)}"],
    "nummultirange": ["{[1.5,2.5)}"],
    "datemultirange": ["{[2026-01-01,2026-02-01)}"],
    "tsmultirange": ["{[2026-01-01 10:00,2026-01-02)}"],
    "tstzmultirange": ["{[2026-01-01 10:00+02,)}"],
    "floatmultirange": ["{[0.1,0.2]}"],
}  # fmt: skip
INTERNAL = ("pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list", "pg_brin_bloom_summary",
            "pg_brin_minmax_multi_summary", "pg_ddl_command")  # fmt: skip
"""Types whose values nobody can write."""


@pytest.fixture(scope="module")
def types_url(postgres_server: str) -> str:
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS sources_types")
        connection.execute("CREATE DATABASE sources_types")
    url = postgres_server.replace("/postgres?", "/sources_types?")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("""
            CREATE TYPE mood AS ENUM ('sad', 'o''k');
            CREATE DOMAIN price AS numeric(10,2) CHECK (VALUE >= 0);
            CREATE TYPE pair AS (number int, word text);
            CREATE TYPE floatrange AS RANGE (subtype = float8);
        """)
    return url


def type_names(url: str) -> list[str]:
    """Return the types of which a column can be, those of rows of tables left out."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT t.typname FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid"
            " WHERE t.typtype IN ('b', 'e', 'r', 'm', 'd', 'c') AND (c.relkind IS NULL OR c.relkind = 'c')"
            " AND t.typcategory <> 'A' AND t.typnamespace::regnamespace::text <> 'information_schema' ORDER BY 1"
        ).fetchall()
    return [name for (name,) in rows if name not in (*INTERNAL, "xml")]


def meant(connection: psycopg.Connection, columns: list[str]) -> dict[str, dict[str, Any]]:
    """Return what PostgreSQL itself has for the values of `every`, by id and column."""
    connection.execute("SET TimeZone = 'UTC'")
    texts = ", ".join(f'to_jsonb("{name}")::text' for name in columns)
    return {
        str(key): {
            name: None if text is None else exact_json.loads(text) for name, text in zip(columns, values, strict=True)
        }
        for key, *values in connection.execute(f"SELECT id, {texts} FROM every")
    }


def same(left: Any, right: Any) -> bool:
    """Whether two values are one in JSON: 3.4e38 and the integer of 39 digits that it is written as are."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if all(isinstance(value, int | float | Decimal) and not isinstance(value, bool) for value in (left, right)):
        return Decimal(str(left)) == Decimal(str(right))
    return type(left) is type(right) and bool(left == right)


def test_every_type_and_its_arrays_are_in_the_payload_as_postgresql_has_them(types_url: str) -> None:
    names = type_names(types_url)
    with psycopg.connect(types_url) as connection, suppress(psycopg.errors.FeatureNotSupported):
        connection.execute("SELECT '<a/>'::xml")
        names = [*names, "xml"]
    assert sorted(set(names) - set(SAMPLES)) == [], "types without samples"
    assert len(names) > 70
    names.remove("bytea")
    columns = [f"{name}{form}" for name in names for form in ("", "[]")]
    with psycopg.connect(types_url, autocommit=True) as connection:
        types = ", ".join(f'"{name}{form}" "{name}"{form}' for name in names for form in ("", "[]"))
        connection.execute(f"CREATE TABLE every (id int PRIMARY KEY, content text DEFAULT 'x', {types})")
        connection.execute("INSERT INTO every (id) SELECT generate_series(0, 8)")
        for name in names:
            for number, value in enumerate(SAMPLES[name]):
                connection.execute(f'UPDATE every SET "{name}" = %s WHERE id = %s', (value, number))
            array = f'(SELECT array_agg("{name}" ORDER BY id) FROM every)'
            connection.execute(f'UPDATE every SET "{name}[]" = {array} WHERE id = 1')
            connection.execute(f'UPDATE every SET "{name}[]" = ARRAY[{array}, {array}] WHERE id = 2')
        expected = meant(connection, columns)
    loader = PgsqlTextLoader(types_url, table_name="every", payload_columns=columns)
    [batch] = list(loader.iter_items())
    by_id = loader.find_items([item.meta for item in batch.items])
    loader.close()
    assert batch.invalid == by_id.invalid == {}
    for found in (batch, by_id):
        payloads = {item.id: item.meta.payload for item in found.items}
        assert payloads.keys() == expected.keys()
        assert [
            (name, payload[name], expected[key][name])
            for key, payload in payloads.items()
            if payload is not None
            for name in columns
            if not same(payload[name], expected[key][name])
        ] == []


def test_what_no_float_holds_stays_exact() -> None:
    assert exact_json.loads("[0.1234567890123456789, 1e2, 19.90, 1e400]") == [
        Decimal("0.1234567890123456789"), 100.0, 19.9, Decimal("1e400"),
    ]  # fmt: skip
    number = Decimal("123456789012345678901234567890.5")
    assert exact_json.dumps({"a": [number, 1]}) == '{"a": [123456789012345678901234567890.5, 1]}'


ODD: dict[str, tuple[str, str]] = {
    "numeric": ("('1' || repeat('0', 5000))::numeric", "'v' cannot be read as JSON"),
    "json": ("""'{"a": 1' || repeat('0', 5000) || '}'""", "'v' cannot be read as JSON"),
    "json[]": ("""ARRAY[repeat('[', 3000) || repeat(']', 3000)]::json[]""", "'v' cannot be read as JSON"),
}


@pytest.mark.parametrize("column", ODD)
def test_what_json_cannot_hold_is_the_fault_of_its_item(
    execute: Callable[..., None], database_url: str, column: str
) -> None:
    value, reason = ODD[column]
    execute(f"CREATE TABLE things (id int PRIMARY KEY, content text DEFAULT 'x', v {column})")
    execute(f"INSERT INTO things (id, v) VALUES (1, NULL), (2, ({value})::{column}), (3, NULL)")
    loader = PgsqlTextLoader(database_url, table_name="things", payload_columns=["v"])
    [batch] = list(loader.iter_items())
    assert [item.id for item in batch.items] == ["1", "3"]
    assert list(batch.invalid) == ["2"]
    assert reason in batch.invalid["2"]


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("date", "infinity", "infinity"),
        ("time", "24:00", "24:00:00"),
        ("timestamptz", "2026-02-03 04:05+02", "2026-02-03 02:05:00+00"),
        ("interval", "1 mon 02:00", "1 mon 02:00:00"),
        ("numeric", "0.0000000000", "0.0000000000"),
        ("float8", "NaN", "NaN"),
        ("inet", "10.0.0.1/8", "10.0.0.1/8"),
        ("daterange", "[2026-01-01,2026-01-03)", "[2026-01-01,2026-01-03)"),
        ("bpchar(4)", "ab", "ab  "),
        ("uuid", "00000000-0000-0000-0000-000000000007", "00000000-0000-0000-0000-000000000007"),
    ],
)
def test_a_column_of_another_type_is_its_text(
    execute: Callable[..., None], database_url: str, column: str, value: str, text: str
) -> None:
    execute(f"CREATE TABLE things (id int PRIMARY KEY, content {column})")
    execute(f"INSERT INTO things VALUES (1, '{value}'), (2, NULL)")
    found = PgsqlTextLoader(database_url, table_name="things").find_items([])
    [found] = list(PgsqlTextLoader(database_url, table_name="things").iter_items())
    assert [item.data for item in found.items] == [text]
    assert found.invalid == {"2": "'content' is NULL"}


def test_what_has_an_inside_is_no_text(execute: Callable[..., None], database_url: str) -> None:
    execute("CREATE TYPE pair AS (number int, word text)")
    execute("CREATE TABLE things (id int PRIMARY KEY, tags date[], both_of pair, document json)")
    execute("""INSERT INTO things VALUES (1, '{infinity}', '(1,a)', '{"a": 0.12345678901234567890}')""")
    reasons = {"tags": "list", "both_of": "dict", "document": "dict"}
    for name, kind in reasons.items():
        [found] = list(PgsqlTextLoader(database_url, table_name="things", text_column=name).iter_items())
        assert found.invalid == {"1": f"'{name}' is {kind}, not text"}
    items = {}
    for name in ("both_of", "document"):
        [found] = list(PgsqlJSONBLoader(database_url, table_name="things", jsonb_column=name).iter_items())
        items[name] = found.items[0].data
    assert items == {"both_of": {"number": 1, "word": "a"}, "document": {"a": Decimal("0.12345678901234567890")}}


def test_an_id_is_what_stands_in_its_column(execute: Callable[..., None], database_url: str) -> None:
    execute("CREATE TYPE code AS ENUM ('a ', 'a')")
    execute("CREATE TABLE enums (id code PRIMARY KEY, content text); INSERT INTO enums VALUES ('a ', 'x'), ('a', 'y')")
    execute("CREATE TABLE padded (id char(4) PRIMARY KEY, content text); INSERT INTO padded VALUES ('a', 'x')")
    enums, padded = (PgsqlTextLoader(database_url, table_name=name) for name in ("enums", "padded"))
    assert sorted(enums.iter_ids()) == ["a", "a "]
    assert [(item.id, item.data) for item in enums.find_items([]).items] == []
    assert list(padded.iter_ids()) == ["a"]


SETTINGS = (
    "DateStyle = 'German'", "IntervalStyle = 'sql_standard'", "TimeZone = 'Asia/Kathmandu'", "extra_float_digits = -15",
    "bytea_output = 'escape'", "standard_conforming_strings = off", "client_encoding = 'LATIN1'",
    "default_transaction_read_only = on", "array_nulls = off", "transform_null_equals = on",
)  # fmt: skip


def test_what_a_session_may_set_changes_no_value(types_url: str, postgres_server: str) -> None:
    with psycopg.connect(types_url, autocommit=True) as connection:
        connection.execute("""
            CREATE TABLE settled (id text PRIMARY KEY, content text, v jsonb, b bytea[], d daterange, i interval,
                t timestamptz, f float8)
        """)
        connection.execute(
            "INSERT INTO settled VALUES ('NULL', 'Ж \\ ''x', '{\"a\": \"Ж\"}', ARRAY['\\xff'::bytea],"
            " '[2026-01-02,2026-02-01)', '1 mon -1 day', '2026-01-02 03:04Z', 0.1)"
        )
        for setting in SETTINGS:
            connection.execute(f"ALTER DATABASE sources_types SET {setting}")
    loader = PgsqlTextLoader(types_url, table_name="settled", payload_columns=["v", "b", "d", "i", "t", "f"])
    try:
        [batch] = list(loader.iter_items())
        [item] = loader.find_items([batch.items[0].meta]).items
    finally:
        loader.close()
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute("ALTER DATABASE sources_types RESET ALL")
    assert item.data == "Ж \\ 'x"
    assert item.meta.payload == {
        "v": {"a": "Ж"}, "b": ["\\xff"], "d": "[2026-01-02,2026-02-01)", "i": "1 mon -1 days",
        "t": "2026-01-02T03:04:00+00:00", "f": 0.1,
    }  # fmt: skip


def encoded(server: str, encoding: str) -> str:
    """Make a new database of that encoding; return its URL."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS sources_encoded WITH (FORCE)")
        connection.execute(
            f"CREATE DATABASE sources_encoded TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
        )
    return server.replace("/postgres?", "/sources_encoded?")


def test_bytes_that_are_no_utf_8_are_the_fault_of_their_item(postgres_server: str) -> None:
    url = encoded(postgres_server, "SQL_ASCII")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE things (id text, content text, maker text)")
        connection.execute(
            rb"INSERT INTO things VALUES ('1', 'caf" + "é".encode() + rb"', 'x'), ('2', E'caf\xe9', 'x'),"
            rb" ('3', 'x', E'caf\xe9'), (E'\xe9', 'x', 'x'), (NULL, 'x', 'x')"
        )
    loader = PgsqlTextLoader(url, table_name="things", payload_columns=["maker"])
    batches = list(loader.iter_items())
    loader.close()
    assert [(item.id, item.data) for batch in batches for item in batch.items if item.id.isdigit()] == [("1", "café")]
    assert {key: reason for batch in batches for key, reason in batch.invalid.items()} == {
        "2": "'content' is not utf-8: unexpected end of data at byte 3",
        "3": "'maker' is not utf-8: unexpected end of data at byte 3",
        "\\xe9": "its id is not utf-8: unexpected end of data at byte 0",
        "(no id)": "1 rows have no 'id'",
    }


@pytest.mark.parametrize(
    ("encoding", "text", "broken", "reason"),
    [
        ("LATIN1", "café", b"", ""),
        ("WIN1251", "Лампа", b"\x98", "is not WIN1251: character maps to <undefined> at byte 0"),
        ("WIN1252", "5 € „x“", b"\x81", "is not WIN1252: character maps to <undefined> at byte 0"),
        ("KOI8R", "Лампа", b"", ""),
        ("EUC_JP", "ランプ", b"", ""),
    ],
)
def test_a_database_of_another_encoding_is_read_row_by_row(
    postgres_server: str, encoding: str, text: str, broken: bytes, reason: str
) -> None:
    url = encoded(postgres_server, encoding)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE things (id text, content text, maker varchar, more jsonb, said text[], n int,"
                           " kind char(8))")  # fmt: skip
        more, said = f'{{"a": "{text}"}}', [text]
        connection.execute(
            "INSERT INTO things VALUES (%s, %s, %s, %s, %s, 7, %s)", (text, text, text, more, said, text)
        )
        if broken:
            connection.execute(f"SET client_encoding = '{encoding}'")
            connection.execute(
                b"INSERT INTO things VALUES ('2', '" + broken + b"', NULL), ('3', 'x', '" + broken + b"')"
            )
            connection.execute(b"INSERT INTO things VALUES ('4', 'x', 'x', NULL, ARRAY['" + broken + b"'])")
    loader = PgsqlTextLoader(url, table_name="things", payload_columns=["maker", "more", "said", "n", "kind"])
    [batch] = list(loader.iter_items())
    [item] = loader.find_items([batch.items[0].meta]).items
    loader.close()
    assert (item.id, item.data) == (text, text)
    assert item.meta.payload == {"maker": text, "more": {"a": text}, "said": [text], "n": 7, "kind": text.ljust(8)}
    assert batch.items == [item]
    expected = {"2": f"'content' {reason}", "3": f"'maker' {reason}", "4": f"'said' {reason.replace('0', '2')}"}
    assert batch.invalid == (expected if broken else {})


@pytest.mark.parametrize("key", ["text", "varchar(9)", "char(9)", "name"])
def test_a_key_that_means_nothing_in_its_encoding_is_left_out_alone(postgres_server: str, key: str) -> None:
    url = encoded(postgres_server, "WIN1251")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE things (id {key}, content text, at timestamptz DEFAULT 'epoch')")
        connection.execute("SET client_encoding = 'WIN1251'")
        connection.execute(
            b"INSERT INTO things VALUES ('a', 'x'), ('\x98', 'x'), ('\x98\x98', 'x'), ('\xcb\xe0', 'x'), ('b', 'x')"
        )
        loader = PgsqlTextLoader(url, table_name="things", updated_at_column="at", change_queue="changes")
        connection.execute(loader.change_queue_sql())
        connection.execute("UPDATE things SET content = 'y'")
    left_out = dict.fromkeys(["\\x98", "\\x98\\x98"], "its id is not WIN1251: character maps to <undefined> at byte 0")
    changed = loader.iter_changed(datetime(1969, 1, 1, tzinfo=UTC), 1)
    for batches in (
        [*loader.iter_items()],
        [*loader.iter_items(batch_size=1)],
        [batch for bounds in loader.key_ranges(3) for batch in loader.iter_items(bounds)],
        [*changed],
    ):
        assert sorted(item.id for batch in batches for item in batch.items) == ["a", "b", "Ла"]
        assert {i: reason for batch in batches for i, reason in batch.invalid.items()} == left_out
    assert list(loader.iter_ids()) == ["a", "b", "\\x98", "\\x98\\x98", "Ла"]
    assert loader.change_queue is not None
    assert set(loader.change_queue.read(100).object_ids) == {"a", "b", "\\x98", "\\x98\\x98", "Ла"}
    found = loader.find_items([PgsqlFileMeta(object_id=i) for i in ("Ла", "ランプ", "\\x98", "b")])
    loader.close()
    assert ([item.id for item in found.items], found.missing) == (["Ла", "b"], ["ランプ", "\\x98"])


def test_columns_of_the_longest_names_are_read(execute: Callable[..., None], database_url: str) -> None:
    key, text, *more = names = [
        "k" * 63,
        "t" * 63,
        "p" * 62 + "a",
        "p" * 62 + "b",
        "é" * 31 + "x",
        "% :x\"'" + "y" * 40,
    ]
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    execute(
        f"CREATE TABLE things ({quoted[0]} int PRIMARY KEY, {quoted[1]} text, {quoted[2]} numeric, {quoted[3]} date,"
        f" {quoted[4]} text, {quoted[5]} interval)"
    )
    execute("INSERT INTO things VALUES (1, 'x', 1.5, '2026-01-01', 'z', '1 day')")
    loader = PgsqlTextLoader(
        database_url, table_name="things", id_column=key, text_column=text, payload_columns=[*more, text]
    )
    [batch] = list(loader.iter_items())
    [item] = batch.items
    assert (item.id, item.data) == ("1", "x")
    assert item.meta.payload == dict(zip([*more, text], [1.5, "2026-01-01", "z", "1 day", "x"], strict=True))
    assert loader.find_items([item.meta]).items == [item]
