"""Changes that fire no trigger and move no time: found at once where the catalog tells of them, in time else."""

from __future__ import annotations

import psycopg
import pytest

from estudio_core.pipeline.sync import sync
from estudio_core.plugin.registry import open_plugin
from estudio_core.sources.pgsql_data_loader import PgsqlDataLoader
from tests.pipeline.conftest import Shop
from tests.pipeline.test_sync import QUEUE, TIMES, compared_hours_ago, in_collection, in_table

PARTITIONED = """
    ALTER TABLE products RENAME TO products_old;
    CREATE TABLE makers (id int PRIMARY KEY);
    INSERT INTO makers VALUES (1), (2);
    CREATE TABLE products (id int, title text, kind text, changed_at timestamptz DEFAULT now(),
        maker int REFERENCES makers ON DELETE CASCADE) PARTITION BY RANGE (id);
    CREATE TABLE products_a PARTITION OF products FOR VALUES FROM (-9) TO (15);
    CREATE TABLE products_b PARTITION OF products DEFAULT;
    INSERT INTO products SELECT id, title, kind, changed_at, CASE WHEN id = 30 THEN 2 ELSE 1 END FROM products_old;
"""
IN_THE_CATALOG = {
    "detached": "ALTER TABLE products DETACH PARTITION products_a",
    "attached": "ALTER TABLE products ATTACH PARTITION products_a FOR VALUES FROM (-9) TO (15)",
    "attached with rows that were never seen": """
        CREATE TABLE products_c (LIKE products);
        INSERT INTO products_c VALUES (1000, 'blue boat', 'boat', '2001-01-01', 1), (1001, 'kite', 'kite', NULL, 1);
        ALTER TABLE products ATTACH PARTITION products_c FOR VALUES FROM (1000) TO (1010)
    """,
    "truncated, without a trigger": "TRUNCATE products_c",
    "dropped with rows": "INSERT INTO products_c VALUES (1002, 'boat', 'boat', NULL, 1); DROP TABLE products_c",
    "rewritten": "ALTER TABLE products ALTER COLUMN kind TYPE text USING upper(kind)",
    "renamed": "ALTER TABLE products RENAME COLUMN kind TO sort; ALTER TABLE products RENAME COLUMN title TO kind;"
    "ALTER TABLE products RENAME COLUMN sort TO title",
    "another column of that name": "ALTER TABLE products DROP COLUMN title; ALTER TABLE products RENAME kind TO title;"
    "ALTER TABLE products ADD COLUMN kind text DEFAULT 'new'",
    "made anew": """
        CREATE TABLE made (LIKE products INCLUDING ALL);
        INSERT INTO made SELECT * FROM products;
        UPDATE made SET title = title || ' anew' WHERE id = 40;
        DELETE FROM made WHERE id = 41;
        DROP TABLE products;
        ALTER TABLE made RENAME TO products
    """,
}
BY_STATEMENTS = {
    "copied": "COPY products (id, title, kind) FROM STDIN",
    "merged": """
        MERGE INTO products p USING (VALUES (16, 'merged', 'x'), (700, 'inserted', 'y'), (17, NULL, NULL))
            AS v (id, title, kind) ON p.id = v.id
        WHEN MATCHED AND v.title IS NULL THEN DELETE
        WHEN MATCHED THEN UPDATE SET title = v.title, changed_at = clock_timestamp()
        WHEN NOT MATCHED THEN INSERT (id, title, kind) VALUES (v.id, v.title, v.kind)
    """,
    "put in again": "INSERT INTO products (id, title, kind) SELECT 701, title, kind FROM products WHERE id = 18;"
    "DELETE FROM products WHERE id = 18",
    "moved to another partition": "UPDATE products SET id = CASE id WHEN 59 THEN -1 ELSE 702 END WHERE id IN (59, 1)",
    "deleted by a reference": "DELETE FROM makers WHERE id = 2",
    "deleted by a rule": """
        CREATE VIEW of_sellers AS SELECT * FROM products;
        CREATE RULE gone AS ON DELETE TO of_sellers DO INSTEAD DELETE FROM products WHERE id = OLD.id;
        DELETE FROM of_sellers WHERE id = 19;
        DROP VIEW of_sellers
    """,
    "applied by replication": """
        SET session_replication_role = replica;
        UPDATE products SET title = 'replicated', changed_at = clock_timestamp() WHERE id = 20;
        DELETE FROM products WHERE id = 21
    """,
}


