"""A newcomer's first hour: README and docs/plugin.md followed to the letter over a table of 200 rows."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from estudio_core import database, local
from estudio_core.errors import NotEnoughDataError
from estudio_core.local.runs import wait_for_dag
from estudio_core.searching import search
from estudio_core.vectordb.releases import live_release
from tests.running.runs import PATIENCE_S, until
from tests.running.stack import open_stack

pytestmark = [pytest.mark.e2e, pytest.mark.proof, pytest.mark.timeout(6 * PATIENCE_S)]

DOCS = (Path(__file__).parents[2] / "docs" / "plugin.md").read_text(encoding="utf-8")
KINDS = ("sea", "mountain", "city", "desert", "forest", "river", "island", "winter")
FORMS = ("stories", "poems", "guide", "atlas", "history")


def estudio(*arguments: str) -> str:
    """Run a command of the first hour as a shell does; return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "estudio_core.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_from_plugins_new_to_a_learned_release_by_the_written_steps() -> None:
    with open_stack() as stack:
        url = os.environ.get("ESTUDIO_DATABASE_URL") or database.database_url()
        rng = random.Random(3)
        titles = [f"{FORMS[n % 5]} of the {KINDS[n % 8]}, volume {n}" for n in range(200)]
        books = [(f"978-{n}", title, f"About the {KINDS[n % 8]}.", 1950 + n % 70) for n, title in enumerate(titles)]
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA library")
            connection.execute("CREATE TABLE library.books (isbn text PRIMARY KEY, title text, blurb text, year int)")
            with connection.cursor() as cursor:
                cursor.executemany("INSERT INTO library.books VALUES (%s, %s, %s, %s)", books)

        # README: "A plugin for your own table".
        new = (
            "plugins new books --table books --id-column isbn --text title --text blurb --payload title --payload year"
        )
        written = estudio(*new.split(), "--connection", "library")
        assert "estudio plugins validate books" in written
        known = psycopg.conninfo.conninfo_to_dict(url)
        extra = json.dumps({"options": "-c search_path=library", "host": known["host"]})
        added = estudio(
            *("airflow", "connections", "add", "library", "--conn-type", "postgres", "--conn-extra", extra),
            *("--conn-login", str(known["user"]), "--conn-schema", str(known["dbname"])),
            *(("--conn-password", str(known["password"])) if known.get("password") else ()),
        )
        assert "library" in added
        validated = estudio("plugins", "validate", "books")
        assert "wrong" not in validated
        assert "2 loaded and split" in validated

        # docs/plugin.md: "From the table to the first search".
        wait_for_dag("books__initialize", api=stack.api(), timeout_s=PATIENCE_S)
        local.trigger("books__initialize", run_id="first", api=stack.api())
        assert local.wait("books__initialize", "first", api=stack.api(), timeout_s=PATIENCE_S).succeeded
        shown = estudio("search", "sea stories", "--plugin", "books")
        assert "of the sea" in shown, "the item column shows titles"

        [rows] = re.findall(r"```sql\n(.*?)```", DOCS, re.DOTALL)
        with psycopg.connect(url, autocommit=True) as connection:
            for n in range(160):
                kind = KINDS[n % 8]
                query = f"{kind} {FORMS[n % 5]} {n // 20}"
                ids = [hit.object_id for hit in search("books", query, limit=8).hits]
                clicked = rng.choice([b[0] for b in books if kind in b[1]])
                ids = list(dict.fromkeys([*ids[:5], clicked]))
                statement = rows.replace("'978-1', '978-7', '978-4'", ", ".join(f"'{i}'" for i in ids))
                statement = statement.replace("'978-7', 2", f"'{clicked}', {ids.index(clicked) + 1}")
                statement = statement.replace("sea stories", query).replace("f3a1", f"q{n}").replace("e907", f"e{n}")
                # Many people, some hours ago: what is new may still be clicked, and waits; what one does counts little.
                statement = statement.replace("visitor-12", f"visitor-{n // 2}")
                statement = statement.replace("now()", "now() - interval '3 hours'")
                connection.execute(statement.encode())

        local.trigger("books__fine_tune", {"min_sessions": 50, "num_epochs": 1}, "learn", api=stack.api())
        assert local.wait("books__fine_tune", "learn", api=stack.api(), timeout_s=2 * PATIENCE_S).succeeded
        if version_live() == "1":  # few clicks cannot tell: the written way on is the alias, or a run of the release
            local.trigger("books__release", {"version": "challenger"}, "by-hand", api=stack.api())
            assert local.wait("books__release", "by-hand", api=stack.api(), timeout_s=PATIENCE_S).succeeded
        until(lambda: version_live() == "2", "the learned version serves")
        assert search("books", "winter atlas").model_version == "2"
        assert "books" in estudio("promotions", "--plugin", "books")

        # And its end.
        assert "Delete its files too" in estudio("plugins", "remove", "books", "--yes")
        with pytest.raises(Exception, match="Nothing is live for plugin 'books'"):
            search("books", "winter atlas")


def version_live() -> str:
    with database.connect() as connection:
        release = live_release(connection, "books")
    if release is None:
        raise NotEnoughDataError("nothing is live")
    return release.model_version
