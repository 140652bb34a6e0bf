"""The words of a collection: two tables beside its objects, which triggers keep as the objects are.

`c_<id>_words` holds, for every object that has a text, its words (to find it by) and what each of them weighs by BM25
but for its idf (a sparse vector, whose inner product with the idf of a query's words is the score). `c_<id>_terms`
counts: how many of everybody's objects hold a word, and the most that it weighs in one of them, a bound by which a
search leaves out what cannot reach its page. Writers only ever add rows there, so that they never wait for each other;
what a word counts for is the sum of its rows. The row of the empty word counts the objects.

The words lie in the order of their number when a collection is built: where a search looks at some of many texts, it
meets the shortest first, in which words weigh most.

The average length, by which weights are normalised, is that of the objects the collection was built from; the idf
follows every write.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from estudio_core.lexical.settings import Bm25Settings
from estudio_core.vectordb.collection import Collection

EMPTY_AVERAGE = 30.0
"""Average length where a collection is built from nothing: about that of a product's title and short description."""
_EVENTS = {
    "INSERT": "NEW TABLE AS after",
    "UPDATE": "OLD TABLE AS before NEW TABLE AS after",
    "DELETE": "OLD TABLE AS before",
}


def build_words(conn: psycopg.Connection, collection: Collection) -> None:
    """Make the tables from the objects, and the triggers that keep them, in the caller's transaction.

    Where they are there already, nothing is done. Writers wait meanwhile.
    """
    settings = collection.index_info.lexical
    if settings is None or has_words(conn, collection):
        return
    conn.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(collection.objects))
    _read(conn, collection, settings)
    average = _average_length(conn, settings)
    weighing = (settings.title_weight, settings.k1, settings.b, average)
    conn.execute(
        sql.SQL(
            "CREATE TABLE {words} (object_id text NOT NULL, personal boolean NOT NULL, document tsvector NOT NULL,"
            " weights sparsevec NOT NULL);"
            " INSERT INTO {words} SELECT object_id, personal, strip(document), estudio.word_vector({weighing})"
            " FROM documents ORDER BY length(document), object_id;"
            " ALTER TABLE {words} ADD PRIMARY KEY (object_id);"
            " CREATE INDEX {by_word} ON {words} USING gin (document);"
            " CREATE TABLE {terms} (word text NOT NULL, documents bigint NOT NULL, most real NOT NULL);"
            # It has no key, without which logical replication would refuse to have rows deleted.
            " ALTER TABLE {terms} REPLICA IDENTITY FULL;"
            " INSERT INTO {terms} SELECT w.word, count(*), max(w.weight)"
            " FROM documents, estudio.word_weights({weighing}) AS w WHERE NOT personal GROUP BY w.word"
            " UNION ALL SELECT '', count(*), 0 FROM documents WHERE NOT personal;"
            " CREATE INDEX {of_word} ON {terms} (word) INCLUDE (documents, most);"
            " DROP TABLE documents;"
            " ANALYZE {words}, {terms}"
        ).format(
            words=collection.words,
            terms=collection.terms,
            by_word=sql.Identifier(collection.name("by_word")),
            of_word=sql.Identifier(collection.name("of_word")),
            weighing=sql.SQL(", ").join([sql.SQL("document"), *map(sql.Literal, weighing)]),
        )
    )
    for event, tables in _EVENTS.items():
        conn.execute(
            sql.SQL(
                "CREATE TRIGGER {} AFTER {} ON {} REFERENCING {} FOR EACH STATEMENT"
                " EXECUTE FUNCTION estudio.keep_words({}, {}, {}, {}, {})"
            ).format(
                sql.Identifier(f"keep_words_{event.lower()}"),
                sql.SQL(event),
                collection.objects,
                sql.SQL(tables),
                sql.Literal(collection.words.as_string(conn)),
                sql.Literal(collection.terms.as_string(conn)),
                sql.Literal(collection.index_info.text_config),
                sql.Literal(settings.title or ""),
                sql.SQL(", ").join(sql.Literal(str(value)) for value in weighing),
            )
        )
    for table in (collection.words, collection.terms):
        collection.mark(conn, table)


def has_words(conn: psycopg.Connection, collection: Collection) -> bool:
    """Return whether the collection's words are there."""
    found = conn.execute("SELECT to_regclass(%s) IS NOT NULL", (collection.words.as_string(conn),)).fetchone()
    return found == (True,)


def compact_terms(conn: psycopg.Connection, collection: Collection) -> None:
    """Make one row of the rows that writers have added for a word; searches read fewer, and see the same."""
    if has_words(conn, collection):
        conn.execute(
            sql.SQL(
                "WITH several AS (SELECT word FROM {terms} GROUP BY word HAVING count(*) > 1),"
                " gone AS (DELETE FROM {terms} t USING several s WHERE t.word = s.word RETURNING t.*)"
                " INSERT INTO {terms} SELECT word, sum(documents), max(most) FROM gone GROUP BY word"
            ).format(terms=collection.terms)
        )


def _read(conn: psycopg.Connection, collection: Collection, settings: Bm25Settings) -> None:
    """Read the words of all objects into a table of this transaction."""
    conn.execute(
        sql.SQL(
            "CREATE TEMP TABLE documents ON COMMIT DROP AS"
            " SELECT object_id, user_id IS NOT NULL AS personal,"
            " estudio.object_words({}::regconfig, payload ->> {}, body) AS document FROM {} WHERE body <> ''"
        ).format(sql.Literal(collection.index_info.text_config), sql.Literal(settings.title or ""), collection.objects)
    )


def _average_length(conn: psycopg.Connection, settings: Bm25Settings) -> float:
    row = conn.execute(
        "SELECT avg((SELECT sum(occurrences) FROM estudio.word_counts(document, %s)))"
        " FROM documents WHERE NOT personal",
        (settings.title_weight,),
    ).fetchone()
    return EMPTY_AVERAGE if row is None or row[0] is None else float(row[0])
