"""The demo's catalogue, ratings and simulated clickstream."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from estudio_core import database
from estudio_core.clickstream.store import ClickstreamStore
from estudio_core.demo import clickstream
from estudio_core.demo.catalog import PRODUCTS, LoadedCatalog, demo_queries, load_catalog, load_judgments, products
from estudio_core.errors import DataError, SourceSchemaError


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
    assert (len(judgments), judgments.pairs) == (135, 3668)
    assert judgments.object_ids <= {row["id"] for row in products()}


def test_the_queries_are_split_by_their_hash() -> None:
    queries = demo_queries()
    assert (len(queries.searched), len(queries.never_searched)) == (76, 40)
    assert not set(queries.searched) & set(queries.never_searched)
    assert queries == demo_queries()


def test_the_clickstream_is_simulated_for_searched_queries_only_and_written_once(
    connection: psycopg.Connection,
) -> None:
    judgments = load_judgments()
    queries = demo_queries(judgments)
    rankings = {q: [(object_id, 0.5) for object_id in list(judgments[q])[:20]] for q in queries.searched}
    end = datetime(2026, 3, 1, tzinfo=UTC)
    first = clickstream.replay_clickstream(connection, rankings, end=end)
    assert first.sessions == first.written == clickstream.SESSIONS
    assert 0.5 * first.sessions < first.clicked_sessions <= first.sessions
    assert clickstream.replay_clickstream(connection, rankings).written == 0

    sessions = list(ClickstreamStore(connection).sessions(clickstream.APPLICATION))
    assert {s.query for s in sessions} <= set(queries.searched)
    assert all(s.search_meta == {"simulated": True} for s in sessions)
    with pytest.raises(DataError, match="No ranking"):
        clickstream.replay_clickstream(connection, {})
