"""Estudio's tables: made, adopted, migrated while others work, and checked by processes of several versions."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from pgvector.psycopg import register_vector
from psycopg import sql

from estudio_core import database, migrations
from estudio_core.database import migrate
from estudio_core.errors import DatabaseUnavailableError, SchemaVersionError
from estudio_core.experiments.mlflow_client import MLflowClientWrapper
from estudio_core.lexical.settings import Fusion
from estudio_core.migrations import upgrade
from estudio_core.settings import get_settings
from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.index_info import SearchIndexInfo
from estudio_core.vectordb.objects import IndexedObject
from estudio_core.vectordb.releases import get_release
from tests.migrations.conftest import THIS

LAST = migrations.newest()
NEXT = f"{int(LAST) + 1:04d}"
VECTOR = np.array([[1.0, 0.0]])
BEFORE_NUMBERS = Path(__file__).with_name("tables_before_numbers.sql").read_text()
WRITE = "INSERT INTO estudio.change_log (plugin, op, object_id) VALUES ('shop', 'delete', 'a')"
MIGRATE = """
import sys
from pathlib import Path
from estudio_core import migrations
from estudio_core.database import migrate
migrations.SCRIPTS = Path(sys.argv[2])
print(migrate(sys.argv[1]))
"""


def begin(url: str, scripts: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MIGRATE, url, str(scripts)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def check(url: str) -> str:
    with database.connect(url) as connection:
        return database.require_schema(connection)


def shape(url: str) -> list[Any]:
    """Return columns, indexes and constraints of all tables that migrations make."""
    with psycopg.connect(url) as connection:
        return [
            *connection.execute(
                "SELECT table_name, column_name, data_type, is_nullable, column_default, identity_generation"
                " FROM information_schema.columns WHERE table_schema = 'estudio' AND table_name <> 'schema_version'"
                " ORDER BY table_name, column_name"
            ),
            *connection.execute("SELECT indexdef FROM pg_indexes WHERE schemaname = 'estudio' ORDER BY indexdef"),
            *connection.execute(
                "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
                " WHERE connamespace = 'estudio'::regnamespace AND contype <> 'n' ORDER BY 1, 2"
            ),
        ]


def rows(connection: psycopg.Connection) -> dict[str, list[Any]]:
    """Return the rows of all tables but Alembic's own."""
    tables = connection.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'estudio' AND tablename <> 'alembic_version'"
    ).fetchall()
    return {
        table: connection.execute(
            sql.SQL("SELECT to_jsonb(t) FROM estudio.{} t ORDER BY t::text").format(sql.Identifier(table))
        ).fetchall()
        for (table,) in tables
    }


