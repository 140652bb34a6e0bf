"""One installation, made once and put back before each test that starts from it."""

from __future__ import annotations

import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from estudio_core import database
from estudio_core.database import migrate
from estudio_core.settings import get_settings


class Snapshot:
    """A database and a folder as they were when they were kept.

    Args:
        server: URL of the PostgreSQL server that holds the database.
        root: A folder of its own; the installation stands in `place`, below it.
    """

    def __init__(self, server: str, root: Path) -> None:
        self.place = root / "place"
        self.kept: Any = None
        self._server = server
        self._folder = root / "kept"
        self._template = f"kept_{uuid.uuid4().hex[:12]}"

    def keep(self, database_url: str, value: Any) -> None:
        """Keep the database and the folder; `value` is what tests get with them."""
        shutil.copytree(self.place, self._folder)
        self._copy(_name(database_url), self._template)
        self.kept = value

    def restore(self, database_url: str) -> None:
        """Put both back; connections to the database end, those to stores of SQLite go on."""
        self.clear()
        shutil.copytree(self._folder, self.place, dirs_exist_ok=True, copy_function=_copy_file)
        self._drop(_name(database_url))
        self._copy(self._template, _name(database_url))

    def clear(self) -> None:
        """Empty the folder; files of SQLite stay, because MLflow keeps them open as long as the process lives."""
        for path in sorted(self.place.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.suffix != ".db":
                path.unlink()

    def drop(self) -> None:
        """Drop the kept database."""
        self._drop(self._template)

    def _copy(self, source: str, target: str) -> None:
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(target), sql.Identifier(source))
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(end, [source])
            connection.execute(copy)

    def _drop(self, name: str) -> None:
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _name(database_url: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(database_url)["dbname"])


def _copy_file(source: str, target: str) -> None:
    if source.endswith(".db"):
        with closing(sqlite3.connect(source)) as kept, closing(sqlite3.connect(target)) as place:
            kept.backup(place)
    else:
        shutil.copy2(source, target)


@pytest.fixture
def estudio_home(database_url: str, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The installation stands in the same place in each test: what it writes down holds its paths."""
    home = snapshot.place / "home"
    snapshot.clear()
    home.mkdir(parents=True, exist_ok=True)
    (snapshot.place / "triton_repo").mkdir(exist_ok=True)
    monkeypatch.setenv("ESTUDIO_HOME", str(home))
    monkeypatch.setenv("ESTUDIO_DATABASE_URL", database_url)
    monkeypatch.setenv("ESTUDIO_TRITON_REPOSITORY", str(snapshot.place / "triton_repo"))
    get_settings.cache_clear()
    migrate(database_url)
    yield home
    database.forget_pools()
    get_settings.cache_clear()
