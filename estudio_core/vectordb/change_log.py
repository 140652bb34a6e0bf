"""Acknowledged writes: into the live collection and into the change log, in one transaction.

A collection that is not live catches up from the log: `catching_up`.

A personal row is in no item source: its last entry is kept as long as the row lives. It goes with its original, and
gives way to a later one of the same user for the same original, by an entry of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from estudio_core import exact_json
from estudio_core.errors import ItemError, ModelError
from estudio_core.ids import as_id
from estudio_core.vectordb.cluster import settle_for_write
from estudio_core.vectordb.locks import lock_objects
from estudio_core.vectordb.objects import IndexedObject, KeptObject, check_id, check_text, source_hash
from estudio_core.vectordb.releases import Release, live_for_write, live_release


@dataclass(frozen=True)
class ItemWrite:
    """An item to be written.

    Attributes:
        object_id: Its id.
        data: What the plugin's loader gives for it (text or JSON), to embed it from.
        payload: JSON object to filter, sort and show; None, for a personal row only, shows the original's.
        user_id: The user who alone sees this row in place of `original_id`; None for everybody's rows.
        original_id: The object that a personal row replaces.
    """

    object_id: str
    data: Any
    payload: dict[str, Any] | None = field(default_factory=dict)
    user_id: str | None = None
    original_id: str | None = None

    def __post_init__(self) -> None:
        """Take numbers for the ids that they are written as."""
        if type(self.object_id) is str and self.user_id is None and self.original_id is None:
            return
        object.__setattr__(self, "object_id", as_id(self.object_id, "object_id"))
        for name in ("user_id", "original_id"):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, as_id(given, name))

    @property
    def source_hash(self) -> str | None:
        """Hash of data and payload."""
        return source_hash(self.data, self.payload)


EmbedWrites = Callable[[Release, Sequence[ItemWrite], Mapping[str, str]], Sequence[IndexedObject | KeptObject]]
"""Embeds items with the items' model of a release. The mapping has the content hashes of those that its collection
holds: one of the same content may be returned as a `KeptObject`, without vectors. One object is returned for each.

