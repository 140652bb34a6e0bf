"""The connection layer: schema, redaction, errors."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from estudio_core import database, embedded_postgres
from estudio_core.errors import ConfigurationError, DatabaseUnavailableError
from estudio_core.settings import get_settings


def test_schema_can_be_created_again(database_url: str) -> None:
    with database.connect(database_url) as connection:
        database.ensure_schema(connection)
        database.ensure_schema(connection)
        row = connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'estudio'").fetchone()
    assert row == (1,)


def test_tables_that_are_there_are_looked_at_without_a_lock(database_url: str) -> None:
    with database.connect(database_url) as connection:
        database.ensure_schema(connection)
    with psycopg.connect(database_url) as dump, psycopg.connect(database_url) as writer:
        dump.execute("SELECT FROM estudio.sync_state")
        writer.execute("INSERT INTO estudio.change_log (plugin, op, object_id) VALUES ('p', 'delete', 'a')")
        with database.connect(database_url) as connection:
            connection.execute("SET statement_timeout = '2s'")
            database.ensure_schema(connection)
        writer.rollback()


def test_tables_of_another_version_that_are_in_use_are_named(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "SCHEMA_LOCK_TIMEOUT_S", 0.2)
    with database.connect(database_url, autocommit=True) as connection:
        database.ensure_schema(connection)
        connection.execute("UPDATE estudio.schema_version SET digest = 'earlier'")
        with psycopg.connect(database_url) as dump:
            dump.execute("SELECT FROM estudio.sync_state")
            with pytest.raises(DatabaseUnavailableError, match="another transaction has used them"):
                database.ensure_schema(connection)
        database.ensure_schema(connection)
        row = connection.execute("SELECT digest = 'earlier' FROM estudio.schema_version").fetchone()
    assert row == (False,)


def test_transactions_see_what_was_committed_whatever_the_server_s_default(database_url: str) -> None:
    strict = "-c default_transaction_isolation=serializable"
    with database.connect(database_url, autocommit=True, options=strict) as connection, connection.transaction():
        assert connection.execute("SHOW transaction_isolation").fetchone() == ("read committed",)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://reader:hunter2@127.0.0.1:1/shop",
        "postgresql+psycopg2://reader:hunter2@127.0.0.1:1/shop",
        "host=127.0.0.1 port=1 dbname=shop user=reader password=hunter2",
        "postgresql://127.0.0.1:1/shop?user=reader&password=hunter2",
    ],
)
def test_unreachable_database_is_named_without_its_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESTUDIO_DATABASE_URL", url)
    get_settings.cache_clear()
    with pytest.raises(DatabaseUnavailableError) as caught:
        database.connect()
    get_settings.cache_clear()
    assert "PostgreSQL at reader@127.0.0.1:1/shop does not answer" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://reader:hunter2@db/shop",
        "postgresql://reader:hunter2@[db/shop",
        "postgresql://reader:hunter2/x@db/shop",  # the / was not encoded: libpq reads "hunter2" as a port
        "reader:hunter2@db/shop",
        "postgresql://reader:a@hunter2@db/shop",  # the @ was not encoded: libpq reads "hunter2@db" as the host
        "postgresql://reader:1/hunter2@db/shop",
    ],
)
def test_a_database_url_that_cannot_be_read_is_refused_without_its_password(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESTUDIO_DATABASE_URL", url)
    get_settings.cache_clear()
    with pytest.raises(ConfigurationError, match=r"postgresql://user:password@host") as caught:
        database.connect()
    get_settings.cache_clear()
    assert "hunter2" not in str(caught.value)


def test_transaction_rolls_back_on_error(estudio_home: object) -> None:
    with database.transaction() as connection:
        connection.execute("CREATE TABLE kept (n int)")
    with pytest.raises(psycopg.errors.DivisionByZero):  # noqa: PT012, SIM117 (both statements are one transaction)
        with database.transaction() as connection:
            connection.execute("INSERT INTO kept VALUES (1)")
            connection.execute("SELECT 1 / 0")
    with database.transaction() as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_a_crash_is_one_error_and_what_comes_after_the_restart_works_again(
    databases_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = databases_folder / "crashing"
    try:
        monkeypatch.setenv("ESTUDIO_DATABASE_URL", embedded_postgres.start(folder))
        get_settings.cache_clear()
        with database.connect() as connection:
            database.ensure_schema(connection)
        postmaster = psutil.Process(int((folder / "postmaster.pid").read_text().split()[0]))

        def crash() -> None:
            with database.transaction() as connection:
                connection.execute("CREATE TABLE lost (n int)")
                postmaster.kill()
                postmaster.wait(10)
                connection.execute("SELECT 1")

        with pytest.raises(DatabaseUnavailableError, match="went away"):
            crash()
        embedded_postgres.start(folder)
        with database.transaction() as connection:
            assert connection.execute("SELECT to_regclass('lost')").fetchone() == (None,)
        with pytest.raises(psycopg.errors.UndefinedTable), database.transaction() as connection:
            connection.execute("SELECT FROM lost")
    finally:
        embedded_postgres.stop(folder)
        get_settings.cache_clear()


def test_a_server_that_is_away_is_asked_again_and_again_in_short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def refuse(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                listener.accept()[0].close()
                asked.append(time.monotonic())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        threading.Thread(target=refuse, args=(listener,), daemon=True).start()
        monkeypatch.setenv("ESTUDIO_DATABASE_URL", f"postgresql://reader@127.0.0.1:{port}/shop")
        monkeypatch.setattr(database, "CONNECTION_TIMEOUT_S", 6.0)
        get_settings.cache_clear()
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailableError, match="no connection within 6 s"), database.transaction():
            pass
        listener.shutdown(socket.SHUT_RDWR)
    get_settings.cache_clear()
    waits = [later - earlier for earlier, later in zip([began, *asked], [*asked, time.monotonic()], strict=True)]
    assert max(waits) < 2.5, waits


def test_a_server_is_found_also_where_the_working_folder_is_gone(
    tmp_path: Path, estudio_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "home" / "postgres"
    url = embedded_postgres.start(folder)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    try:
        assert embedded_postgres.url_of(tmp_path / "home") == url
    finally:
        monkeypatch.chdir(tmp_path)
        embedded_postgres.stop(folder)
