"""A collection: the objects, part vectors and words of one release, in tables of its own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from estudio_core.database import SCHEMA
from estudio_core.errors import ConfigurationError, ReleaseError
from estudio_core.streams import batched, prefetched
from estudio_core.vectordb.copying import CopyChunk, pack, send, send_parts
from estudio_core.vectordb.index_info import MetricAggregationType, MetricType, SearchIndexInfo
from estudio_core.vectordb.locks import lock_objects
from estudio_core.vectordb.objects import IndexedObject, KeptObject, check_ids, payload_json
from estudio_core.vectordb.roles import grant_collection

COPY_CHUNK = 2000
"""Objects of one COPY: about 3 MB per part and 384 dimensions, and one DELETE for reruns."""
_SLUG_BYTES = 44  # "c_" + slug + "_objects" + "_original" stays below PostgreSQL's 63 bytes

_DISTANCE = {MetricType.COSINE: sql.SQL("<=>"), MetricType.DOT: sql.SQL("<#>"), MetricType.EUCLID: sql.SQL("<->")}
_OPCLASS = {MetricType.COSINE: "cosine_ops", MetricType.DOT: "ip_ops", MetricType.EUCLID: "l2_ops"}


@dataclass(frozen=True)
class CollectionStats:
    """Size of a collection: everybody's objects, personal rows, stored parts without averages, bytes on disk."""

    objects: int
    personal_objects: int
    parts: int
    size_bytes: int


@dataclass(frozen=True)
class CopyCount:
    """What `copy_objects` wrote."""

    objects: int
    parts: int


def slug(collection_id: str) -> str:
    """Return a name of at most 44 safe bytes, different for different ids.

    >>> slug("shop_12"), slug("Läden 12")
    ('shop_12', 'L_den_12_b9376820')
    """
    cleaned = re.sub(r"[^A-Za-z0-9_]", "_", collection_id)
    if cleaned == collection_id and len(cleaned) <= _SLUG_BYTES:
        return cleaned
    return f"{cleaned[: _SLUG_BYTES - 9]}_{hashlib.sha256(collection_id.encode()).hexdigest()[:8]}"


def register_vectors(conn: psycopg.Connection) -> None:
    """Teach `conn` pgvector's types where it does not know them yet."""
    if conn.adapters.types.get("vector") is None:
        from pgvector.psycopg import register_vector

        with conn.transaction():
            register_vector(conn)


