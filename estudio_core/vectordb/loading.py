"""How far each shard of a collection has come: a mark that moves in the transaction that commits its rows.

A shard that is killed, or runs out of its time, goes on behind its mark. The marks lie in a table of the collection,
`c_<id>_loading`, which goes when the collection is built: where a release begins again they are gone with its rows.

An attempt takes the mark over when it begins. One before it that still runs somewhere finds it taken and fails at its
next chunk, so that two never load the same shard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import psycopg
from psycopg import sql

from estudio_core.errors import ConcurrentReleaseError
from estudio_core.vectordb.collection import Collection

LISTED_INVALID = 200
"""Items that cannot be used of which a mark keeps the reason."""


@dataclass(frozen=True)
class ShardMark:
    """A shard as far as its rows are committed.

    Attributes:
        shard: Its name among those of its collection.
        after: Keys of the source greater than this; None: no bound.
        until: Keys up to and including this; None: no bound.
        done: Key up to which all rows of the source are in the collection, or left out; None: nothing is sure yet.
        items: Objects that were loaded from these.
        parts: Their parts.
        reused: Those of the objects whose vectors were known.
        invalid: The first of the items that were left out, by id, with the reason.
        invalid_items: Rows that were left out.
        finished: Whether the end of the range was reached.
        step: Times that the mark was moved or taken over.
    """

    shard: str
    after: str | None
    until: str | None
    done: str | None = None
    items: int = 0
    parts: int = 0
    reused: int = 0
    invalid: Mapping[str, str] = field(default_factory=dict)
    invalid_items: int = 0
    finished: bool = False
    step: int = 0

    def and_left_out(self, reasons: Mapping[str, str], rows: int) -> ShardMark:
        """Return the mark with further rows that were left out."""
        listed = dict(list({**self.invalid, **reasons}.items())[:LISTED_INVALID])
        return replace(self, invalid=listed, invalid_items=self.invalid_items + rows)


def create_marks(conn: psycopg.Connection, collection: Collection) -> None:
    """Make the table of a collection's marks where it is missing."""
    conn.execute(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {} (shard text PRIMARY KEY, after_key text, until_key text, done_key text,"
            " items bigint NOT NULL, parts bigint NOT NULL, reused bigint NOT NULL, invalid text NOT NULL,"
            " invalid_items bigint NOT NULL, finished boolean NOT NULL, step int NOT NULL)"
        ).format(collection.loading)
    )
    collection.mark(conn, collection.loading)


def drop_marks(conn: psycopg.Connection, collection: Collection) -> None:
    """Drop the table of a collection's marks: it is built."""
    conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(collection.loading))


def take_mark(conn: psycopg.Connection, collection: Collection, wanted: ShardMark) -> ShardMark:
    """Take over the mark of a shard and return it: where an attempt before left it, else at the beginning.

    It is at the beginning too where the shard had come to its end, or had another range: then all is read again.
    """
    with conn.transaction():
        there = conn.execute("SELECT to_regclass(%s)", (collection.loading.as_string(conn),)).fetchone()
        if there == (None,):  # the version before, which has made this collection, had no marks
            create_marks(conn, collection)
        row = conn.execute(
            sql.SQL(
                "SELECT after_key, until_key, done_key, items, parts, reused, invalid, invalid_items, finished, step"
                " FROM {} WHERE shard = %s FOR UPDATE"
            ).format(collection.loading),
            (wanted.shard,),
        ).fetchone()
        step = 0 if row is None else row[-1]
        found = wanted
        if row is not None and not row[-2] and row[:2] == (wanted.after, wanted.until):
            after, until, done, items, parts, reused, invalid, invalid_items, finished, _ = row
            found = ShardMark(
                wanted.shard, after, until, done, items, parts, reused, json.loads(invalid), invalid_items, finished
            )
        found = replace(found, step=step + 1)
        conn.execute(
            sql.SQL(
                "INSERT INTO {} AS m (shard, after_key, until_key, done_key, items, parts, reused, invalid,"
                " invalid_items, finished, step) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
                " ON CONFLICT (shard) DO UPDATE SET after_key = EXCLUDED.after_key, until_key = EXCLUDED.until_key,"
                " done_key = EXCLUDED.done_key, items = EXCLUDED.items, parts = EXCLUDED.parts,"
                " reused = EXCLUDED.reused, invalid = EXCLUDED.invalid, invalid_items = EXCLUDED.invalid_items,"
                " finished = EXCLUDED.finished, step = EXCLUDED.step"
            ).format(collection.loading),
            (found.shard, found.after, found.until, *_values(found)),
        )
        return found


def move_mark(conn: psycopg.Connection, collection: Collection, mark: ShardMark) -> ShardMark:
    """Move the mark of a shard in the caller's transaction; return it as it is to be moved next.

    Raises:
        ConcurrentReleaseError: another attempt has taken it over, and loads the shard now.
    """
    moved = replace(mark, step=mark.step + 1)
    done = conn.execute(
        sql.SQL(
            "UPDATE {} SET done_key = %s, items = %s, parts = %s, reused = %s, invalid = %s, invalid_items = %s,"
            " finished = %s, step = %s WHERE shard = %s AND step = %s"
        ).format(collection.loading),
        (*_values(moved), mark.shard, mark.step),
    ).rowcount
    if not done:
        raise ConcurrentReleaseError(
            f"Shard {mark.shard!r} of collection {collection.collection_id!r} is loaded by another attempt. Wait for "
            "it, or stop it and try again."
        )
    return moved


def _values(mark: ShardMark) -> tuple[object, ...]:
    return (
        mark.done, mark.items, mark.parts, mark.reused, json.dumps(dict(mark.invalid)), mark.invalid_items,
        mark.finished, mark.step,
    )  # fmt: skip
