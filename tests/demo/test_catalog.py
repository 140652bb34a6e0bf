"""The demo's catalogue and ratings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from estudio_core import database
from estudio_core.demo.catalog import PRODUCTS, LoadedCatalog, load_catalog, load_judgments, products
from estudio_core.errors import SourceSchemaError


@pytest.fixture
def connection(estudio_home: Path) -> Iterator[psycopg.Connection]:
    with database.connect() as connection:
        yield connection


def test_the_whole_catalogue_is_loaded_once_and_restored_where_rows_are_missing(
    connection: psycopg.Connection,
) -> None:
    assert load_catalog(connection) == LoadedCatalog(total=PRODUCTS, written=PRODUCTS)
    connection.execute("UPDATE products SET title = 'mine' WHERE id = 3920564")
    connection.execute("DELETE FROM products WHERE id % 1000 = 7")
    again = load_catalog(connection)
    assert again.total == PRODUCTS
    assert 0 < again.written < 100
    assert load_catalog(connection).written == 0
    row = connection.execute(
        "SELECT title, name, supplier, price_cents, date_released::text, ean, attributes ->> 't_printing_colours' "
        "FROM products WHERE id = 3920564"
    ).fetchone()
    assert row == ("mine", "006R90321", "Xerox", 4995, "2009-12-10", ["0095205603217"], "Black")


def test_a_small_cut_can_be_loaded_and_completed_later(connection: psycopg.Connection) -> None:
    assert load_catalog(connection, only={"3920564", "no such id"}) == LoadedCatalog(total=1, written=1)


def test_another_table_of_that_name_is_left_alone(connection: psycopg.Connection) -> None:
    connection.execute("CREATE TABLE products (sku text)")
    with pytest.raises(SourceSchemaError, match="not the demo's"):
        load_catalog(connection)
    assert connection.execute("SELECT count(*) FROM products").fetchone() == (0,)


def test_every_rated_product_is_in_the_catalogue() -> None:
    judgments = load_judgments()
    assert (len(judgments), judgments.pairs, len(judgments.answerable())) == (135, 3668, 116)
    assert judgments.object_ids <= {row["id"] for row in products()}