def feed_queue(shop: Shop) -> None:
    loader = open_plugin("shop").loader
    assert isinstance(loader, PgsqlDataLoader)
    with psycopg.connect(shop.database_url) as connection:
        connection.execute(loader.change_queue_sql())


@pytest.mark.parametrize("items", [TIMES, QUEUE], ids=["times", "queue"])
def test_rows_that_come_and_go_in_any_way_are_followed(indexed_shop: Shop, items: str) -> None:
    indexed_shop.sql(PARTITIONED)
    indexed_shop.rewrite_plugin('payload=("title", "kind")', items)
    method = "updated_at"
    if items == QUEUE:
        feed_queue(indexed_shop)
        method = "queue"
    assert sync("shop", {}).method == "everything"
    for name, statement in BY_STATEMENTS.items():
        with psycopg.connect(indexed_shop.database_url) as connection, connection.cursor() as cursor:
            if name == "copied":
                with cursor.copy(statement) as copy:
                    copy.write("600\tcopied\tz\n601\tcopied too\tz\n")
            else:
                cursor.execute(statement)
        done = sync("shop", {"overlap_minutes": 0})
        assert (done.method, done.note) == (method, ""), name
        assert in_collection() == in_table(indexed_shop), name
    for name, statement in IN_THE_CATALOG.items():
        indexed_shop.sql(statement)
        assert sync("shop", {"overlap_minutes": 0}).method == "everything", name
        assert in_collection() == in_table(indexed_shop), name
    assert in_collection()["40"]["title"].endswith(" anew")


def test_a_queue_that_nothing_feeds_is_no_reason_to_miss_changes(indexed_shop: Shop) -> None:
    indexed_shop.rewrite_plugin('payload=("title", "kind")', QUEUE)
    feed_queue(indexed_shop)
    sync("shop", {})
    assert sync("shop", {}).method == "queue"
    off, on = "ALTER TABLE products DISABLE TRIGGER USER", "ALTER TABLE products ENABLE TRIGGER USER"
    anew = "CREATE TABLE other AS SELECT * FROM products; DROP TABLE products; ALTER TABLE other RENAME TO products"
    for loses, mended in ((off, on), (anew, None)):
        indexed_shop.sql(loses)
        for number in range(2):
            indexed_shop.sql(f"UPDATE products SET title = 'unseen {number}' WHERE id = 5")
            done = sync("shop", {})
            assert (done.method, in_collection()["5"]["title"]) == ("everything", f"unseen {number}")
            assert done.note.startswith("No trigger queues the changes of products, ")
            assert done.note.endswith("estudio plugins queue-sql shop")
        feed_queue(indexed_shop) if mended is None else indexed_shop.sql(mended)
        assert sync("shop", {}).note == ""
        assert sync("shop", {}).method == "queue"


def test_what_a_view_reads_is_followed_where_its_time_moves_and_by_comparing_all_else(indexed_shop: Shop) -> None:
    indexed_shop.sql(
        "CREATE TABLE makers AS SELECT DISTINCT kind, 'fine ' || kind AS maker FROM products;"
        "CREATE VIEW sold AS SELECT id, title, maker AS kind, changed_at FROM products JOIN makers USING (kind)"
    )
    indexed_shop.rewrite_plugin('payload=("title", "kind")', TIMES)
    indexed_shop.rewrite_plugin('table="products"', 'table="sold"')
    sync("shop", {})

    def kinds() -> set[str]:
        return {item["kind"] for item in in_collection().values()}

    indexed_shop.sql("UPDATE makers SET maker = 'grand lamp' WHERE kind = 'lamp'")
    assert sync("shop", {"overlap_minutes": 0}).method == "updated_at"
    assert "grand lamp" not in kinds(), "nothing tells of it"
    compared_hours_ago(indexed_shop, 25)
    assert sync("shop", {}).payload_only == 10
    assert "grand lamp" in kinds()
    for statement, expected in (
        (
            "CREATE TABLE upper AS SELECT kind, upper(maker) AS maker FROM makers;"
            "TRUNCATE makers; INSERT INTO makers SELECT * FROM upper",
            "GRAND LAMP",
        ),
        (
            "CREATE OR REPLACE VIEW sold AS SELECT id, title, lower(maker) AS kind, changed_at"
            " FROM products JOIN makers USING (kind)",
            "grand lamp",
        ),
    ):
        indexed_shop.sql(statement)
        assert sync("shop", {}).method == "everything"
        assert expected in kinds()
    indexed_shop.sql("TRUNCATE makers")
    assert sync("shop", {"most_deleted_share": 1}).deleted == 60
