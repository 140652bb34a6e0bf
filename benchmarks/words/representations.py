"""Ways to keep the words of a catalog so that PostgreSQL finds the best by BM25. All give the same scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString

WEIGHT = "occurrences * 2.2 / (occurrences + 1.2 * (0.25 + 0.75 * length / %(average)s))"
"""Of a word in a text, k1 1.2 and b 0.75."""
COUNTED: LiteralString = (
    "(SELECT lexeme AS word, coalesce(cardinality(positions), 1) AS occurrences,"
    " sum(coalesce(cardinality(positions), 1)) OVER () AS length FROM unnest(d.document)) AS c"
)
ASKED: LiteralString = (
    "asked AS MATERIALIZED (SELECT t.word, ln(1 + (%(total)s - t.documents + 0.5) / (t.documents + 0.5)) AS idf"
    " FROM unnest(estudio.words('english', %(text)s)) AS a JOIN w_terms t ON t.word = a.lexeme)"
)
"""The words of a query with their idf, from a table of counts that all ways share."""
SPARSE: LiteralString = (
    "query AS MATERIALIZED (SELECT ('{' || string_agg(estudio.word_number(word) || ':' || idf::float4, ',')"
    " || '}/1000000000')::sparsevec AS weights FROM asked)"
)


@dataclass(frozen=True)
class Representation:
    """One way.

    Attributes:
        name: Of the row in the table.
        build: Statements that make it of `w_documents` (object_id, document).
        tables: What it takes beside the texts.
        insert: Statement that adds the documents of the ids `%(ids)s`; those of `delete` are gone before.
        delete: Statement that removes them.
        search: Statement of the ten best by words.
        exact: False where the ten best are not always found.
    """

    name: str
    build: tuple[str, ...]
    tables: tuple[str, ...]
    insert: str
    delete: str
    search: str
    exact: bool = True


_SPARSE_ROWS = (
    f"SELECT d.object_id, ('{{' || (SELECT string_agg(number || ':' || weight, ',') FROM ("
    f"SELECT estudio.word_number(word) AS number, sum({WEIGHT})::float4 AS weight FROM {COUNTED} GROUP BY 1) AS s)"
    " || '}/1000000000')::sparsevec AS weights"
)

REPRESENTATIONS = (
    Representation(
        "postings in a table",
        (
            f"CREATE TABLE w_postings AS SELECT c.word, d.object_id, ({WEIGHT})::float4 AS weight"
            f" FROM w_documents d CROSS JOIN LATERAL {COUNTED}",
            "CREATE INDEX w_postings_word ON w_postings (word) INCLUDE (object_id, weight)",
            "CREATE INDEX w_postings_object ON w_postings (object_id)",
        ),
        ("w_postings",),
        f"INSERT INTO w_postings SELECT c.word, d.object_id, ({WEIGHT})::float4 FROM w_documents d"
        f" CROSS JOIN LATERAL {COUNTED} WHERE d.object_id = ANY(%(ids)s)",
        "DELETE FROM w_postings WHERE object_id = ANY(%(ids)s)",
        f"WITH {ASKED} SELECT p.object_id FROM asked a JOIN w_postings p ON p.word = a.word"
        " GROUP BY p.object_id ORDER BY sum(a.idf * p.weight) DESC LIMIT 10",
    ),
    Representation(
        "tsvector, scores from its positions",
        (
            "CREATE TABLE w_texts AS SELECT object_id, document FROM w_documents",
            "CREATE INDEX w_texts_word ON w_texts USING gin (document)",
            "CREATE UNIQUE INDEX w_texts_object ON w_texts (object_id)",
        ),
        ("w_texts",),
        "INSERT INTO w_texts SELECT object_id, document FROM w_documents WHERE object_id = ANY(%(ids)s)",
        "DELETE FROM w_texts WHERE object_id = ANY(%(ids)s)",
        f"WITH {ASKED} SELECT d.object_id FROM w_texts d CROSS JOIN LATERAL (SELECT sum(a.idf * {WEIGHT}) AS score"
        f" FROM {COUNTED} JOIN asked a ON a.word = c.word) AS s"
        " WHERE d.document @@ (SELECT string_agg(quote_literal(word), ' | ') FROM asked)::tsquery"
        " ORDER BY s.score DESC LIMIT 10",
    ),
    Representation(
        "sparsevec, HNSW by inner product",
        (
            f"CREATE TABLE w_hnsw AS {_SPARSE_ROWS} FROM w_documents d",
            "CREATE UNIQUE INDEX w_hnsw_object ON w_hnsw (object_id)",
            "ALTER TABLE w_hnsw ALTER COLUMN weights TYPE sparsevec(1000000000)",
            "CREATE INDEX w_hnsw_word ON w_hnsw USING hnsw (weights sparsevec_ip_ops)",
        ),
        ("w_hnsw",),
        f"INSERT INTO w_hnsw {_SPARSE_ROWS} FROM w_documents d WHERE d.object_id = ANY(%(ids)s)",
        "DELETE FROM w_hnsw WHERE object_id = ANY(%(ids)s)",
        f"WITH {ASKED}, {SPARSE} SELECT object_id FROM w_hnsw"
        " ORDER BY weights <#> (SELECT weights FROM query) LIMIT 10",
        exact=False,
    ),
    Representation(
        "tsvector to find, sparsevec to score",
        (
            f"CREATE TABLE w_both AS SELECT s.*, strip(d.document) AS document FROM w_documents d"
            f" JOIN ({_SPARSE_ROWS} FROM w_documents d) AS s USING (object_id) ORDER BY length(d.document)",
            "CREATE INDEX w_both_word ON w_both USING gin (document)",
            "CREATE UNIQUE INDEX w_both_object ON w_both (object_id)",
        ),
        ("w_both",),
        f"INSERT INTO w_both SELECT s.*, strip(d.document) FROM w_documents d"
        f" JOIN ({_SPARSE_ROWS} FROM w_documents d WHERE d.object_id = ANY(%(ids)s)) AS s USING (object_id)",
        "DELETE FROM w_both WHERE object_id = ANY(%(ids)s)",
        f"WITH {ASKED}, {SPARSE} SELECT object_id FROM w_both"
        " WHERE document @@ (SELECT string_agg(quote_literal(word), ' | ') FROM asked)::tsquery"
        " ORDER BY weights <#> (SELECT weights FROM query) LIMIT 10",
    ),
)
