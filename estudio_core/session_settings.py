"""What a role, a database or a client may have set for a session, and Estudio needs to be one way."""

from __future__ import annotations

SPELLING = {
    "client_encoding": "UTF8",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
}
"""How values are written and statements are read: what is not so falsifies values, or is an error of the driver."""
PATIENCE = {
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
"""Of every session: rows are read while others are embedded, a pool holds connections that nobody uses for a while. The
server notices within a minute that a client's host is gone without a word, and gives its locks to others; by the
defaults of most systems, after two hours."""
SEARCHING = {
    **SPELLING,
    **PATIENCE,
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "gin_fuzzy_search_limit": "0",
}
"""Of a pool: a deadline that the database sets for a statement stays. An index gives all rows, not some by lot."""
OWN = {**SEARCHING, "statement_timeout": "0", "lock_timeout": "0"}
"""Of connections that build, write and hold locks: they take as long as there is work, and have deadlines of their own
where others wait for them."""

SET = (
    "SELECT pg_catalog.set_config(s.name, CASE WHEN s.name = 'client_encoding'"
    " AND pg_catalog.current_setting('server_encoding') = 'SQL_ASCII' THEN 'SQL_ASCII' ELSE s.value END, {local})"
    " FROM unnest(%s::text[], %s::text[]) AS s (name, value)"
    " JOIN pg_catalog.pg_settings p ON lower(p.name) = lower(s.name)"
)
"""Sets what the server has of names and values, given as two arrays. A server that knows no encoding would only look
whether its bytes are UTF-8, and fail where some are not: those of single values are to be looked at."""
SEE_PGVECTOR = """
    SELECT pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ', CASE WHEN hidden THEN place END,
        nullif(path, ''), CASE WHEN NOT hidden AND NOT seen THEN place END), false)
    FROM (
        SELECT pg_catalog.quote_ident(n.nspname) AS place, n.nspname = ANY (pg_catalog.current_schemas(true)) AS seen,
            EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.typnamespace <> n.oid
                AND t.oid IN (pg_catalog.to_regtype('vector'), pg_catalog.to_regtype('halfvec'))) AS hidden,
            CASE WHEN 'pg_catalog' = ANY (pg_catalog.current_schemas(false)) THEN (
                SELECT pg_catalog.string_agg(pg_catalog.quote_ident(s.name), ', ' ORDER BY s.place)
                FROM pg_catalog.unnest(pg_catalog.current_schemas(false)) WITH ORDINALITY AS s (name, place)
                WHERE s.name <> 'pg_catalog'
            ) ELSE pg_catalog.current_setting('search_path') END AS path
        FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
        WHERE e.extname = 'vector'
    ) AS here
"""
"""Puts the schema of pgvector last on the search path, where it is not on it; first, where a table of the user's is
called `vector`, whose rows are a type of that name. PostgreSQL's own names come before anybody's."""