@dataclass(frozen=True)
class Collection:
    """Tables in schema `estudio`: `c_<id>_objects` and `c_<id>_parts`; with an index, `_words` and `_terms` too.

    While it is loaded in shards there is `_loading`, see `loading`.

    MIN searches the parts; for AVG each object has one more row, the average of its parts, and that is searched.

    Attributes:
        collection_id: Any text; table names are derived from it.
        index_info: Dimension, metric, aggregation and index parameters.
        ef_search: What searches use; None takes `index_info.hnsw.ef_search`.
    """

    collection_id: str
    index_info: SearchIndexInfo
    ef_search: int | None = field(default=None, compare=False)

    def name(self, suffix: str) -> str:
        """Return the bare name of a table or index of this collection."""
        return f"c_{slug(self.collection_id)}_{suffix}"

    @property
    def objects(self) -> sql.Identifier:
        """The quoted objects table."""
        return sql.Identifier(SCHEMA, self.name("objects"))

    @property
    def parts(self) -> sql.Identifier:
        """The quoted parts table."""
        return sql.Identifier(SCHEMA, self.name("parts"))

    @property
    def words(self) -> sql.Identifier:
        """The quoted table of the objects' words, see `words`."""
        return sql.Identifier(SCHEMA, self.name("words"))

    @property
    def terms(self) -> sql.Identifier:
        """The quoted table that counts words, see `words`."""
        return sql.Identifier(SCHEMA, self.name("terms"))

    @property
    def loading(self) -> sql.Identifier:
        """The quoted table of the marks of shards, see `loading`."""
        return sql.Identifier(SCHEMA, self.name("loading"))

    @property
    def vector_type(self) -> str:
        """Pgvector's type of the stored vectors."""
        return self.index_info.vector_type.value

    @property
    def distance_operator(self) -> sql.SQL:
        """The distance operator of the metric."""
        return _DISTANCE[self.index_info.metric_type]

    @property
    def operator_class(self) -> sql.Identifier:
        """The operator class of metric and type."""
        return sql.Identifier(f"{self.vector_type}_{_OPCLASS[self.index_info.metric_type]}")

    @property
    def averages(self) -> bool:
        """Whether objects are compared by the average of their parts."""
        return self.index_info.metric_aggregation_type == MetricAggregationType.AVG

    @property
    def _mark(self) -> str:
        return f"estudio:collection:{self.collection_id}"

    def exists(self, conn: psycopg.Connection) -> bool:
        """Return whether both tables exist and are ours.

        Raises:
            ReleaseError: a table of that name exists and is not ours.
        """
        found = 0
        for name in (self.name("objects"), self.name("parts")):
            row = conn.execute(
                "SELECT obj_description(c.oid, 'pg_class') FROM pg_class c"
                " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s",
                (SCHEMA, name),
            ).fetchone()
            if row is not None and row[0] != self._mark:
                raise ReleaseError(
                    f"Table {SCHEMA}.{name} exists and does not belong to collection {self.collection_id!r}. "
                    "It is left alone; rename it, or use another collection id."
                )
            found += row is not None
        return found == 2

    def create(self, conn: psycopg.Connection) -> None:
        """Create the two tables where they are missing; the vector index comes after the load (`build_index`).

        Raises:
            ConfigurationError: the database has no text search configuration of that name.
        """
        with conn.transaction():
            if self.exists(conn):
                return
            self._require_text_config(conn)
            self._create_objects(conn)
            conn.execute(
                sql.SQL(
                    "CREATE TABLE {} (object_id text NOT NULL, part int NOT NULL, embedding {}({}) NOT NULL,"
                    " is_average boolean NOT NULL, user_id text, PRIMARY KEY (object_id, part))"
                ).format(self.parts, sql.SQL(self.vector_type), sql.Literal(self.index_info.dimensions))
            )
            conn.execute(
                sql.SQL("CREATE INDEX {} ON {} (original_id) WHERE original_id IS NOT NULL").format(
                    sql.Identifier(self.name("objects_original")), self.objects
                )
            )
            if not self.averages:
                # Empty where every object has one part, which is what searches ask it.
                conn.execute(
                    sql.SQL("CREATE INDEX {} ON {} (part) WHERE part > 0").format(
                        sql.Identifier(self.name("several")), self.parts
                    )
                )
            for table in (self.objects, self.parts):
                self.mark(conn, table)

    def mark(self, conn: psycopg.Connection, table: sql.Identifier) -> None:
        """Write on a table whose it is, and let the installation's roles have it."""
        conn.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(table, sql.Literal(self._mark)))
        grant_collection(conn, [table])

    def _create_objects(self, conn: psycopg.Connection) -> None:
        conn.execute(
            sql.SQL(
                "CREATE TABLE {} (object_id text PRIMARY KEY, original_id text, user_id text, payload jsonb,"
                " content_hash text NOT NULL, source_hash text, body text NOT NULL,"
                " updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),"
                " CHECK ((user_id IS NULL) = (original_id IS NULL)),"
                " CHECK (payload IS NOT NULL OR user_id IS NOT NULL), UNIQUE (user_id, original_id))"
            ).format(self.objects)
        )

    def _require_text_config(self, conn: psycopg.Connection) -> None:
        try:
            with conn.transaction():
                conn.execute("SELECT %s::regconfig", (self.index_info.text_config,))
        except psycopg.errors.UndefinedObject as error:
            raise ConfigurationError(
                f"PostgreSQL has no text search configuration {self.index_info.text_config!r}. psql lists them: \\dF"
            ) from error

    def drop(self, conn: psycopg.Connection) -> bool:
        """Drop the tables and forget applied optimizations; return whether there was anything.

        Raises:
            ReleaseError: a table of that name is not ours.
        """
        with conn.transaction():
            existed = self.exists(conn)
            tables = (self.parts, self.objects, self.words, self.terms, self.loading)
            conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.SQL(", ").join(tables)))
            conn.execute("DELETE FROM estudio.optimizations WHERE collection_id = %s", (self.collection_id,))
        return existed

    def copy_objects(self, conn: psycopg.Connection, objects: Iterable[IndexedObject]) -> CopyCount:
        """Write objects by binary COPY in the caller's transaction; rows of the same ids are replaced.

        A personal row also takes the place of the one that this user had for the same original. Repeating
        it gives the same rows. Objects are checked in chunks: on an error the transaction is rolled back.

        The next chunk is read and packed while one is sent, in another thread, where `objects` must not use `conn`.

        Raises:
            DimensionError: a vector does not have the dimension of the index.
            ItemError: a vector is zero or not finite, an id comes twice, a payload is no JSON.
        """
        with conn.transaction():
            chunks = prefetched(self._packed(objects, conn.info.encoding), ahead=1)
            return self._copy(conn, chunks, empty=self.is_empty(conn))

    def copy_chunk(self, conn: psycopg.Connection, chunk: CopyChunk, *, empty: bool) -> None:
        """Write objects that `pack` has checked, in the caller's transaction.

        Args:
            conn: Connection.
            chunk: Objects, each id once.
            empty: Whether the collection has none of their ids, so that nothing has to give way.
        """
        self._copy(conn, [chunk], empty=empty)

    def _packed(self, objects: Iterable[IndexedObject], encoding: str) -> Iterator[CopyChunk]:
        seen: set[str] = set()
        for chunk in batched(objects, COPY_CHUNK):
            check_ids(chunk, seen)
            yield pack(chunk, self.index_info, encoding)

    def _copy(self, conn: psycopg.Connection, chunks: Iterable[CopyChunk], *, empty: bool) -> CopyCount:
        register_vectors(conn)
        count = parts = 0
        with conn.transaction():
            for chunk in chunks:
                if not empty:
                    self._delete(conn, self._present(conn, chunk))
                send(conn, self.objects, self.parts, chunk)
                count += len(chunk.object_ids)
                parts += chunk.part_count
        return CopyCount(count, parts)

    def upsert_objects(self, conn: psycopg.Connection, objects: Sequence[IndexedObject]) -> CopyCount:
        """Write objects of a collection that others write to; writers of the same object follow each other.

        Raises:
            DimensionError, ItemError: as `copy_objects`; nothing is written.
        """
        with conn.transaction():
            lock_objects(conn, self.collection_id, [obj.object_id for obj in objects])
            return self._copy(conn, self._packed(objects, conn.info.encoding), empty=False)

    def delete_objects(self, conn: psycopg.Connection, object_ids: Sequence[str]) -> int:
        """Delete objects, and the personal rows that stand for them; return how many of the ids were there."""
        with conn.transaction():
            lock_objects(conn, self.collection_id, object_ids)
            personal = conn.execute(
                sql.SQL("SELECT object_id FROM {} WHERE original_id = ANY(%s)").format(self.objects),
                (list(object_ids),),
            ).fetchall()
            self._delete(conn, [row[0] for row in personal])
            return self._delete(conn, list(object_ids))

    def keep_objects(self, conn: psycopg.Connection, objects: Sequence[KeptObject]) -> bool:
        """Write the payloads of objects whose vectors stay.

        Returns:
            False, with nothing written, where one of the objects is gone or comes from other content by now.

        Raises:
            ItemError: a payload is no JSON.
        """
        if not objects:
            return True
        ids, contents = [obj.object_id for obj in objects], [obj.content_hash for obj in objects]
        with conn.transaction():
            lock_objects(conn, self.collection_id, ids)
            if self.content_hashes(conn, ids) != dict(zip(ids, contents, strict=True)):
                return False
            conn.execute(
                sql.SQL(
                    "UPDATE {} o SET payload = n.payload::jsonb, source_hash = n.source_hash, user_id = NULL,"
                    " original_id = NULL, updated_at = clock_timestamp()"
                    " FROM unnest(%s::text[], %s::text[], %s::text[]) AS n (object_id, payload, source_hash)"
                    " WHERE o.object_id = n.object_id"
                ).format(self.objects),
                (ids, [payload_json(obj) for obj in objects], [obj.source_hash for obj in objects]),
            )
            return True

    def replace_vectors(self, conn: psycopg.Connection, vectors: Mapping[str, NDArray[np.floating]]) -> None:
        """Give everybody's objects other part vectors, [parts, dimensions] each; all else of them stays as it is.

        Raises:
            DimensionError, ItemError: as `copy_objects`; nothing is written.
        """
        if not vectors:
            return
        ids = list(vectors)
        chunk = pack([IndexedObject(each, {}, "", vectors[each]) for each in ids], self.index_info, conn.info.encoding)
        with conn.transaction():
            lock_objects(conn, self.collection_id, ids)
            self._delete_parts(conn, ids)
            send_parts(conn, self.parts, chunk)

    def content_hashes(self, conn: psycopg.Connection, object_ids: Sequence[str]) -> dict[str, str]:
        """Return the content hashes of everybody's objects among these: what need not be embedded again."""
        rows = conn.execute(
            sql.SQL("SELECT object_id, content_hash FROM {} WHERE object_id = ANY(%s) AND user_id IS NULL").format(
                self.objects
            ),
            (list(object_ids),),
        )
        return dict(rows)

    def source_hashes(self, conn: psycopg.Connection, object_ids: Sequence[str]) -> dict[str, str | None]:
        """Return the source hashes of everybody's objects among these: what need not even be looked at again."""
        rows = conn.execute(
            sql.SQL("SELECT object_id, source_hash FROM {} WHERE object_id = ANY(%s) AND user_id IS NULL").format(
                self.objects
            ),
            (list(object_ids),),
        )
        return dict(rows)

    def stats(self, conn: psycopg.Connection) -> CollectionStats:
        """Count objects and parts, and measure both tables with their indexes."""
        row = conn.execute(
            sql.SQL(
                "SELECT (SELECT count(*) FROM {objects} WHERE user_id IS NULL),"
                " (SELECT count(*) FROM {objects} WHERE user_id IS NOT NULL),"
                " (SELECT count(*) FROM {parts} WHERE NOT is_average),"
                " (SELECT sum(pg_total_relation_size(to_regclass(name))) FROM unnest(%s::text[]) AS name)::bigint"
            ).format(objects=self.objects, parts=self.parts),
            ([table.as_string(conn) for table in (self.objects, self.parts, self.words, self.terms)],),
        ).fetchone()
        assert row is not None
        return CollectionStats(*row)

    def is_empty(self, conn: psycopg.Connection) -> bool:
        """Return whether it has no object."""
        found = conn.execute(sql.SQL("SELECT EXISTS (SELECT 1 FROM {})").format(self.objects)).fetchone()
        return found == (False,)

    def _present(self, conn: psycopg.Connection, chunk: CopyChunk) -> list[str]:
        """Return the ids of the rows whose place the chunk takes."""
        statement = sql.SQL("SELECT object_id FROM {} WHERE object_id = ANY(%s)").format(self.objects)
        found = {row[0] for row in conn.execute(statement, (chunk.object_ids,))}
        if chunk.personal:
            users, originals = (list(column) for column in zip(*chunk.personal, strict=True))
            statement = sql.SQL(
                "SELECT o.object_id FROM unnest(%s::text[], %s::text[]) AS n (user_id, original_id)"
                " JOIN {} o ON o.user_id = n.user_id AND o.original_id = n.original_id"
            ).format(self.objects)
            found |= {row[0] for row in conn.execute(statement, (users, originals))}
        return list(found)

    def _delete(self, conn: psycopg.Connection, ids: list[str]) -> int:
        if not ids:
            return 0
        self._delete_parts(conn, ids)
        return conn.execute(sql.SQL("DELETE FROM {} WHERE object_id = ANY(%s)").format(self.objects), (ids,)).rowcount

    def _delete_parts(self, conn: psycopg.Connection, ids: list[str]) -> None:
        conn.execute(sql.SQL("DELETE FROM {} WHERE object_id = ANY(%s)").format(self.parts), (ids,))
