"""How far the live items of a plugin follow its item source, and which ids the two do not share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from estudio_core.vectordb.collection import Collection


@dataclass(frozen=True)
class SyncState:
    """The last sync of a plugin that came to its end.

    Attributes:
        source: What was read and how changes were found.
        watermark: When it began to read, by the clock of the source; None where that knows no times of change.
        compared_at: When all items were compared last.
        synced_at: When that sync ended.
        release_id: The only release that rows were compared with since all were; None where there were several. Rows
            that it had already are not in the change log, so that another release may lack them.
    """

    source: str
    watermark: datetime | None
    compared_at: datetime
    synced_at: datetime
    release_id: int | None


@dataclass(frozen=True)
class IdDifference:
    """What source and collection do not share.

    Attributes:
        lacking: Ids of the source that the collection lacks.
        surplus: Ids of the collection that the source does not have.
        orphaned: Originals of personal rows that neither has.
        objects: Objects of the collection in all.
    """

    lacking: list[str]
    surplus: list[str]
    orphaned: list[str]
    objects: int


def read_sync_state(conn: psycopg.Connection, plugin: str) -> SyncState | None:
    """Return the state of a plugin; None before its first sync."""
    row = conn.execute(
        "SELECT source, watermark, compared_at, synced_at, release_id FROM estudio.sync_state WHERE plugin = %s",
        (plugin,),
    ).fetchone()
    return None if row is None else SyncState(*row)


def save_sync_state(
    conn: psycopg.Connection,
    plugin: str,
    source: str,
    watermark: datetime | None,
    *,
    compared: bool,
    release_id: int | None,
    counts: Mapping[str, Any],
) -> None:
    """Note that a sync came to its end.

    Args:
        conn: Connection.
        plugin: Name of the plugin.
        source: As in `SyncState`, like `watermark` and `release_id`.
        watermark: When it began to read.
        compared: Whether it compared all items.
        release_id: The only release that it compared rows with.
        counts: What became of the rows.
    """
    conn.execute(
        "INSERT INTO estudio.sync_state AS s (plugin, source, watermark, compared_at, synced_at, counts, release_id)"
        " VALUES (%(plugin)s, %(source)s, %(watermark)s, clock_timestamp(), clock_timestamp(), %(counts)s,"
        " %(release_id)s)"
        " ON CONFLICT (plugin) DO UPDATE SET source = EXCLUDED.source, watermark = EXCLUDED.watermark,"
        " compared_at = CASE WHEN %(compared)s THEN EXCLUDED.compared_at ELSE s.compared_at END,"
        " synced_at = EXCLUDED.synced_at, counts = EXCLUDED.counts, release_id = EXCLUDED.release_id",
        {
            "plugin": plugin,
            "source": source,
            "watermark": watermark,
            "compared": compared,
            "counts": Jsonb(dict(counts)),
            "release_id": release_id,
        },
    )


def forget_release(conn: psycopg.Connection, plugin: str) -> None:
    """Let the next sync compare everything, unless one comes to its end before."""
    conn.execute("UPDATE estudio.sync_state SET release_id = NULL WHERE plugin = %s", (plugin,))


def id_difference(conn: psycopg.Connection, collection: Collection, source_ids: Iterable[str]) -> IdDifference:
    """Compare the ids of the source with everybody's objects, in the database, whatever their number."""
    with conn.transaction():
        conn.execute("CREATE TEMPORARY TABLE estudio_source_ids (object_id text NOT NULL) ON COMMIT DROP")
        with conn.cursor() as cursor, cursor.copy("COPY estudio_source_ids FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["text"])
            for object_id in source_ids:
                copy.write_row((object_id,))
        conn.execute("ANALYZE estudio_source_ids")
        lacking = conn.execute(
            sql.SQL(
                "SELECT s.object_id FROM estudio_source_ids s WHERE NOT EXISTS"
                " (SELECT FROM {} o WHERE o.object_id = s.object_id AND o.user_id IS NULL)"
            ).format(collection.objects)
        ).fetchall()
        surplus = conn.execute(
            sql.SQL(
                "SELECT o.object_id FROM {} o WHERE o.user_id IS NULL AND NOT EXISTS"
                " (SELECT FROM estudio_source_ids s WHERE s.object_id = o.object_id)"
            ).format(collection.objects)
        ).fetchall()
        orphaned = conn.execute(
            sql.SQL(
                "SELECT DISTINCT u.original_id FROM {objects} u WHERE u.user_id IS NOT NULL AND NOT EXISTS"
                " (SELECT FROM {objects} o WHERE o.object_id = u.original_id) AND NOT EXISTS"
                " (SELECT FROM estudio_source_ids s WHERE s.object_id = u.original_id)"
            ).format(objects=collection.objects)
        ).fetchall()
        objects = conn.execute(
            sql.SQL("SELECT count(*) FROM {} WHERE user_id IS NULL").format(collection.objects)
        ).fetchone()
    assert objects is not None
    missing, gone, originals = ([row[0] for row in rows] for rows in (lacking, surplus, orphaned))
    return IdDifference(missing, gone, originals, objects[0])
