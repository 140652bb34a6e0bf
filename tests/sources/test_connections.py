"""Where a source is: URLs, Airflow connections, servers that do not answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import psycopg
import pytest

from estudio_core.errors import ConfigurationError, DatabaseUnavailableError
from estudio_core.postgres_url import connection_parameters, describe
from estudio_core.sources import pgsql_data_loader, source_database
from estudio_core.sources.connections import fields_of, resolve_url, set_connection_resolver
from estudio_core.sources.item_meta import PgsqlFileMeta
from estudio_core.sources.pgsql_text_loader import PgsqlTextLoader


@pytest.fixture
def no_resolver() -> Iterator[None]:
    yield
    set_connection_resolver(None)


def test_a_url_or_a_connection_id_but_not_both() -> None:
    with pytest.raises(ConfigurationError, match="both given"):
        resolve_url("postgresql://reader@db/shop", "shop")
    with pytest.raises(ConfigurationError, match="both given"):
        PgsqlTextLoader("postgresql://reader@db/shop", table_name="articles", connection_id="shop")


@pytest.mark.parametrize(
    "url",
    ["postgres://r:p%40@db:5433/shop", "postgresql://r:p%40@db:5433/shop", "postgresql+psycopg2://r:p%40@db:5433/shop"],
)
def test_all_spellings_of_the_scheme_are_read(url: str) -> None:
    parameters = connection_parameters(resolve_url(url))
    assert parameters == {"user": "r", "password": "p@", "host": "db", "port": "5433", "dbname": "shop"}


def test_the_key_value_form_of_libpq_is_read() -> None:
    assert describe(resolve_url("host=db dbname=shop user=reader password=secret")) == "reader@db/shop"


def test_other_databases_and_unreadable_urls_are_refused_without_the_password() -> None:
    with pytest.raises(ConfigurationError, match=r"'mysql'.*PostgreSQL"):
        resolve_url("mysql://root:secret@db/shop")
    with pytest.raises(ConfigurationError) as raised:
        connection_parameters("postgresql://reader:secret@[db/shop")
    assert "secret" not in str(raised.value)


def test_an_unknown_connection_says_how_to_define_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_SHOP_DB", raising=False)
    with pytest.raises(ConfigurationError, match=r"estudio airflow connections add shop_db.*AIRFLOW_CONN_SHOP_DB"):
        resolve_url(connection_id="shop_db")


def test_a_connection_is_read_from_an_airflow_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = quote(json.dumps({"sslmode": "require", "cursor": "dictcursor", "iam": False}))
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", f"postgres://re%40der:p%2Fw@db:5433/my%20shop?__extra__={extra}")
    assert connection_parameters(resolve_url(connection_id="shop")) == {
        "user": "re@der", "password": "p/w", "host": "db", "port": "5433", "dbname": "my shop", "sslmode": "require",
    }  # fmt: skip


def test_a_connection_may_be_libpq_s_pairs_and_no_message_has_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", "host=db dbname=shop user=reader password=hunter2 application_name=a://b")
    assert describe(resolve_url(connection_id="shop")) == "reader@db/shop"
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", "reader:hunter2@db/shop")
    with pytest.raises(ConfigurationError) as raised:
        connection_parameters(resolve_url(connection_id="shop"))
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("extra", [{"sslmode": "require", "sqlalchemy_scheme": "postgresql"}, '{"sslmode": "require"}'])
def test_a_connection_is_read_from_json(monkeypatch: pytest.MonkeyPatch, extra: object) -> None:
    fields = {
        "conn_type": "postgres", "login": "re@der", "password": "p/w:%", "host": "db", "port": 5433, "schema": "shop",
        "extra": extra,
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps(fields))
    assert connection_parameters(resolve_url(connection_id="shop")) == {
        "user": "re@der", "password": "p/w:%", "host": "db", "port": "5433", "dbname": "shop", "sslmode": "require",
    }  # fmt: skip


@pytest.mark.parametrize(
    "value",
    ["mysql://root@db/shop", '{"conn_type": "http", "host": "x"}', '{"host": ', "postgres://db/x?__extra__=1",
     '{"port": ' + "1" * 5_000 + "}", '{"extra": ' + "[" * 100_000],
)  # fmt: skip
def test_connections_that_cannot_be_used_are_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", value)
    with pytest.raises(ConfigurationError, match="'shop'"):
        resolve_url(connection_id="shop")


def test_the_resolver_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch, no_resolver: None) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", "postgres://from@environment/x")
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", "postgres://from@environment/x")
    set_connection_resolver({"shop": "postgres://from@resolver/x?cursor=dictcursor"}.get)
    assert describe(resolve_url(connection_id="shop")) == "from@resolver/x"
    assert describe(resolve_url(connection_id="other")) == "from@environment/x"


FULL = {"user": "re@der", "password": " p w/:%'\\\"#?é", "host": "/var/run/a b", "port": "5433", "dbname": "my shop"}


def as_fields(extra: object) -> dict[str, object]:
    return {
        "conn_type": "postgres", "login": FULL["user"], "password": FULL["password"], "host": FULL["host"],
        "port": 5433, "schema": FULL["dbname"], "extra": extra,
    }  # fmt: skip


OPTIONS = {"options": "-c search_path=app", "sslmode": "require", "connect_timeout": "7", "keepalives": "1"}
EXTRA = {"options": "-c search_path=app", "sslmode": "require", "connect_timeout": 7, "keepalives": True}
ONE_CONNECTION = {
    "fields": json.dumps(as_fields(EXTRA)),
    "fields, Extra as a text": json.dumps(as_fields(json.dumps(EXTRA))),
    "a URI with Extra as JSON": f"postgres://{quote(FULL['user'], safe='')}:{quote(FULL['password'], safe='')}@"
    f"{quote(FULL['host'], safe='')}:5433/my%20shop?__extra__={quote(json.dumps(EXTRA))}",
    "a URI with options": f"postgresql://{quote(FULL['user'], safe='')}:{quote(FULL['password'], safe='')}@"
    f"{quote(FULL['host'], safe='')}:5433/my%20shop?options=-c%20search_path%3Dapp&sslmode=require&connect_timeout=7"
    "&keepalives=1",
    "a URI whose host is an option": f"postgres://{quote(FULL['user'], safe='')}:{quote(FULL['password'], safe='')}@"
    f":5433/my%20shop?host={quote(FULL['host'])}&{urlencode(OPTIONS)}",
}


@pytest.mark.parametrize("way", ONE_CONNECTION)
def test_every_field_of_a_connection_counts_in_commands_and_tasks_alike(
    way: str, monkeypatch: pytest.MonkeyPatch, no_resolver: None
) -> None:
    from airflow.models.connection import Connection

    from estudio_core.dag_factory.connections import use_airflow_connections

    monkeypatch.setenv("AIRFLOW_CONN_SHOP", ONE_CONNECTION[way])
    assert connection_parameters(resolve_url(connection_id="shop")) == FULL | OPTIONS
    use_airflow_connections()  # as in a task
    in_a_task = resolve_url(connection_id="shop")
    set_connection_resolver(lambda name: fields_of(Connection.get_connection_from_secrets(name)))  # as in a command
    assert (
        connection_parameters(in_a_task) == FULL | OPTIONS == connection_parameters(resolve_url(connection_id="shop"))
    )


def test_a_password_with_a_blank_or_a_percent_sign_is_read_as_airflow_reads_it(
    monkeypatch: pytest.MonkeyPatch, no_resolver: None
) -> None:
    from estudio_core.dag_factory.connections import use_airflow_connections

    monkeypatch.setenv("AIRFLOW_CONN_SHOP", "postgres://reader:p w%@x@db/shop")
    monkeypatch.setenv("AIRFLOW_CONN_PAIRS", "host=db dbname=shop user=reader password='p w'")
    for resolver in (set_connection_resolver, use_airflow_connections):
        resolver(None) if resolver is set_connection_resolver else resolver()
        assert connection_parameters(resolve_url(connection_id="shop"))["password"] == "p w%@x"
        assert connection_parameters(resolve_url(connection_id="pairs"))["password"] == "p w"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("postgres://u:5#hunter2@db/x", "percent-encoded"),
        ("postgres://u:5?hunter2@db/x", "percent-encoded"),
        ("postgres://u:5/hunter2@db/x", "percent-encoded"),
        ("postgres://u:hun\tter2@db/x", "percent-encoded"),
        ("postgres://u:hunter2@a:1,b:2/x", "Several hosts"),
        ("postgres://u:hunter2@db/x?sslmod=require", "Did you mean 'sslmode'"),
        (json.dumps(as_fields({"sslmode": ["require"]})), "a text is needed"),
        (json.dumps(as_fields({"iam": True})), "iam: connecting with a cloud's token"),
        (json.dumps(as_fields("sslmode=require")), "Extra of the connection 'shop' cannot be read"),
        (json.dumps(as_fields(["sslmode"])), "has to be an object"),
        (json.dumps(as_fields({}) | {"hots": "db"}), "Did you mean 'host'"),
        (json.dumps(as_fields({}) | {"conn_type": ""}), "PostgreSQL is needed"),
        (json.dumps(as_fields({}) | {"host": ["db"]}), "host in the JSON of the connection 'shop' is list"),
        (json.dumps(as_fields({}) | {"login": {"of": 1}}), "login in the JSON of the connection 'shop' is dict"),
        (json.dumps(as_fields({}) | {"port": True}), "port in the JSON of the connection 'shop' is bool"),
        ("postgres://u:hunter2@%2FVar%2FRun/x", r"socket folder with capital letters.*\?host="),
    ],
)
def test_what_would_be_read_otherwise_than_meant_is_refused(
    value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", value)
    with pytest.raises(ConfigurationError, match=message) as raised:
        resolve_url(connection_id="shop")
    assert "hunter2" not in str(raised.value)


PLAIN = {"user": "u", "password": "p", "host": "db", "dbname": "x"}


def plain(**changed: object) -> str:
    return json.dumps(
        {"conn_type": "postgres", "login": "u", "password": "p", "host": "db", "schema": "x"} | changed
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "parameters"),
    [
        ("postgres://u:p@[2001:db8::1]:5433/x", PLAIN | {"host": "2001:db8::1", "port": "5433"}),
        (plain(host="[::1]"), PLAIN | {"host": "::1"}),
        ("postgres://u:p@a,b/x", PLAIN | {"host": "a,b"}),
        (plain(host="", extra={"host": "a,b", "port": "1,2"}), PLAIN | {"host": "a,b", "port": "1,2"}),
        ("postgresql:///?service=shop", {"service": "shop"}),
        (
            plain(password="", extra={"passfile": "/a b"}),
            {"passfile": "/a b", "user": "u", "host": "db", "dbname": "x"},
        ),
        ("postgresql+psycopg://u:p@db/x", PLAIN),
        ("postgres://u:p@DB.Example/x", PLAIN | {"host": "db.example"}),
        ("  postgres://u:p@db/x\n", PLAIN),
        (f"{plain()}\n", PLAIN),
        (json.dumps({"uri": "postgres://u:p@db/x"}), PLAIN),
        (plain(port=0), PLAIN),
        (plain(port=5433.0), PLAIN | {"port": "5433"}),
        (
            plain(extra={"connect_timeout": 7.0, "keepalives": False}),
            PLAIN | {"connect_timeout": "7", "keepalives": "0"},
        ),
        (
            "postgres://u:p@db/x?sslmode=verify-full&sslrootcert=%2Fca.pem",
            PLAIN | {"sslmode": "verify-full", "sslrootcert": "/ca.pem"},
        ),
        ("postgres://u:p@db/x?sslmode=require&sslmode=disable", PLAIN | {"sslmode": "disable"}),
        ("postgres://u:a+b@db/x?application_name=a+b", PLAIN | {"password": "a+b", "application_name": "a b"}),
    ],
)
def test_odd_forms_of_a_connection_are_read_in_commands_as_in_tasks(
    value: str, parameters: dict[str, str], monkeypatch: pytest.MonkeyPatch, no_resolver: None
) -> None:
    from estudio_core.dag_factory.connections import use_airflow_connections

    monkeypatch.setenv("AIRFLOW_CONN_SHOP", value)
    assert connection_parameters(resolve_url(connection_id="shop")) == parameters
    use_airflow_connections()
    assert connection_parameters(resolve_url(connection_id="shop")) == parameters


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_name_is_not_estudio_s_own_database(empty: str) -> None:
    for given in ({"connection_id": empty}, {"connection_string": empty}):
        with pytest.raises(ConfigurationError, match=r"is empty. Leave it out"):
            resolve_url(**given)


def test_items_are_read_from_the_schema_that_the_connection_names(
    own_articles: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(own_articles, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA app; CREATE TABLE app.articles AS SELECT * FROM articles LIMIT 2")
    known = connection_parameters(own_articles)
    fields = {"conn_type": "postgres", "login": known.get("user"), "password": known.get("password")}
    fields |= {"schema": known["dbname"], "host": known.get("host"), "port": known.get("port")}
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps(fields))
    everything = PgsqlTextLoader(table_name="articles", connection_id="shop")
    extra = {"options": "-c search_path=app", **({"host": known["host"]} if "host" in known else {})}
    monkeypatch.setenv("AIRFLOW_CONN_APP", json.dumps(fields | {"extra": json.dumps(extra)}))
    of_app = PgsqlTextLoader(table_name="articles", connection_id="app")
    assert (everything.total_count(), of_app.total_count()) == (7, 2)
    assert everything.fingerprint != of_app.fingerprint


def test_items_are_loaded_through_a_connection_id(articles: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", articles.replace("postgresql://", "postgres://"))
    loader = PgsqlTextLoader(table_name="articles", connection_id="shop")
    assert loader.load_items([PgsqlFileMeta(object_id="2")])[0].data == "Content 2"


def test_without_a_source_items_are_in_estudios_own_database(estudio_home: Path, execute) -> None:
    execute("CREATE TABLE things AS SELECT 1 AS id, 'text' AS content")
    assert PgsqlTextLoader(table_name="things").total_count() == 1


def test_an_unreachable_server_is_tried_three_times_and_named_without_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_database, "_FIRST_WAIT_S", 0.01)
    attempts = []
    connect = psycopg.connect
    monkeypatch.setattr(psycopg, "connect", lambda *a, **k: attempts.append(a) or connect(*a, **k))
    loader = PgsqlTextLoader("postgresql://reader:secret@127.0.0.1:1/shop", table_name="articles")
    for count, read in enumerate((loader.check, loader.total_count, lambda: next(loader.iter_items())), start=1):
        with pytest.raises(DatabaseUnavailableError, match=r"reader@127.0.0.1:1/shop does not answer") as raised:
            read()
        assert "secret" not in str(raised.value)
        assert len(attempts) == 3 * count


def test_a_connection_that_was_cut_is_replaced(own_articles: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgsql_data_loader, "PAGE_ROWS", 2)
    loader = PgsqlTextLoader(own_articles, table_name="articles")
    batches = loader.iter_items(batch_size=1)
    first = next(batches)
    with psycopg.connect(own_articles, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'estudio'")
    found = [*first.items, *(item for batch in batches for item in batch.items)]
    assert [item.id for item in found] == ["1", "2", "10", "11", "100"]


def test_constructing_a_loader_imports_nothing_heavy_and_connects_nowhere() -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*a): raise AssertionError('connected')\n"
        "socket.socket.connect = refuse\n"
        "from estudio_core.sources.pgsql_text_loader import PgsqlTextLoader\n"
        "PgsqlTextLoader('postgresql://reader@nowhere.invalid/shop', table_name='articles')\n"
        "PgsqlTextLoader(table_name='articles', connection_id='not_defined')\n"
        "PgsqlTextLoader(table_name='articles')\n"
        "heavy = {'torch', 'pandas', 'pyarrow', 'mlflow', 'transformers', 'airflow', 'ray', 'onnxruntime'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
