"""The queue of changed ids: what the triggers write, what a reader sees and acknowledges."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from estudio_core.errors import ConfigurationError, SourceSchemaError
from estudio_core.sources.pgsql_text_loader import PgsqlTextLoader

TABLE = "it'ems \"; DROP TABLE safe; -- $estudio$ % {}"
KEY = "k'ey \" $$ :x"
QUEUE = "qu'eue \"; --"
NASTY = "'); DROP TABLE safe; -- \" % {} \\ :x Ü"


@pytest.fixture
def loader(database_url: str) -> PgsqlTextLoader:
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TABLE safe (n int)")
        connection.execute(
            sql.SQL("CREATE TABLE {} ({} text PRIMARY KEY, content text)").format(
                sql.Identifier(TABLE), sql.Identifier(KEY)
            )
        )
    return PgsqlTextLoader(database_url, table_name=TABLE, id_column=KEY, change_queue=QUEUE)


def change(database_url: str, statement: str) -> None:
    names = {"table": sql.Identifier(TABLE), "key": sql.Identifier(KEY), "nasty": sql.Literal(NASTY)}
    with psycopg.connect(database_url) as connection:
        connection.execute(sql.SQL(statement).format(**names))


def test_changes_of_any_kind_and_name_are_queued_once_each_and_kept_until_acknowledged(
    database_url: str, loader: PgsqlTextLoader
) -> None:
    queue = loader.change_queue
    assert queue is not None
    with pytest.raises(SourceSchemaError, match="queue-sql"):
        queue.read(10)
    with psycopg.connect(database_url) as connection:
        for _ in range(2):
            connection.execute(loader.change_queue_sql())
    change(database_url, "INSERT INTO {table} VALUES ({nasty}, 'x'), ('b', 'y')")
    change(database_url, "UPDATE {table} SET content = 'z' WHERE {key} = 'b'")
    change(database_url, "UPDATE {table} SET {key} = 'c' WHERE {key} = 'b'")
    change(database_url, "DELETE FROM {table} WHERE {key} = {nasty}")
    changes = queue.read(100)
    assert (changes.object_ids, changes.whole_table, len(changes.entries)) == ([NASTY, "b", "c"], False, 6)
    assert queue.read(100) == changes
    change(database_url, "TRUNCATE {table}")
    queue.acknowledge(changes.entries)
    rest = queue.read(100)
    assert (rest.object_ids, rest.whole_table, queue.depth()) == ([], True, 1)
    queue.acknowledge(rest.entries)
    assert queue.depth() == 0
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT to_regclass('safe')").fetchone() != (None,)


def test_an_entry_whose_transaction_commits_late_is_not_acknowledged_with_others(
    database_url: str, loader: PgsqlTextLoader
) -> None:
    queue = loader.change_queue
    assert queue is not None
    with psycopg.connect(database_url) as connection:
        connection.execute(loader.change_queue_sql())
    with psycopg.connect(database_url) as slow:
        slow.execute(sql.SQL("INSERT INTO {} VALUES ('first number', 'x')").format(sql.Identifier(TABLE)))
        change(database_url, "INSERT INTO {table} VALUES ('second number', 'x')")
        changes = queue.read(100)
        assert changes.object_ids == ["second number"]
        queue.acknowledge(changes.entries)
    assert queue.read(100).object_ids == ["first number"]


def test_whoever_writes_items_needs_no_right_on_the_queue(database_url: str, loader: PgsqlTextLoader) -> None:
    queue = loader.change_queue
    assert queue is not None
    role = "estudio_test_writer"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(loader.change_queue_sql())
        connection.execute(f"CREATE ROLE {role}")
        try:
            connection.execute(sql.SQL("GRANT ALL ON {} TO {}").format(sql.Identifier(TABLE), sql.Identifier(role)))
            connection.execute(f"SET ROLE {role}")
            connection.execute(sql.SQL("INSERT INTO {} VALUES ('a', 'x')").format(sql.Identifier(TABLE)))
            connection.execute("RESET ROLE")
        finally:
            connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert queue.read(1).object_ids == ["a"]


def test_a_queue_needs_a_name_and_a_table(database_url: str, loader: PgsqlTextLoader) -> None:
    with pytest.raises(ConfigurationError, match="change_queue="):
        PgsqlTextLoader(database_url, table_name=TABLE, id_column=KEY).change_queue_sql()
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE VIEW a_view AS SELECT 1 AS id, 'x'::text AS content")
    with pytest.raises(SourceSchemaError, match="is no table"):
        PgsqlTextLoader(database_url, table_name="a_view", change_queue="q").change_queue_sql()


def test_partitions_and_tables_that_inherit_feed_the_queue_too(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA cold")
        connection.execute("CREATE TABLE items (id int, content text, year int) PARTITION BY LIST (year)")
        connection.execute("CREATE TABLE cold.items_1 PARTITION OF items FOR VALUES IN (1) PARTITION BY LIST (id)")
        connection.execute('CREATE TABLE cold."items 1 a" PARTITION OF cold.items_1 DEFAULT')
        connection.execute("CREATE TABLE parents (id int, content text)")
        connection.execute("CREATE TABLE children () INHERITS (parents)")
        for table in ("items", "parents"):
            loader = PgsqlTextLoader(database_url, table_name=table, change_queue=f"{table}_changes")
            connection.execute(loader.change_queue_sql())
        connection.execute("CREATE TABLE cold.items_2 PARTITION OF items FOR VALUES IN (2)")
        connection.execute("INSERT INTO items VALUES (1, 'x', 1), (2, 'x', 2)")
        connection.execute("INSERT INTO children VALUES (3, 'x')")
        connection.execute("SET session_replication_role = replica")
        connection.execute("INSERT INTO parents VALUES (4, 'x')")
        connection.execute("RESET session_replication_role")
        queues = [
            PgsqlTextLoader(database_url, table_name=table, change_queue=f"{table}_changes").change_queue
            for table in ("items", "parents")
        ]
        found = [queue.read(10) for queue in queues if queue]
        assert [(changes.object_ids, changes.whole_table) for changes in found] == [
            (["1", "2"], False),
            (["3", "4"], False),
        ]
        connection.execute('TRUNCATE cold."items 1 a"')
        connection.execute("TRUNCATE children")
        assert [queue.read(10).whole_table for queue in queues if queue] == [True, True]


def test_a_queue_of_the_longest_name_has_a_function_and_triggers_of_its_own(database_url: str) -> None:
    names = [f"{'q' * 61}é", "q" * 63]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE items (id int, content text)")
        for name in names:
            loader = PgsqlTextLoader(database_url, table_name="items", change_queue=name)
            connection.execute(loader.change_queue_sql())
        connection.execute("INSERT INTO items VALUES (1, 'x')")
        connection.execute("TRUNCATE items")
    for name in names:
        queue = PgsqlTextLoader(database_url, table_name="items", change_queue=name).change_queue
        assert queue is not None
        assert (queue.read(10).object_ids, queue.read(10).whole_table) == (["1"], True)
    with pytest.raises(ConfigurationError, match="63 bytes"):
        PgsqlTextLoader(database_url, table_name="items", change_queue="q" * 64).change_queue_sql()


def test_a_table_whose_changes_nothing_queues_is_named(database_url: str) -> None:
    def unfed(table: str) -> list[str]:
        return PgsqlTextLoader(database_url, table_name=table, change_queue='The "changes"').unfed()

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE items (id int, content text) PARTITION BY LIST (id)")
        connection.execute('CREATE TABLE "Items 1" PARTITION OF items FOR VALUES IN (1)')
        connection.execute("CREATE TABLE parents (id int, content text)")
        connection.execute("CREATE VIEW seen AS SELECT * FROM parents")
        assert (unfed("items"), unfed("parents"), unfed("seen")) == (["items"], ["parents"], [])
        for table in ("items", "parents"):
            loader = PgsqlTextLoader(database_url, table_name=table, change_queue='The "changes"')
            connection.execute(loader.change_queue_sql())
        connection.execute("CREATE TABLE items_2 PARTITION OF items FOR VALUES IN (2)")
        assert (unfed("items"), unfed("parents")) == ([], [])
        connection.execute('ALTER TABLE "Items 1" DISABLE TRIGGER USER')
        connection.execute("CREATE TABLE children () INHERITS (parents)")
        assert (unfed("items"), unfed("parents")) == (['"Items 1"'], ["children"])
        connection.execute(
            "DROP TABLE items; CREATE TABLE items (id int, content text) PARTITION BY LIST (id);"
            "CREATE TABLE items_1 PARTITION OF items DEFAULT;"
            "CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            ' INSERT INTO "The ""changes""" (object_id) VALUES (NULL); RETURN NULL; END $$;'
            "CREATE TRIGGER own AFTER INSERT OR UPDATE OR DELETE ON items FOR EACH STATEMENT EXECUTE FUNCTION own()"
        )
        assert unfed("items") == [], "a trigger that somebody else wrote"
        connection.execute("DROP TRIGGER own ON items")
        connection.execute("CREATE TRIGGER own AFTER INSERT ON items FOR EACH STATEMENT EXECUTE FUNCTION own()")
        assert unfed("items") == ["items"], "one that tells of new rows alone"
