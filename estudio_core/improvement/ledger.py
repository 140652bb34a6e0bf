"""Moved vectors in a live collection: written with a way back, and taken back.

The rule: moved vectors belong to their collection and to every release that shares it, and are kept under the one that
it was built for. The next collection starts from what its model gives; a rollback brings back an earlier one with the
vectors that were moved in it. An item whose text changes is embedded anew and loses what was moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from estudio_core.database import json_numbers
from estudio_core.errors import ReleaseError
from estudio_core.vectordb.locks import lock_objects
from estudio_core.vectordb.objects import ID_LIMIT, IndexedObject
from estudio_core.vectordb.releases import Release, live_for_write
from estudio_core.vectordb.search import find_by_ids

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

State = Literal["applied", "refused", "off", "reverted"]
_AT_ONCE = 500
"""Objects written in one statement."""


@dataclass(frozen=True)
class Improvement:
    """One run of `<plugin>__improve` that came to a decision. Fields as in `migrations/versions`."""

    release_id: int
    run_id: str
    state: State
    until: datetime
    objects: int
    numbers: dict[str, float]
    reason: str
    at: datetime


@dataclass(frozen=True)
class MovedObject:
    """An object, the vectors [parts, dim] that the model gave it, and those it shall have."""

    object_id: str
    user_id: str | None
    content_hash: str
    base: Vectors
    vectors: Vectors

    @property
    def stored_id(self) -> str:
        """Its id in the collection: personal rows have one of their own."""
        return self.object_id if self.user_id is None else f"{self.object_id}\x1f{self.user_id}"


def history(conn: psycopg.Connection, plugin: str, release_id: int | None = None) -> list[Improvement]:
    """Return the decisions of a plugin, the latest first: of all releases, or of those with the collection of one."""
    with conn.cursor(row_factory=class_row(Improvement)) as cursor:
        return cursor.execute(
            "SELECT release_id, run_id, state, until, objects, numbers, reason, at FROM estudio.improvements"
            " WHERE plugin = %s AND (%s::bigint IS NULL OR release_id IN (SELECT o.release_id"
            " FROM estudio.deployments d JOIN estudio.deployments o USING (collection_id) WHERE d.release_id = %s))"
            " ORDER BY improvement_id DESC",
            (plugin, release_id, release_id),
        ).fetchall()


def base_vectors(conn: psycopg.Connection, release: Release) -> dict[str, tuple[str, Vectors]]:
    """Return content hash and the model's own vectors of every moved object, by its id in the collection."""
    import numpy as np

    rows = conn.execute(
        "SELECT stored_id, content_hash, parts, base FROM estudio.improved_objects WHERE release_id = %s",
        (release.built_by,),
    )
    return {
        stored_id: (content_hash, np.asarray(base, dtype=np.float32).reshape(parts, -1))
        for stored_id, content_hash, parts, base in rows
    }


def apply(conn: psycopg.Connection, release: Release, moved: list[MovedObject]) -> int:
    """Write moved vectors into the live collection, with the way back; return how many objects were written.

    Objects whose text changed since they were read are left as they are, and so are users' objects that have a personal
    row of the application. In the caller's transaction.

    Raises:
        ReleaseError: the release is not live any more; nothing was written.
    """
    _hold_live(conn, release)
    written = 0
    for start in range(0, len(moved), _AT_ONCE):
        chunk = moved[start : start + _AT_ONCE]
        lock_objects(conn, release.plugin, {entry.object_id for entry in chunk})
        known = {
            found.object_id: found for found in find_by_ids(conn, release.collection, [e.object_id for e in chunk])
        }
        taken = _application_rows(conn, release, list(known))
        usable = [
            e
            for e in chunk
            if e.object_id in known
            and known[e.object_id].content_hash == e.content_hash
            and (e.object_id, e.user_id) not in taken
            and len(e.stored_id.encode()) <= ID_LIMIT  # an id and a user that are too long together
        ]
        _remember(conn, release, usable)
        shared = {entry.object_id: entry.vectors for entry in usable if entry.user_id is None}
        release.collection.replace_vectors(conn, shared)
        release.collection.upsert_objects(conn, [_personal_row(entry) for entry in usable if entry.user_id is not None])
        written += len(usable)
    return written


