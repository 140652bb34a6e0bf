"""The connection layer: schema, redaction, errors."""

from __future__ import annotations

import psycopg
import pytest

from estudio_core import database
from estudio_core.errors import DatabaseUnavailableError


def test_schema_can_be_created_again(database_url: str) -> None:
    with database.connect(database_url) as connection:
        database.ensure_schema(connection)
        database.ensure_schema(connection)
        row = connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'estudio'").fetchone()
    assert row == (1,)


def test_unreachable_database_is_named_without_its_password() -> None:
    with pytest.raises(DatabaseUnavailableError) as caught:
        database.connect("postgresql://reader:hunter2@127.0.0.1:1/shop")
    assert "127.0.0.1:1/shop" in str(caught.value)
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
