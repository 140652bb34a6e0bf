"""Databases as others have them: whatever a role or a database sets, the same is built, found, written and synced."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from estudio_core import database
from estudio_core.pipeline.sync import sync
from estudio_core.searching import search
from estudio_core.settings import get_settings
from estudio_core.writing import ItemWrite, delete, refresh, upsert
from tests.pipeline.conftest import Shop, forget_plugins
from tests.pipeline.steps import build_release

SETTINGS = {
    "search_path": "''", "DateStyle": "'German, DMY'", "IntervalStyle": "'sql_standard'",
    "TimeZone": "'Asia/Kathmandu'", "default_transaction_isolation": "'serializable'",
    "extra_float_digits": "-15", "bytea_output": "'escape'", "standard_conforming_strings": "off",
    "client_encoding": "'LATIN1'", "default_transaction_read_only": "on",
    "array_nulls": "off", "transform_null_equals": "on", "statement_timeout": "'300ms'", "lock_timeout": "'1ms'",
    "idle_in_transaction_session_timeout": "'200ms'", "idle_session_timeout": "'200ms'", "xmlbinary": "'hex'",
    "default_text_search_config": "'russian'", "enable_indexscan": "on", "row_security": "off",
    "gin_fuzzy_search_limit": "3", "quote_all_identifiers": "on", "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off", "hnsw.ef_search": "1", "hnsw.iterative_scan": "off", "work_mem": "'64kB'",
    "maintenance_work_mem": "'1MB'", "default_statistics_target": "1", "temp_tablespaces": "'nowhere'",
}  # fmt: skip


ODD = 'My "Shop" 100% of a/b?c=d&e#f@g:h+i\'j\\k Ü'
"""Whatever a URL, a shell or SQL reads otherwise."""


@pytest.fixture
def foreign(shop: Shop, small_entry: Path, postgres_server: str) -> Iterator[Shop]:
    """The shop in a database with pgvector in a schema of its own, and all settings otherwise than usual."""
    name = shop.database_url.partition("?")[0].rpartition("/")[2]
    shop.sql(
        "ALTER TABLE products ADD COLUMN since date DEFAULT '2026-02-03', ADD COLUMN lasts interval DEFAULT '1 mon'"
    )
    shop.rewrite_plugin('table="products"', 'table="products", schema_name="public"')
    shop.rewrite_plugin('payload=("title", "kind")', 'payload=("title", "kind", "since", "lasts")')
    shutil.copytree(small_entry, get_settings().triton_repository / small_entry.name)
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        for setting, value in SETTINGS.items():
            connection.execute(f"ALTER DATABASE {name} SET {setting} = {value}")
    database.forget_pools()
    yield shop
    database.forget_pools()


@pytest.mark.parametrize("schema", ["public", "ext"])
def test_whatever_a_database_sets_changes_nothing(foreign: Shop, schema: str) -> None:
    if schema != "public":
        with psycopg.connect(foreign.database_url, options="-c default_transaction_read_only=off") as connection:
            connection.execute("CREATE SCHEMA ext")
            connection.execute("ALTER EXTENSION vector SET SCHEMA ext")
    build_release("shop", "shop_v1", "first")
    hits = search("shop", "lamp number 6 Ж", limit=100).hits
    assert len(hits) == 60
    assert all((hit.payload["since"], hit.payload["lasts"]) == ("2026-02-03", "1 mon") for hit in hits)
    assert hits[0].words is not None
    payload = {"title": r"Лампа \ 'x' NULL", "n": [0.1, None, "NULL"]}
    upsert(
        "shop", [ItemWrite("NULL", r"lamp \ Ж", payload), ItemWrite("mine", "lamp", None, user_id="u", original_id="7")]
    )
    [found] = search("shop", "lamp", filter={"term": {"title": payload["title"]}}).hits
    assert (found.object_id, found.payload) == ("NULL", payload)
    assert any(hit.personal for hit in search("shop", "lamp", user_id="u", limit=100).hits)
    with psycopg.connect(foreign.database_url, options="-c default_transaction_read_only=off") as connection:
        connection.execute("UPDATE public.products SET lasts = '2 days' WHERE id = 7")
    done = sync("shop", {})
    assert (done.payload_only, done.deleted, done.invalid_items) == (1, 1, 0)
    assert refresh("shop", [7]).unchanged == 1
    [seven] = [hit for hit in search("shop", "lamp", limit=100).hits if hit.object_id == "7"]
    assert seven.payload["lasts"] == "2 days"
    assert delete("shop", ["7"]).deleted == 1
    build_release("shop", "shop_v1", "second")
    assert len(search("shop", "lamp", limit=100).hits) == 60


def test_a_role_s_settings_are_a_database_s(
    foreign: Shop, postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = f"r_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN SUPERUSER")
        for setting, value in SETTINGS.items():
            connection.execute(f"ALTER ROLE {role} SET {setting} = {value}")
    try:
        monkeypatch.setenv("ESTUDIO_DATABASE_URL", foreign.database_url.replace("postgres:@", f"{role}:@"))
        get_settings.cache_clear()
        build_release("shop", "shop_v1", "first")
        assert len(search("shop", "lamp", limit=100).hits) == 60
        assert upsert("shop", [ItemWrite("a", "lamp")]).upserted == 1
    finally:
        database.forget_pools()
        with psycopg.connect(foreign.database_url, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"REASSIGN OWNED BY {role} TO postgres")
            connection.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize("place", ["public", "ext"])
def test_names_that_somebody_else_has_taken_are_not_mistaken_for_ours(
    shop: Shop, small_entry: Path, place: str
) -> None:
    name = shop.database_url.partition("?")[0].rpartition("/")[2]
    shutil.copytree(small_entry, get_settings().triton_repository / small_entry.name)
    shop.sql("CREATE SCHEMA app; CREATE SCHEMA ext; CREATE TABLE app.vector (n int); CREATE TABLE app.halfvec (n int);"
             "CREATE FUNCTION app.left(text, int) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';"
             "CREATE FUNCTION app.lower(text) RETURNS text LANGUAGE sql AS 'SELECT NULL::text'")  # fmt: skip
    shop.sql(f"ALTER EXTENSION vector SET SCHEMA {place}")
    shop.sql(f'ALTER DATABASE {name} SET search_path = app, "Not There", public, pg_catalog')
    shop.rewrite_plugin('table="products"', 'table="products", schema_name="public"')
    database.forget_pools()
    build_release("shop", "shop_v1", "first")
    assert len(search("shop", "LAMP number 6", limit=100).hits) == 60
    assert upsert("shop", [ItemWrite("a", "one trumpet", {"title": "one trumpet"})]).upserted == 1
    for mode, filter in (("words", None), ("hybrid", {"match": {"title": "Trumpet"}})):
        assert [hit.object_id for hit in search("shop", "trumpet", mode=mode, filter=filter).hits] == ["a"]  # type: ignore[arg-type]
    assert sync("shop", {}).deleted == 1
    with database.connect() as connection:
        assert connection.execute("SELECT current_schemas(false)").fetchone() == (
            (["public", "app"] if place == "public" else ["ext", "app", "public"]),
        )
    database.forget_pools()


@pytest.mark.parametrize("form", ["url", "pairs"])
def test_databases_and_roles_of_any_name_and_password(
    shop: Shop, small_entry: Path, postgres_server: str, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    shutil.copytree(small_entry, get_settings().triton_repository / small_entry.name)
    name, role = f"{ODD} {form}", f"{ODD} {form} role"
    known = conninfo_to_dict(postgres_server)
    user, password, place = (quote(each, safe="") for each in (role, ODD, name))
    written = {
        "url": f"postgresql://{user}:{password}@/{place}?host={known['host']}",
        "pairs": make_conninfo(**{**known, "user": role, "dbname": name, "password": ODD}),
    }
    names = {"name": sql.Identifier(name), "role": sql.Identifier(role), "password": sql.Literal(ODD)}
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {role} LOGIN SUPERUSER PASSWORD {password}").format(**names))
        connection.execute(sql.SQL("CREATE DATABASE {name} OWNER {role}").format(**names))
    try:
        monkeypatch.setenv("ESTUDIO_DATABASE_URL", written[form])
        forget_plugins()
        with database.connect() as connection:
            assert connection.execute("SELECT current_user::text, current_database()::text").fetchone() == (role, name)
            connection.execute("CREATE TABLE products AS SELECT n AS id, 'lamp ' || n AS title, 'lamp' AS kind"
                               " FROM generate_series(1, 30) n")  # fmt: skip
            connection.commit()
        database.migrate()
        build_release("shop", "shop_v1", "first")
        assert len(search("shop", "lamp", limit=100).hits) == 30
        assert upsert("shop", [ItemWrite("a", "lamp")]).upserted == 1
        assert sync("shop", {}).deleted == 1
    finally:
        database.forget_pools()
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**names))
            connection.execute(sql.SQL("DROP ROLE {role}").format(**names))
