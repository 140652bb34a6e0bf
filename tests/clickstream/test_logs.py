"""Logs as writers write them: one small file an oddity, and what import and check say of it.

What is expected stands beside each log, `<name>.txt`: the sessions that training reads, and both tables as they are
printed. `ESTUDIO_WRITE_EXPECTED=1` writes them anew; read the difference.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from estudio_core import database
from estudio_core.cli import app
from estudio_core.clickstream.store import ClickstreamStore
from estudio_core.context import context
from estudio_core.settings import get_settings

FOLDER = Path(__file__).parent / "logs"
LOGS = sorted(path for path in FOLDER.iterdir() if path.suffix != ".txt")
OPTIONS = {
    "declared_otherwise.ndjson": ["--first-position", "1"],
    "sessions_table.csv": ["--timezone", "Europe/Berlin"],
}


@pytest.fixture(scope="module")
def url(postgres_server: str) -> Iterator[str]:
    """A database for all logs: each has applications of its own."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    address = postgres_server.replace("/postgres?", f"/{name}?")
    database.migrate(address)
    yield address
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(autouse=True)
def installation(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ESTUDIO_DATABASE_URL", url)
    get_settings.cache_clear()
    context.reset()
    yield
    get_settings.cache_clear()
    context.reset()


def told(path: Path) -> str:
    """Return what commands say of a log, and the sessions that it makes."""

    def run(*arguments: str) -> str:
        answer = CliRunner().invoke(app, ["clickstream", *arguments])
        assert answer.exit_code == 0, answer.output
        said = answer.output.replace(str(path), path.name)
        return re.sub(r"\(\d+\.\d s\)", "(0.1 s)", re.sub(r"[ \t]+\n", "\n", said))

    said = [f"$ estudio clickstream import {path.name} {' '.join(OPTIONS.get(path.name, []))}".rstrip() + "\n"]
    said.append(run("import", str(path), *OPTIONS.get(path.name, [])))
    applications = re.findall(r"^(\w+): [\d,]+ searches, ", said[-1], re.MULTILINE)
    for application in applications:
        said.append(f"\n$ estudio clickstream check {application}\n")
        said.append(run("check", application))
        said.append("\nsessions\n")
        with database.connect() as connection:
            for session in ClickstreamStore(connection).sessions(application):
                shown = " ".join(f"{result.object_id}@{result.position}" for result in session.search_results)
                done = " ".join(sorted(f"{event.object_id}*{event.importance:g}" for event in session.events))
                said.append(f"{session.created_at} {session.query!r}: {shown or '-'}; {done or 'no click'}\n")
    return "".join(said)


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.name)
def test_a_log_is_read_right_or_says_why_not(path: Path) -> None:
    found = told(path)
    expected = Path(f"{path}.txt")
    if os.environ.get("ESTUDIO_WRITE_EXPECTED"):
        expected.write_text(found, encoding="utf-8")
    assert found == expected.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.name)
def test_importing_it_again_changes_nothing(path: Path, url: str) -> None:
    def rows() -> list[tuple[object, ...]]:
        with psycopg.connect(url) as connection:
            return connection.execute(
                "SELECT to_jsonb(q) FROM estudio.ubi_queries q UNION ALL SELECT to_jsonb(e) FROM estudio.ubi_events e"
                " UNION ALL SELECT to_jsonb(a) FROM estudio.clickstream_applications a ORDER BY 1"
            ).fetchall()

    command = ["clickstream", "import", str(path), *OPTIONS.get(path.name, [])]
    CliRunner().invoke(app, command)
    before = rows()
    answer = CliRunner().invoke(app, command)
    assert (answer.exit_code, rows()) == (0, before)
    assert re.search(r"^ +0  searches taken", answer.output, re.MULTILINE)
    assert re.search(r"^ +0  events taken", answer.output, re.MULTILINE)
