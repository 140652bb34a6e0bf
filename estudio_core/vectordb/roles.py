"""Three roles with no more rights than they need: for processes that search, that write items, and that run tasks.

They are groups without a login: `GRANT estudio_reader TO web` makes of a login one that may search. Rights on a
collection are granted when it is made, so that a switch takes none away. Where the roles do not exist, nothing is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString

import psycopg
from psycopg import sql

READER, WRITER, OWNER = "estudio_reader", "estudio_writer", "estudio_owner"
ROLES = (READER, WRITER, OWNER)
_READ_BY_ALL: LiteralString = "SELECT"
_WRITTEN: LiteralString = "SELECT, INSERT, UPDATE, DELETE"
_LOGGED: LiteralString = "SELECT, INSERT"
_LED: LiteralString = "SELECT, UPDATE"
_SEARCHED = ("alembic_version", "deployments", "pointers", "cluster", "experiments")
_WRITER_WRITES = ("change_log", "ubi_queries", "clickstream_applications", "human_judgments")
"""Pages of a search are merged into its row, and what events alone told of it goes when it comes."""
_WRITER_LEADS = ("experiments",)
"""What a service says of them: where they stand, and that they are over."""
_WRITER_LOGS = ("ubi_events",)
_WRITER_READS = ("forgotten_clients", "service_keys")


def set_up_roles(conn: psycopg.Connection) -> list[str]:
    """Make the roles that are missing, and grant each what it needs on all that is there; return those that were made.

    Tables and collections become the owner's, so that every login that is granted it may change and drop them.

    Args:
        conn: Connection of a role that may make roles, or, where they are there, of one that owns the tables.
    """
    with conn.transaction():
        there = {row[0] for row in conn.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", (list(ROLES),))}
        made = [name for name in ROLES if name not in there]
        for name in made:
            conn.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name)))
        member = conn.execute("SELECT pg_has_role(%s, 'MEMBER')", (OWNER,)).fetchone()
        if member != (True,):
            conn.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(OWNER)))
        reader, writer, owner = map(sql.Identifier, ROLES)
        conn.execute(sql.SQL("GRANT USAGE ON SCHEMA estudio TO {}, {}").format(reader, writer))
        conn.execute(sql.SQL("GRANT USAGE, CREATE ON SCHEMA estudio TO {}").format(owner))
        _grant(conn, _READ_BY_ALL, _SEARCHED, (READER, WRITER))
        _grant(conn, _WRITTEN, _WRITER_WRITES, (WRITER,))
        _grant(conn, _LOGGED, _WRITER_LOGS, (WRITER,))
        _grant(conn, _LED, _WRITER_LEADS, (WRITER,))
        _grant(conn, _READ_BY_ALL, _WRITER_READS, (WRITER,))
        conn.execute(sql.SQL("GRANT USAGE ON SEQUENCE estudio.change_log_seq_seq TO {}").format(writer))
        tables = [
            row[0]
            for row in conn.execute(
                "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE n.nspname = 'estudio' AND c.relkind IN ('r', 'p') ORDER BY c.relname"
            )
        ]
        grant_collection(conn, [sql.Identifier("estudio", name) for name in tables if _is_collection(conn, name)])
        for name in tables:
            conn.execute(sql.SQL("ALTER TABLE {} OWNER TO {}").format(sql.Identifier("estudio", name), owner))
        conn.execute(sql.SQL("GRANT ALL ON ALL TABLES IN SCHEMA estudio TO {}").format(owner))
        return made


def grant_collection(conn: psycopg.Connection, tables: Sequence[sql.Identifier]) -> None:
    """Let readers read and writers write tables of a collection, and owners own them; in the caller's transaction."""
    row = conn.execute(
        "SELECT count(*), bool_or(rolname = %s AND pg_has_role(oid, 'USAGE')),"
        " bool_and(has_schema_privilege(oid, 'estudio', 'USAGE')) FROM pg_roles WHERE rolname = ANY(%s)",
        (OWNER, list(ROLES)),
    ).fetchone()
    # Roles are those of the whole server: another database may have set them up, and this one not.
    if row is None or row[0] != len(ROLES) or not row[2] or not tables:
        return
    listed = sql.SQL(", ").join(tables)
    conn.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(listed, sql.Identifier(READER)))
    conn.execute(sql.SQL("GRANT {} ON {} TO {}").format(sql.SQL(_WRITTEN), listed, sql.Identifier(WRITER)))
    conn.execute(sql.SQL("GRANT ALL ON {} TO {}").format(listed, sql.Identifier(OWNER)))
    if row[1]:
        for table in tables:
            conn.execute(sql.SQL("ALTER TABLE {} OWNER TO {}").format(table, sql.Identifier(OWNER)))


def _grant(conn: psycopg.Connection, rights: LiteralString, tables: Sequence[str], roles: Sequence[str]) -> None:
    conn.execute(
        sql.SQL("GRANT {} ON {} TO {}").format(
            sql.SQL(rights),
            sql.SQL(", ").join(sql.Identifier("estudio", name) for name in tables),
            sql.SQL(", ").join(map(sql.Identifier, roles)),
        )
    )


def _is_collection(conn: psycopg.Connection, name: str) -> bool:
    row = conn.execute(
        "SELECT obj_description(to_regclass(%s), 'pg_class') LIKE 'estudio:collection:%%'",
        (sql.Identifier("estudio", name).as_string(conn),),
    ).fetchone()
    return row == (True,)