Raises `ItemError` with the ids of items that cannot be embedded."""


@dataclass(frozen=True)
class WriteResult:
    """What `write` did.

    Attributes:
        release_id: The release that was written to; None where nothing was live and only the log was written.
        upserted: Items written, `kept` included.
        kept: Items of unchanged content: a new payload, the vectors that were there.
        deleted: Objects that were there and are not any more.
        stale: Objects that are not as expected any more; nothing of them was written.
    """

    release_id: int | None
    upserted: int
    kept: int
    deleted: int
    stale: tuple[str, ...] = ()


def write(
    conn: psycopg.Connection,
    plugin: str,
    upserts: Sequence[ItemWrite],
    deletes: Sequence[str],
    embed: EmbedWrites,
    expected: Mapping[str, str | None] | None = None,
) -> WriteResult:
    """Write to the live collection and the change log in one transaction; when this returns, nothing loses it.

    Embedding happens before any lock is taken; if the live release changes meanwhile, or an object whose vectors were
    to stay, it is repeated. On a connection inside an open transaction, the write is acknowledged when the caller
    commits.

    Args:
        conn: Connection.
        plugin: Name of the plugin.
        upserts: Items to write.
        deletes: Ids of objects to delete.
        embed: Embeds items with the model of a release.
        expected: What `Collection.source_hashes` gave for these objects before their content was read elsewhere: those
            of which that does not hold any more have been written since, and are left as they are.

    Raises:
        ItemError: an id is both written and deleted, comes twice, or was not embedded.
        DimensionError: a vector does not fit the live collection.
    """
    _check_batch(upserts, deletes)
    settle_for_write(conn)
    stale: set[str] = set()
    while True:
        ids = [item.object_id for item in upserts]
        with conn.transaction():
            live = live_release(conn, plugin)
            personal = _personal_rows(conn, plugin, deletes) | _replaced_rows(conn, plugin, upserts)
        try:
            objects, kept = embedded(conn, embed, live, upserts) if live is not None else ([], [])
        except (psycopg.errors.UndefinedTable, ModelError):
            with conn.transaction():
                now = live_release(conn, plugin)
            if (now and now.release_id) == (live and live.release_id):
                raise
            continue  # releases have followed each other meanwhile, and the one that was live is cleaned up
        with conn.transaction():
            current = live_for_write(conn, plugin)
            if (current and current.release_id) != (live and live.release_id):
                continue
            originals = [item.original_id for item in upserts if item.original_id is not None]
            lock_objects(conn, plugin, [*ids, *originals, *deletes, *personal])
            if current is not None and expected is not None:
                stale |= _moved_on(conn, current, [*ids, *deletes], expected)
                upserts = [item for item in upserts if item.object_id not in stale]
                deletes = [object_id for object_id in deletes if object_id not in stale]
                objects = [obj for obj in objects if obj.object_id not in stale]
                kept = [obj for obj in kept if obj.object_id not in stale]
            following = _personal_rows(conn, plugin, deletes) | _replaced_rows(conn, plugin, upserts)
            if not following <= personal:
                continue
            following |= {item.object_id for item in upserts if item.original_id in deletes}
            deleted = len(deletes)
            if current is not None:
                if not current.collection.keep_objects(conn, kept):
                    continue
                current.collection.upsert_objects(conn, objects)
                deleted = current.collection.delete_objects(conn, deletes)
            _append(conn, plugin, upserts, [*deletes, *sorted(following.difference(deletes))])
            return WriteResult(
                current.release_id if current else None, len(upserts), len(kept), deleted, tuple(sorted(stale))
            )


def _moved_on(
    conn: psycopg.Connection, live: Release, object_ids: Sequence[str], expected: Mapping[str, str | None]
) -> set[str]:
    """Return the objects whose source hash, or absence, is not the expected one."""
    stored = live.collection.source_hashes(conn, object_ids)
    return {
        object_id
        for object_id in object_ids
        if (object_id in stored, stored.get(object_id)) != (object_id in expected, expected.get(object_id))
    }


def _check_batch(upserts: Sequence[ItemWrite], deletes: Sequence[str]) -> None:
    ids = [item.object_id for item in upserts]
    for object_id in deletes:
        check_text(object_id, "id", object_id)
    for item in upserts:
        _log_json(item)
        for what, value in (("id", item.object_id), ("user id", item.user_id), ("original id", item.original_id)):
            if value is not None:
                check_id(value, what, item.object_id)
    both = sorted(set(ids) & set(deletes))
    twice = sorted(object_id for object_id, times in Counter(ids).items() if times > 1)
    if both or twice:
        raise ItemError(
            f"Objects written and deleted in one batch: {both}; written twice: {twice}. Give each id once.",
            [*both, *twice],
        )
    places = Counter((item.user_id, item.original_id) for item in upserts)
    rivals = [
        item.object_id for item in upserts if item.user_id is not None and places[item.user_id, item.original_id] > 1
    ]
    if rivals:
        raise ItemError(f"Personal rows of one user for the same original: {rivals}. Give one of them.", rivals)


def _log_json(item: ItemWrite) -> str:
    try:
        text = exact_json.dumps(item.data)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ItemError(
            f"The data of item {item.object_id!r} is no JSON: {error}. Give a text, or a dict of texts and numbers.",
            [item.object_id],
        ) from error
    return text


def _append(conn: psycopg.Connection, plugin: str, upserts: Sequence[ItemWrite], deletes: Sequence[str]) -> None:
    rows: list[tuple[Any, ...]] = [
        (plugin, "upsert", item.object_id, _log_json(item), _jsonb(item.payload), item.user_id, item.original_id)
        for item in upserts
    ]
    rows += [(plugin, "delete", object_id, None, None, None, None) for object_id in deletes]
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO estudio.change_log (plugin, op, object_id, data, payload, user_id, original_id)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            rows,
        )


def _jsonb(payload: dict[str, Any] | None) -> Jsonb | None:
    return None if payload is None else Jsonb(payload, exact_json.dumps)


def embedded(
    conn: psycopg.Connection, embed: EmbedWrites, release: Release, writes: Sequence[ItemWrite]
) -> tuple[list[IndexedObject], list[KeptObject]]:
    """Return the objects of `writes`, with vectors by the model of `release` or to be kept.

    Raises:
        ItemError: other objects came back than were asked for.
    """
    if not writes:
        return [], []
    with conn.transaction():
        stored = release.collection.content_hashes(conn, [item.object_id for item in writes])
    objects = list(embed(release, writes, stored))
    missing = sorted({item.object_id for item in writes} ^ {obj.object_id for obj in objects})
    if missing:
        raise ItemError(
            f"Embedding for release {release.release_id} gave other objects than asked: {missing}.", missing
        )
    return (
        [obj for obj in objects if isinstance(obj, IndexedObject)],
        [obj for obj in objects if isinstance(obj, KeptObject)],
    )


LAST = sql.SQL(
    "NOT EXISTS (SELECT 1 FROM estudio.change_log n WHERE n.plugin = c.plugin AND n.object_id = c.object_id"
    " AND n.seq > c.seq)"
)
"""Condition of entries `c`: the last visible one of its object."""
PERSONAL = sql.SQL("(c.op = 'upsert' AND c.user_id IS NOT NULL)")
"""Condition of entries `c`: it writes a personal row. The last entry of one that lives does."""


def _personal_rows(conn: psycopg.Connection, plugin: str, originals: Sequence[str]) -> set[str]:
    """Return the ids of the living personal rows that stand for `originals`."""
    if not originals:
        return set()
    rows = conn.execute(
        sql.SQL(
            "SELECT c.object_id FROM estudio.change_log c WHERE c.plugin = %s AND c.original_id = ANY(%s) AND {} AND {}"
        ).format(PERSONAL, LAST),
        (plugin, list(originals)),
    )
    return {row[0] for row in rows}


def _replaced_rows(conn: psycopg.Connection, plugin: str, upserts: Sequence[ItemWrite]) -> set[str]:
    """Return the ids of the living personal rows whose place those of `upserts` take under other ids."""
    personal = {(item.user_id, item.original_id) for item in upserts if item.user_id is not None}
    if not personal:
        return set()
    rows = conn.execute(
        sql.SQL(
            "SELECT c.object_id FROM estudio.change_log c"
            " JOIN unnest(%s::text[], %s::text[]) AS n (user_id, original_id)"
            " ON c.user_id = n.user_id AND c.original_id = n.original_id WHERE c.plugin = %s AND {} AND {}"
        ).format(PERSONAL, LAST),
        ([user for user, _ in personal], [original for _, original in personal], plugin),
    )
    return {row[0] for row in rows}.difference(item.object_id for item in upserts)