def take_back(conn: psycopg.Connection, release: Release) -> int:
    """Give every moved object the vectors of the model again; return how many. In the caller's transaction."""
    _hold_live(conn, release)
    base = base_vectors(conn, release)
    ids = sorted(base)
    for start in range(0, len(ids), _AT_ONCE):
        chunk = ids[start : start + _AT_ONCE]
        lock_objects(conn, release.plugin, {stored_id.partition("\x1f")[0] for stored_id in chunk})
        found = find_by_ids(conn, release.collection, chunk)
        personal = [entry.object_id for entry in found if entry.user_id is not None]
        release.collection.delete_objects(conn, personal)
        release.collection.replace_vectors(
            conn,
            {
                entry.object_id: base[entry.object_id][1]
                for entry in found
                if entry.user_id is None and base[entry.object_id][0] == entry.content_hash
            },
        )
    conn.execute("DELETE FROM estudio.improved_objects WHERE release_id = %s", (release.built_by,))
    return len(ids)


def drop_stale(conn: psycopg.Connection, release: Release) -> int:
    """Delete personal rows whose original has another text by now; return how many. In the caller's transaction.

    Such a row would hide the new text from its user. Where the release is not live, nothing is deleted.
    """
    live = live_for_write(conn, release.plugin)
    if live is None or live.release_id != release.release_id:
        return 0
    rows = conn.execute(
        "SELECT stored_id FROM estudio.improved_objects WHERE release_id = %s AND user_id IS NOT NULL"
        " ORDER BY stored_id",
        (release.built_by,),
    ).fetchall()
    dropped = 0
    for start in range(0, len(rows), _AT_ONCE):
        originals = {row[0]: row[0].partition("\x1f")[0] for row in rows[start : start + _AT_ONCE]}
        lock_objects(conn, release.plugin, set(originals.values()))
        found = find_by_ids(conn, release.collection, [*originals, *originals.values()])
        hashes = {entry.object_id: entry.content_hash for entry in found}
        stale = [row for row, original in originals.items() if row not in hashes or hashes[row] != hashes.get(original)]
        release.collection.delete_objects(conn, stale)
        conn.execute(
            "DELETE FROM estudio.improved_objects WHERE release_id = %s AND stored_id = ANY(%s)",
            (release.built_by, stale),
        )
        dropped += len(stale)
    return dropped


def record(
    conn: psycopg.Connection,
    release: Release,
    run_id: str,
    state: State,
    until: datetime,
    objects: int,
    numbers: Mapping[str, Any],
    reason: str,
) -> None:
    """Write a decision down; in the caller's transaction, so that it and the vectors come together."""
    conn.execute(
        "INSERT INTO estudio.improvements (plugin, release_id, run_id, state, until, objects, numbers, reason)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        (release.plugin, release.release_id, run_id, state, until, objects, json_numbers(numbers), reason),
    )


def _hold_live(conn: psycopg.Connection, release: Release) -> None:
    live = live_for_write(conn, release.plugin)
    if live is None or live.release_id != release.release_id:
        raise ReleaseError(
            f"Release {release.release_id} of {release.plugin!r} is not live any more: its vectors are not moved. "
            "Start a new run for the release that is."
        )


def _remember(conn: psycopg.Connection, release: Release, moved: list[MovedObject]) -> None:
    rows = [
        (release.built_by, e.stored_id, e.user_id, e.content_hash, len(e.base), e.base.ravel().tolist()) for e in moved
    ]
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO estudio.improved_objects (release_id, stored_id, user_id, content_hash, parts, base)"
            " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (release_id, stored_id) DO UPDATE SET"
            " content_hash = EXCLUDED.content_hash, parts = EXCLUDED.parts, base = EXCLUDED.base",
            rows,
        )


def _application_rows(conn: psycopg.Connection, release: Release, object_ids: list[str]) -> set[tuple[str, str | None]]:
    """Return originals and users of the personal rows that were not made here; their ids are not ours."""
    rows = conn.execute(
        sql.SQL(
            "SELECT original_id, user_id FROM {} WHERE original_id = ANY(%s)"
            " AND object_id <> original_id || chr(31) || user_id"
        ).format(release.collection.objects),
        (object_ids,),
    )
    return {(original, user) for original, user in rows}


def _personal_row(entry: MovedObject) -> IndexedObject:
    return IndexedObject(
        entry.stored_id, None, entry.content_hash, entry.vectors, user_id=entry.user_id, original_id=entry.object_id
    )
