"""Tables of the tutorial (articles, authors, categories) and of other key types, in a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

ODD_KEYS = [
    "plain", "Plain", "with space", " leading", "quote'", 'double"quote', "'; DROP TABLE things; --", "back\\slash",
    "%s", "%(x)s", ":name", "ключ", "鍵", "é", "e\u0301", "😀", "Z", "a", "_", "0", "-1", "\t", "tab\there", "NULL",
]  # fmt: skip


ARTICLES = """
    CREATE TABLE authors (id serial PRIMARY KEY, name text NOT NULL);
    CREATE TABLE categories (id serial PRIMARY KEY, name text NOT NULL);
    CREATE TABLE articles (
        id serial PRIMARY KEY, title text, content text,
        author_id int REFERENCES authors, category_id int REFERENCES categories,
        updated_at timestamptz, author_email text
    );
    INSERT INTO authors (name) VALUES ('First author'), ('Second author');
    INSERT INTO categories (name) VALUES ('Cables'), ('Chargers');
    INSERT INTO articles (id, title, content, author_id, category_id, updated_at)
    SELECT i, 'Title ' || i, 'Content ' || i, 1 + i % 2, 1 + i % 2,
           timestamptz '2026-01-01 00:00Z' + i * interval '1 h'
    FROM unnest(ARRAY[1, 2, 4, 5, 10, 11, 100]) AS i;
    UPDATE articles SET content = NULL WHERE id = 4;
    UPDATE articles SET content = E' \\n' WHERE id = 5;
"""


@pytest.fixture
def execute(database_url: str) -> Callable[..., None]:
    """Runs a statement in the test's own database, once for each of the rows of values."""

    def run(statement: str, *rows: tuple[object, ...]) -> None:
        with psycopg.connect(database_url) as connection, connection.cursor() as cursor:
            if rows:
                cursor.executemany(statement, rows)
            else:
                cursor.execute(statement)

    return run


@pytest.fixture
def own_articles(execute: Callable[..., None], database_url: str) -> str:
    """URL of the test's own database with the tables of `articles`, to be written to."""
    execute(ARTICLES)
    return database_url


@pytest.fixture(scope="session")
def shared_database(postgres_server: str) -> str:
    """URL of a database that all tests of this folder read."""
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE sources_shared")
    url = postgres_server.replace("/postgres?", "/sources_shared?")
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(ARTICLES)
        cursor.execute("CREATE TABLE things (id text PRIMARY KEY, content text NOT NULL)")
        cursor.executemany("INSERT INTO things VALUES (%s, %s)", [(key, f"text of {key}") for key in ODD_KEYS])
    return url


@pytest.fixture
def articles(shared_database: str) -> str:
    """URL of a database with seven articles to read: 4 has no content, 5 a blank one, 3 is not there."""
    return shared_database


@pytest.fixture
def odd_keys(shared_database: str) -> str:
    """URL of a database with a table `things` of text keys that are easily mistreated, to read."""
    return shared_database
