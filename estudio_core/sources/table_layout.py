"""What the catalog tells of tables that no trigger and no time of change does.

A partition attached or detached, a table made anew, a TRUNCATE, a column rewritten by ALTER TABLE, a view defined
otherwise: rows come, go and change, and nothing fires. Each of them leaves its mark in the catalog.
"""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql
from sqlalchemy import Connection, Table, text
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import ClauseElement

Name = tuple[str | None, str]
"""Schema, None for the search path, and table."""

_LAYOUT = text("""
    WITH RECURSIVE read_from AS (
        SELECT pg_catalog.to_regclass(name)::oid AS oid FROM unnest(CAST(:names AS text[])) AS name
        UNION
        SELECT further.oid FROM read_from CROSS JOIN LATERAL (
            SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent = read_from.oid
            UNION ALL
            SELECT d.refobjid FROM pg_catalog.pg_class v JOIN pg_catalog.pg_rewrite w ON w.ev_class = v.oid
                JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = w.oid
                    AND d.refclassid = 'pg_catalog.pg_class'::regclass
            WHERE v.oid = read_from.oid AND v.relkind = 'v'
        ) AS further (oid)
    )
    SELECT md5(string_agg(
        concat_ws(' ', c.oid, CASE WHEN c.relkind = 'r' THEN c.relfilenode END,
            CASE WHEN c.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(c.oid) END,
            (SELECT string_agg(concat_ws(' ', a.attnum, a.attname, pg_catalog.pg_get_expr(d.adbin, d.adrelid)), ', '
                    ORDER BY a.attnum)
                FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef d
                    ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)),
        '; ' ORDER BY c.oid))
    FROM read_from JOIN pg_catalog.pg_class c ON c.oid = read_from.oid
""")


def tables_of(query: ClauseElement) -> set[Name]:
    """Return the tables that a query names."""
    return {(each.schema, each.name) for each in visitors.iterate(query) if isinstance(each, Table)}


def layout(connection: Connection, tables: Iterable[Name]) -> str:
    """Return a mark of these tables, their partitions, and what views read: another one where something happened."""
    names = [sql.Identifier(*(part for part in name if part is not None)).as_string(None) for name in tables]
    return str(connection.execute(_LAYOUT, {"names": sorted(names)}).scalar_one())
