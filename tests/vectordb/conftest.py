"""A connection to a new database and brute force to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from estudio_core import database
from estudio_core.vectordb import first_page


@pytest.fixture(autouse=True)
def _no_shape_of_another_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collections of the same name are in every test's database."""
    monkeypatch.setattr(first_page, "_shapes", {})


@pytest.fixture
def conn(estudio_home: Path) -> Iterator[psycopg.Connection]:
    with database.connect(autocommit=True) as connection:
        yield connection


@pytest.fixture
def other(estudio_home: Path) -> Callable[[], psycopg.Connection]:
    """Opens further connections to the same database."""
    return lambda: database.connect(autocommit=True)
