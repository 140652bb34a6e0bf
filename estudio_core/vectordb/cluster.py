"""Whether this is the cluster whose transaction ids stand in the change log, and what follows where it is not.

After a dump and restore, a logical replication to a new version, or an upgrade in place, the rows are in another
cluster, where transactions have other numbers: marks that are transaction ids say nothing there, or the wrong thing.
Then every collection that is not live is taken to lack all that its sequence number does not cover, the log is dated
before all transactions, and builds under way are failed, because what they wrote may be of one cluster and the other.
"""

from __future__ import annotations

import logging
from weakref import WeakSet

import psycopg
from psycopg import sql

from estudio_core.errors import ConfigurationError

logger = logging.getLogger(__name__)

_LOCK = 4_837_201_156
_at_home: WeakSet[psycopg.Connection] = WeakSet()
_REASON = "the database was moved to another cluster while it was being built: run its release again"


def settle_cluster(conn: psycopg.Connection) -> bool:
    """Make the marks of the change log right for this cluster; return whether they were those of another.

    Called before anything is applied by them, pruned by them, or begun. The connection is in no transaction, or the
    caller's is rolled back where something later in it fails.
    """
    if _is_home(conn):
        return False
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        if _is_home(conn):
            return False
        # 3 is the first ordinary transaction of any cluster; entries that are still open here keep their own.
        conn.execute("UPDATE estudio.change_log SET xid = '3'")
        conn.execute("UPDATE estudio.deployments SET applied_xid = '0'")
        _advance_sequences(conn)
        failed = conn.execute(
            "WITH failed AS (UPDATE estudio.deployments"
            " SET state = 'failed', failed_at = clock_timestamp(), reason = %s"
            " WHERE state IN ('building', 'built', 'verified') RETURNING plugin, release_id), noted AS ("
            "INSERT INTO estudio.release_events (plugin, release_id, event, actor, details)"
            " SELECT plugin, release_id, 'failed', 'estudio', jsonb_build_object('reason', %s::text) FROM failed)"
            " SELECT release_id FROM failed",
            (_REASON, _REASON),
        ).fetchall()
        conn.execute(
            "INSERT INTO estudio.cluster (identifier) SELECT system_identifier::text FROM pg_control_system()"
            " ON CONFLICT (only_one) DO UPDATE SET identifier = EXCLUDED.identifier"
        )
        logger.warning(
            "The database is in another cluster than before. All of the change log is applied again by its order%s.",
            f"; releases {[row[0] for row in failed]}, which were being built, have failed" if failed else "",
        )
    return True


def settle_for_write(conn: psycopg.Connection) -> None:
    """Do the same before something is written to the change log, once for each connection.

    Replication brings no sequences along: the first write in the new cluster would get a number that marks cover.

    Raises:
        ConfigurationError: the database was moved, and this role may not change what says so.
    """
    if conn in _at_home:
        return
    committed = conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    try:
        moved = settle_cluster(conn)
    except psycopg.errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            "The database was moved to another cluster, and nothing is written there before Estudio has taken note of "
            "it, which this role may not. Run once, as the role that runs tasks: estudio migrate"
        ) from error
    if committed or not moved:  # what a caller's transaction has settled, it may take back
        _at_home.add(conn)


def _advance_sequences(conn: psycopg.Connection) -> None:
    """Let all sequences go on behind what is there: replication does not bring them along.

    A number of the change log below a mark would be taken for applied.
    """
    owned = conn.execute(
        "SELECT s.oid::regclass::text, d.refobjid::regclass::text, a.attname::text,"
        " d.refobjid = 'estudio.change_log'::regclass FROM pg_class s"
        " JOIN pg_depend d ON d.objid = s.oid AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')"
        " AND d.refclassid = 'pg_class'::regclass JOIN pg_attribute a ON a.attrelid = d.refobjid"
        " AND a.attnum = d.refobjsubid WHERE s.relkind = 'S' AND s.relnamespace = 'estudio'::regnamespace"
    ).fetchall()
    marks = sql.SQL(", (SELECT max(applied_seq) FROM estudio.deployments)")
    for sequence, table, column, is_log in owned:
        # The names come quoted.
        conn.execute(
            sql.SQL("SELECT setval({}, greatest((SELECT last_value FROM {}), (SELECT max({}) FROM {}), 1{}))").format(
                sql.Literal(sequence),
                sql.SQL(sequence),
                sql.Identifier(column),
                sql.SQL(table),
                marks if is_log else sql.SQL(""),
            )
        )


def _is_home(conn: psycopg.Connection) -> bool:
    with conn.transaction():
        row = conn.execute(
            "SELECT system_identifier::text IN (SELECT identifier FROM estudio.cluster) FROM pg_control_system()"
        ).fetchone()
    return row == (True,)
