"""A connection to a new database and brute force to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from estudio_core import database


@pytest.fixture
def conn(estudio_home: Path) -> Iterator[psycopg.Connection]:
    with database.connect(autocommit=True) as connection:
        yield connection


@pytest.fixture
def other(estudio_home: Path) -> Callable[[], psycopg.Connection]:
    """Opens further connections to the same database."""
    return lambda: database.connect(autocommit=True)