@pytest.fixture
def adopted_url(database_url: str) -> str:
    """A database as versions before numbered migrations left it, with a release, its items, clicks and writes."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(BEFORE_NUMBERS)
    with database.connect(database_url, autocommit=True) as connection:
        register_vector(connection)
        collection = Collection("shop_1", SearchIndexInfo(dimensions=2))
        collection.create(connection)
        collection.upsert_objects(connection, [IndexedObject("a", {"price": 3}, "h", VECTOR, text="red lamp")])
        connection.execute(
            "INSERT INTO estudio.deployments (plugin, model_name, model_version, collection_id, index_info, run_id,"
            " applied_seq, applied_xid) VALUES ('shop', 'shop_v1', '1', 'shop_1', '{\"dimensions\": 2}', 'run', 0, '0')"
        )
        connection.execute("INSERT INTO estudio.pointers (plugin, release_id, switched_by) VALUES ('shop', 1, 'test')")
        connection.execute(
            "INSERT INTO estudio.ubi_queries (query_id, user_query, timestamp, application)"
            " VALUES ('q', 'lamp', now(), 'shop')"
        )
        connection.execute(
            "INSERT INTO estudio.ubi_events (event_id, action_name, query_id, timestamp, application)"
            " VALUES ('e', 'click', 'q', now(), 'shop')"
        )
        connection.execute(WRITE)
    return database_url


def test_migrating_again_changes_nothing(database_url: str) -> None:
    assert migrate(database_url) == migrations.newest()
    made = shape(database_url)
    assert migrate(database_url) == migrations.newest() == check(database_url)
    assert shape(database_url) == made


def test_tables_from_before_numbers_are_adopted_with_every_row(adopted_url: str) -> None:
    with pytest.raises(SchemaVersionError, match=r"Run: estudio migrate$"):
        check(adopted_url)
    with psycopg.connect(adopted_url, autocommit=True) as connection:
        before = rows(connection)
        assert migrate(adopted_url) == migrations.newest() == check(adopted_url)
        after = rows(connection)
        for table, known in before.items():  # every column that there was
            if table == "deployments":
                continue
            kept = [tuple({name: row[name] for name in old} for old, row in zip(o, n, strict=True))
                    for o, n in zip(known, after[table], strict=True)]  # fmt: skip
            assert kept == known, table
        # Its collection was built without words, and goes on without them.
        release = get_release(connection, 1)
        assert (release.model_name, release.index_info.lexical, release.ranking) == ("shop_v1", None, Fusion())
        # One model encoded its items and encodes queries.
        assert (release.item_model_name, release.item_model_version, release.built_by) == ("shop_v1", "1", 1)
        assert [len(before[table]) for table in ("ubi_queries", "ubi_events", "change_log", "pointers")] == [1, 1, 1, 1]
        # A process of the version before goes on: it finds its digest, and leaves the tables alone.
        assert [list(row.values()) for (row,) in before["schema_version"]] == [["6f0c"]]


def test_adopted_tables_are_those_that_are_made_anew(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(BEFORE_NUMBERS)
        migrate(database_url)
        adopted = shape(database_url)
        connection.execute("DROP SCHEMA estudio CASCADE")
    migrate(database_url)
    assert shape(database_url) == adopted


def test_still_earlier_tables_get_what_they_lack(adopted_url: str) -> None:
    with database.connect(adopted_url, autocommit=True) as connection:
        register_vector(connection)
        collection = Collection("k", SearchIndexInfo(dimensions=2))
        collection.create(connection)
        collection.copy_objects(connection, [IndexedObject("a", {}, "h", VECTOR)])
        connection.execute(
            sql.SQL("ALTER TABLE {} DROP COLUMN body, DROP COLUMN source_hash").format(collection.objects)
        )
        connection.execute("ALTER TABLE estudio.change_log ALTER COLUMN data TYPE jsonb")
        connection.execute("ALTER TABLE estudio.ubi_queries DROP COLUMN logged_at")
        migrate(adopted_url)
        collection.upsert_objects(connection, [IndexedObject("b", {}, "h", VECTOR, text="red lamp")])
        assert collection.source_hashes(connection, ["a", "b"]) == {"a": None, "b": None}
        assert connection.execute("SELECT logged_at FROM estudio.ubi_queries").fetchall() == [(None,)]
        row = connection.execute("SELECT pg_typeof(data)::text FROM estudio.change_log").fetchone()
    assert row == ("json",)


def test_the_check_is_one_select_and_waits_for_nobody(database_url: str, tmp_path: Path) -> None:
    migrate(database_url)
    with psycopg.connect(database_url) as dump, psycopg.connect(database_url) as writer:
        dump.execute("SELECT FROM estudio.sync_state, estudio.alembic_version")
        writer.execute(WRITE)
        with database.connect(database_url, autocommit=True) as connection, (tmp_path / "trace").open("w+") as trace:
            connection.execute("SET statement_timeout = '2s'")
            connection.pgconn.trace(trace.fileno())
            database.require_schema(connection)
            connection.pgconn.untrace()
            sent = re.findall(r'\tF\t.*"(.*)"', Path(trace.name).read_text())
        locks = writer.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
        writer.rollback()
    assert [statement for statement in sent if not statement.startswith(("BEGIN", "COMMIT"))] == [
        "SELECT version_num, serves_from FROM estudio.alembic_version"
    ]
    assert locks == (0,)


def test_older_code_goes_on_beside_a_compatible_newer_version(
    database_url: str, scripts: Path, write_migration: Callable[[str], None], become: Callable[[Path], None]
) -> None:
    migrate(database_url)
    write_migration("ALTER TABLE estudio.trainings ADD COLUMN note text")
    become(scripts)
    with pytest.raises(SchemaVersionError, match=rf"of version {LAST}, and {NEXT} is needed. Run: estudio migrate$"):
        check(database_url)
    assert migrate(database_url) == check(database_url) == NEXT
    migrated = shape(database_url)
    become(THIS)
    assert check(database_url) == migrate(database_url) == NEXT
    assert shape(database_url) == migrated


def test_older_code_stops_beside_a_version_that_it_cannot_work_with(
    database_url: str, scripts: Path, write_migration: Callable[[str], None], become: Callable[[Path], None]
) -> None:
    write_migration(
        f"ALTER TABLE estudio.trainings RENAME TO taught; UPDATE estudio.alembic_version SET serves_from = '{NEXT}'"
    )
    become(scripts)
    migrate(database_url)
    become(THIS)
    for action in (check, migrate):
        with pytest.raises(
            SchemaVersionError, match=f"version {NEXT}, which serve code from {NEXT} on; this code knows"
        ):
            action(database_url)
    become(scripts)
    assert check(database_url) == NEXT


def test_a_migration_waits_for_a_dump_in_short_tries_that_do_not_hold_up_writers(
    adopted_url: str, scripts: Path, write_migration: Callable[[str], None], become: Callable[[Path], None]
) -> None:
    write_migration("ALTER TABLE estudio.change_log ADD COLUMN note text")
    become(scripts)
    waits: list[float] = []
    over = threading.Event()

    def write() -> None:
        with psycopg.connect(adopted_url, autocommit=True) as connection:
            while not over.is_set():
                began = time.monotonic()
                connection.execute(WRITE)
                waits.append(time.monotonic() - began)

    writer = threading.Thread(target=write)
    with psycopg.connect(adopted_url) as dump:
        dump.execute("SELECT FROM estudio.sync_state, estudio.change_log")
        writer.start()
        threading.Timer(3.0, dump.rollback).start()
        began = time.monotonic()
        try:
            assert migrate(adopted_url) == NEXT
        finally:
            over.set()
            writer.join()
    assert time.monotonic() - began > 2.5
    assert 0.1 < max(waits) < 2.0, "a writer waits for one try of the migration, not for the dump"
    with psycopg.connect(adopted_url) as connection:
        assert connection.execute("SELECT count(note), count(*) FROM estudio.change_log").fetchone() == (
            0,
            len(waits) + 1,
        )


def test_tables_that_are_never_free_are_named_and_nothing_is_changed(
    adopted_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrade, "PATIENCE_S", 0.2)
    with psycopg.connect(adopted_url) as dump:
        dump.execute("SELECT FROM estudio.sync_state")
        with pytest.raises(DatabaseUnavailableError, match="other transactions have used them for"):
            migrate(adopted_url)
    with pytest.raises(SchemaVersionError):
        check(adopted_url)
    assert migrate(adopted_url) == check(adopted_url) == migrations.newest()


def test_a_migration_that_is_killed_leaves_the_version_before_whole(
    database_url: str, scripts: Path, write_migration: Callable[[str], None], become: Callable[[Path], None]
) -> None:
    migrate(database_url)
    before = shape(database_url)
    change = "ALTER TABLE estudio.trainings ADD COLUMN note text; DROP TABLE estudio.progress"
    write_migration(f"{change}; SELECT pg_sleep(600)")
    running = begin(database_url, scripts)
    with psycopg.connect(database_url, autocommit=True) as connection:
        asleep = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        deadline = time.monotonic() + 60
        while connection.execute(asleep).fetchone() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert check(database_url) == LAST, "those who only check do not wait for it"
    running.kill()
    running.communicate()
    assert check(database_url) == LAST
    write_migration(change)
    become(scripts)
    assert migrate(database_url) == NEXT
    assert shape(database_url) != before


def test_migrations_at_the_same_time_are_carried_out_once(
    database_url: str, scripts: Path, write_migration: Callable[[str], None]
) -> None:
    write_migration("CREATE TABLE estudio.once (n int); SELECT pg_sleep(1)")
    running = [begin(database_url, scripts) for _ in range(3)]
    ended = [(each.communicate(), each.returncode) for each in running]
    assert [(said[0].strip(), status) for said, status in ended] == [(NEXT, 0)] * 3, ended


def test_tables_and_the_store_of_models_are_made_at_once_without_taking_each_others_changes(
    database_url: str,
    scripts: Path,
    write_migration: Callable[[str], None],
    become: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_migration("SELECT pg_sleep(1)")
    become(scripts)
    monkeypatch.setenv("ESTUDIO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ESTUDIO_MLFLOW_TRACKING_URI", raising=False)
    get_settings.cache_clear()
    importlib.import_module("mlflow.store.tracking.sqlalchemy_store")  # seconds, in which the other would be done
    with ThreadPoolExecutor(1) as pool:
        migrated = pool.submit(migrate, database_url)
        assert MLflowClientWrapper().client.search_experiments()[0].name == "Default"
        assert migrated.result() == migrations.newest()
    get_settings.cache_clear()
