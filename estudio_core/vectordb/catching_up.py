"""How a collection that is not live (being built, a challenger's, kept for a rollback) gets the writes that it lacks.

Which entries of the change log it has is told by two marks, because a sequence number is handed out before its
transaction commits, and a smaller one may commit after a larger one:

- `applied_xid`, set at any time to the oldest transaction still running: all entries of older transactions are visible
  for good, and applied. A slow writer holds this mark back; it is neither skipped nor waited for.
- `applied_seq`, set only under the exclusive switch lock, when no writer is between its first lock and its commit:
  all numbers handed out so far are visible.

Marks are of the collection: releases that share one have the same. The live collection lacks nothing, whichever of
them is live, because writers write to it.

A collection that was never live lacks all personal rows, whatever its marks say: they are in no item source.

An entry is in the collection when `seq <= applied_seq` or `xid < applied_xid`. Writers of the same object follow each
other (`lock_objects`) before they get their numbers, so the order of the numbers is the order of the writes. Only the
last entry of an object counts: a writer that joins an old transaction has an old `xid`, so the marks alone may cover
the last entry and not the one before it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from estudio_core.vectordb.change_log import LAST, PERSONAL, EmbedWrites, ItemWrite, embedded
from estudio_core.vectordb.cluster import settle_cluster
from estudio_core.vectordb.releases import Release, add_stats, get_release, live_for_write

SERVES = sql.SQL(
    "EXISTS (SELECT FROM estudio.pointers JOIN estudio.deployments l USING (plugin, release_id)"
    " WHERE plugin = d.plugin AND l.collection_id = d.collection_id)"
)
"""Condition of releases `d`: their collection is live."""
APPLY_BATCH = 500
"""Objects that are embedded and written together."""
READ_ENTRIES = 20_000
"""Entries that are read at once without holding off writers: a build that took a day may lack millions."""


@dataclass(frozen=True)
class ChangeEntry:
    """The last write of an object that a collection lacks; `write` is None for a deletion."""

    seq: int
    object_id: str
    write: ItemWrite | None


def pending(
    conn: psycopg.Connection,
    release: Release,
    but: Collection[int] = (),
    *,
    after: str | None = None,
    limit: int | None = None,
) -> list[ChangeEntry]:
    """Return the last visible entry of each object that `release` may lack, by object id.

    Args:
        conn: Connection.
        release: The release.
        but: Sequence numbers of entries that are left out.
        after: Only those of objects whose ids come after this one.
        limit: Most of them.
    """
    # Read first, as the planner needs the marks to see that few entries follow them. They only grow: older ones name
    # entries too many, never too few.
    marks = conn.execute(
        sql.SQL(
            "SELECT applied_seq, applied_xid::text, NOT EXISTS (SELECT FROM estudio.deployments o"
            " WHERE o.collection_id = d.collection_id AND o.live_at IS NOT NULL)"
            " FROM estudio.deployments d WHERE release_id = %s AND NOT {}"
        ).format(SERVES),
        (release.release_id,),
    ).fetchone()
    if marks is None:
        return []
    rows = conn.execute(
        sql.SQL(
            "SELECT c.seq, c.op, c.object_id, c.data, c.payload, c.user_id, c.original_id FROM ("
            "SELECT c.seq FROM estudio.change_log c"
            " WHERE c.plugin = %(plugin)s AND c.seq > %(seq)s AND c.xid >= %(xid)s::xid8"
            " UNION SELECT c.seq FROM estudio.change_log c"
            " WHERE %(never_live)s AND c.plugin = %(plugin)s AND {}"
            ") lacking JOIN estudio.change_log c USING (seq) WHERE c.seq <> ALL(%(but)s) AND {}"
            " AND (%(after)s::text IS NULL OR c.object_id > %(after)s) ORDER BY c.object_id LIMIT %(limit)s"
        ).format(PERSONAL, LAST),
        {
            "plugin": release.plugin,
            **dict(zip(("seq", "xid", "never_live"), marks, strict=True)),
            "but": list(but),
            "after": after,
            "limit": limit,
        },
    )
    return [
        ChangeEntry(seq, object_id, ItemWrite(object_id, *item) if op == "upsert" else None)
        for seq, op, object_id, *item in rows
    ]


def catch_up(
    conn: psycopg.Connection, release: Release, embed: EmbedWrites, done: Collection[int] = ()
) -> frozenset[int]:
    """Apply what the change log has and `release` lacks, without holding off writers.

    Args:
        conn: Connection.
        release: A release that is not live.
        embed: Embeds items with the model of a release.
        done: Entries that this process has applied already.

    Returns:
        `done` and the entries applied now: until older transactions have ended they remain pending by the marks.
    """
    settle_cluster(conn)
    with conn.transaction():
        row = conn.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text").fetchone()
        assert row is not None
    # Read after the mark: every entry below the mark is visible to these later statements.
    applied: set[int] = set()
    last: str | None = None
    while True:
        with conn.transaction():
            entries = pending(conn, release, done, after=last, limit=READ_ENTRIES)
        if not entries:
            break
        for start in range(0, len(entries), APPLY_BATCH):
            apply(conn, release, entries[start : start + APPLY_BATCH], embed)
        applied.update(entry.seq for entry in entries)
        last = entries[-1].object_id
    with conn.transaction():
        conn.execute(
            "UPDATE estudio.deployments SET applied_xid = %s::xid8 WHERE collection_id = %s AND applied_xid < %s::xid8",
            (row[0], release.collection_id, row[0]),
        )
    return frozenset(done) | applied


def apply(conn: psycopg.Connection, release: Release, entries: Sequence[ChangeEntry], embed: EmbedWrites) -> None:
    """Write entries of different objects into the collection of `release`, in one transaction."""
    writes = [entry.write for entry in entries if entry.write is not None]
    deletes = [entry.object_id for entry in entries if entry.write is None]
    while True:
        objects, kept = embedded(conn, embed, release, writes)
        with conn.transaction():
            live = live_for_write(conn, release.plugin)
            if live is not None and live.collection_id == release.collection_id:
                return  # who made it live meanwhile has applied them, and later writes are not to be undone
            if not release.collection.keep_objects(conn, kept):
                continue
            release.collection.upsert_objects(conn, objects)
            release.collection.delete_objects(conn, deletes)
            changed = int(get_release(conn, release.release_id).stats.get("changed_objects", 0)) + len(entries)
            add_stats(conn, release, {"changed_objects": changed})
            return


def mark_applied(conn: psycopg.Connection, release: Release) -> None:
    """Note that all of the log is in the collection. Only under the exclusive switch lock."""
    conn.execute(
        "UPDATE estudio.deployments SET applied_seq = GREATEST(applied_seq,"
        " (SELECT COALESCE(max(seq), 0) FROM estudio.change_log WHERE plugin = %s)) WHERE collection_id = %s",
        (release.plugin, release.collection_id),
    )


def prune(conn: psycopg.Connection, plugin: str) -> int:
    """Delete the entries that no release can need any more; return how many.

    Living personal rows keep theirs. The live collection has all; a failed one begins again without them; others need
    what their marks do not cover, and the entries that followed it. The caller holds the start lock, so that no release
    begins between the look and the deletion.
    """
    return conn.execute(
        sql.SQL(
            "WITH needed AS (SELECT c.object_id, min(c.seq) AS seq FROM estudio.change_log c"
            " WHERE c.plugin = %(plugin)s AND (c.xid >= pg_snapshot_xmin(pg_current_snapshot()) OR EXISTS"
            " (SELECT 1 FROM estudio.deployments d WHERE d.plugin = c.plugin"
            " AND d.state IN ('building', 'built', 'verified', 'challenger', 'previous')"
            " AND NOT {} AND c.seq > d.applied_seq AND c.xid >= d.applied_xid)) GROUP BY c.object_id)"
            " DELETE FROM estudio.change_log c WHERE c.plugin = %(plugin)s AND NOT ({} AND {})"
            " AND NOT EXISTS (SELECT 1 FROM needed n WHERE n.object_id = c.object_id AND n.seq <= c.seq)"
        ).format(SERVES, PERSONAL, LAST),
        {"plugin": plugin},
    ).rowcount
