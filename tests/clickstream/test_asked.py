"""What people ask for, what finds nothing, what brings nobody a click."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from estudio_core import database, exact_json
from estudio_core.cli import app
from estudio_core.clickstream.applications import declare
from estudio_core.clickstream.asked import AskedQuery, asked_queries
from estudio_core.clickstream.store import ClickstreamStore
from estudio_core.errors import ConfigurationError
from tests.clickstream.test_store import START, event, query

NOW = START + timedelta(days=1)


@pytest.fixture
def connection(estudio_home: Path) -> Iterator[psycopg.Connection]:
    with database.connect(autocommit=True) as connection:
        store = ClickstreamStore(connection)
        asked = ["Lamp", "lamp ", "red  lamp", "lamp", "sofa", "sofa", "  "]
        store.log_queries(
            query(
                number,
                user_query=text,
                client_id=f"c{number % 3}",
                query_response_hit_ids=() if "sofa" in text else ("a", "b"),
            )
            for number, text in enumerate(asked)
        )
        store.log_events([event(0, "a"), event(0, "b"), event(2, "a", "watch"), event(1, "a", "impression")])
        store.log_queries(
            [query(8, user_query="lamp", application="books"), query(9, timestamp=START - timedelta(days=99))]
        )
        yield connection


def test_queries_are_told_by_how_often_they_are_asked(connection: psycopg.Connection) -> None:
    assert asked_queries(connection, "shop", until=NOW) == [
        AskedQuery("lamp", searches=3, people=2, clicked=1, found_nothing=0, brought_nothing=2),
        AskedQuery("sofa", searches=2, people=2, clicked=0, found_nothing=2, brought_nothing=0),
        AskedQuery("red  lamp", searches=1, people=1, clicked=0, found_nothing=0, brought_nothing=1),
    ]
    assert [each.query for each in asked_queries(connection, "shop", until=NOW, most=1)] == ["lamp"]
    assert asked_queries(connection, "shop", until=START) == []
    assert asked_queries(connection, "nobody", until=NOW) == []


def test_what_finds_nothing_and_what_brings_nothing_are_told_apart(connection: psycopg.Connection) -> None:
    assert [each.query for each in asked_queries(connection, "shop", "found-nothing", until=NOW)] == ["sofa"]
    brought = asked_queries(connection, "shop", "brought-nothing", until=NOW)
    assert [(each.query, each.brought_nothing) for each in brought] == [("lamp", 2), ("red  lamp", 1)]
    declare(connection, "shop", clicks={"watch": 1.0})
    brought = asked_queries(connection, "shop", "brought-nothing", until=NOW)
    assert [(each.query, each.brought_nothing) for each in brought] == [("lamp", 2)]


def test_a_log_without_lists_says_not_what_found_nothing(connection: psycopg.Connection) -> None:
    store = ClickstreamStore(connection)
    store.log_queries(query(number, (), user_query="chair", application="bare") for number in range(2))
    store.log_events([event(1, "a", application="bare")])
    assert asked_queries(connection, "bare", until=NOW) == [AskedQuery("chair", 2, 0, 1, None, 1)]
    assert asked_queries(connection, "bare", "found-nothing", until=NOW) == []
    assert asked_queries(connection, "bare", "brought-nothing", until=NOW)[0].brought_nothing == 1


def test_a_search_that_its_events_alone_make_known_found_something(connection: psycopg.Connection) -> None:
    store = ClickstreamStore(connection)
    store.log_events([event(7, "a", "watch", query_id="only", user_query="stool")])
    assert [each.query for each in asked_queries(connection, "shop", "found-nothing", until=NOW)] == ["sofa"]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"days": 0}, "days is 0"),
        ({"days": float("nan")}, "days is nan"),
        ({"most": 0}, "1 to 1,000"),
        ({"order": "rare"}, "'popular', 'found-nothing', 'brought-nothing'"),
    ],
)
def test_what_is_not_legal_is_refused(connection: psycopg.Connection, wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        asked_queries(connection, "shop", **wrong)


def test_the_command_shows_them(connection: psycopg.Connection) -> None:
    given = ["clickstream", "queries", "shop", "--days", "36500", "--order"]
    answer = CliRunner().invoke(app, [*given, "found-nothing", "--json"])
    assert answer.exit_code == 0, answer.output
    assert exact_json.loads(answer.output) == [
        {"query": "sofa", "searches": 2, "people": 2, "clicked": 0, "found_nothing": 2, "brought_nothing": 0}
    ]
    assert "lamp" in CliRunner().invoke(app, [*given, "popular"]).output
    refused = CliRunner().invoke(app, [*given, "rare"])
    assert refused.exit_code == 1
    assert "legal are" in refused.output
    empty = CliRunner().invoke(app, ["clickstream", "queries", "nobody"])
    assert empty.exit_code == 0
    assert "No such query in the log of 'nobody' within 28 days." in " ".join(empty.output.split())
