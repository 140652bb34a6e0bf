"""The connection layer: redaction, errors, the embedded server."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from estudio_core import database, doctor, embedded_postgres, migrations
from estudio_core.database import migrate
from estudio_core.errors import ConfigurationError, DatabaseUnavailableError
from estudio_core.migrations.check import demands, schema_version
from estudio_core.settings import get_settings


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


def test_pools_are_forgotten_without_a_warning(estudio_home: object, caplog: pytest.LogCaptureFixture) -> None:
    with database.connection() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    database.forget_pools()
    assert [record.message for record in caplog.records if record.name.startswith("psycopg")] == []
    with database.connection() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_crash_is_one_error_and_what_comes_after_the_restart_works_again(
    databases_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = databases_folder / "crashing"
    try:
        monkeypatch.setenv("ESTUDIO_DATABASE_URL", embedded_postgres.start(folder))
        get_settings.cache_clear()
        migrate()
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


def test_an_embedded_server_that_is_started_has_its_tables_and_one_that_runs_keeps_them(
    databases_folder: Path, monkeypatch: pytest.MonkeyPatch, estudio_home: Path
) -> None:
    folder = databases_folder / "home" / "postgres"
    try:
        with database.connect(embedded_postgres.url_of(folder.parent, migrate), autocommit=True) as connection:
            assert database.require_schema(connection) == migrations.newest()
            connection.execute("DROP SCHEMA estudio CASCADE")
            monkeypatch.setattr(embedded_postgres, "_met", {})  # as in another process
            embedded_postgres.url_of(folder.parent, migrate)
            assert schema_version(connection) is None
    finally:
        embedded_postgres.stop(folder)


def test_a_server_is_found_also_where_the_working_folder_is_gone(
    tmp_path: Path, databases_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = databases_folder / "of nowhere"
    url = embedded_postgres.start(home / "postgres")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    try:
        assert embedded_postgres.url_of(home, migrate) == url
    finally:
        monkeypatch.chdir(tmp_path)
        embedded_postgres.stop(home / "postgres")


@pytest.mark.parametrize("name", ["my files", "it's", "100%25", "a&b;c", "ä#ö?", "(1)", "x/../y"])
def test_the_embedded_server_starts_in_a_folder_of_any_name(databases_folder: Path, name: str) -> None:
    home = databases_folder / name
    url = embedded_postgres.url_of(home, migrate)
    try:
        with database.connect(url) as connection:
            assert migrations.newest() == database.require_schema(connection)
        assert embedded_postgres.running_url(home / "postgres") == url
    finally:
        assert embedded_postgres.stop(home / "postgres")


def test_a_folder_that_its_start_script_would_misread_is_refused(databases_folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="ESTUDIO_HOME"):
        embedded_postgres.start(databases_folder / "a $(b)" / "postgres")


def test_a_home_below_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"file/home cannot be made: Not a directory\. Set ESTUDIO_HOME"):
        embedded_postgres.url_of(tmp_path / "file" / "home", migrate)
    found = doctor._writable("home", tmp_path / "file" / "home", "ESTUDIO_HOME")
    assert (found.state, found.detail) == ("missing", f"{tmp_path / 'file'} is no folder")


def role_of(url: str, name: str) -> str:
    return url.replace("postgres:@", f"{name}:@")


@pytest.fixture
def plain_role(database_url: str, postgres_server: str) -> Iterator[str]:
    """A role that may do nothing but connect."""
    name = f"r_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"DROP OWNED BY {name} CASCADE")
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP ROLE {name}")


def test_what_a_role_lacks_is_named_with_what_to_grant(database_url: str, plain_role: str) -> None:
    url = role_of(database_url, plain_role)
    name = database_url.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")
        with pytest.raises(ConfigurationError) as caught:
            migrate(url)
        grants = [
            f'CREATE SCHEMA estudio AUTHORIZATION "{plain_role}"',
            f'GRANT TEMPORARY ON DATABASE "{name}" TO "{plain_role}"',
            "CREATE EXTENSION vector",
        ]
        assert all(grant in str(caught.value) for grant in grants), caught.value
        owner.execute("CREATE SCHEMA ext")
        owner.execute("CREATE EXTENSION vector SCHEMA ext")
        for grant in grants[:2]:
            owner.execute(grant)
        with pytest.raises(ConfigurationError, match=f'GRANT USAGE ON SCHEMA "ext" TO "{plain_role}"'):
            migrate(url)
        owner.execute(f"GRANT USAGE ON SCHEMA ext TO {plain_role}")
        assert migrate(url) == migrations.newest()
        with database.connect(url) as connection:
            assert demands(connection) == []
        owner.execute(f"REVOKE UPDATE ON estudio.deployments FROM {plain_role}")
        owner.execute("ALTER TABLE estudio.pointers OWNER TO postgres")
        with database.connect(url) as connection:
            assert [str(demand) for demand in demands(connection)] == [
                f'role "{plain_role}" may not read and write deployments, pointers: '
                f'GRANT ALL ON ALL TABLES IN SCHEMA estudio TO "{plain_role}".'
            ]


def test_a_database_of_another_encoding_is_refused(postgres_server: str) -> None:
    name = f"t_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
        try:
            with pytest.raises(ConfigurationError, match=r"LATIN1.*ENCODING 'UTF8'"):
                migrate(postgres_server.replace("/postgres?", f"/{name}?"))
        finally:
            connection.execute(f"DROP DATABASE {name}")
