"""Indexes on fields of the payload, and the conditions by which PostgreSQL finds rows in them.

A condition here is one that every matching row fulfils, and few others do: it stands beside the one that decides
(`filter_sql`), and only serves to find rows. So values of another kind than the field's, lists, and texts whose
beginnings are indexed alone are found as without an index.

The expressions are the same text in index and statement, values of paths included: PostgreSQL compares them so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psycopg import sql
from psycopg.abc import AdaptContext

from estudio_core.vectordb.index_info import FieldKind, IndexedField, SearchIndexInfo

KEPT_CHARACTERS = 256
"""Of a text, in an index: an entry of a B-tree has 2,704 bytes at most."""
WORDS_READ = 50_000
"""Characters of a text in a payload whose words `match` and `phrase` see: PostgreSQL cannot read the words of texts
that are much longer, and one such item would be the error of everybody's search."""
BEYOND_SCALARS = sql.SQL("'true'::jsonb")
"""Lists and objects come behind it in the order of jsonb."""


@dataclass(frozen=True)
class FieldIndex:
    """An index of a field: the suffix of its name, its method, and what it is on."""

    suffix: str
    method: sql.SQL
    on: sql.Composable
    """For a statement that has no parameters."""


def field_indexes(info: SearchIndexInfo) -> Iterator[FieldIndex]:
    """Yield the indexes of all fields of a collection, on rows of objects."""
    payload = sql.SQL("payload")
    btree = sql.SQL("btree")
    for number, field in enumerate(info.fields):
        by_id = sql.SQL('object_id COLLATE "C"')
        yield FieldIndex(f"f{number}_key", btree, _Single(sql.SQL("{}, {}").format(key(field, payload), by_id)))
        if field.kind == FieldKind.TIME:
            yield FieldIndex(f"f{number}_time", btree, _Single(sql.SQL("({})").format(time(field, payload))))
        if field.kind == FieldKind.TEXT:
            yield FieldIndex(f"f{number}_text", btree, _Single(sql.SQL("({})").format(text(field, payload))))
            yield FieldIndex(
                f"f{number}_words", sql.SQL("gin"), _Single(sql.SQL("({})").format(words(field.path, payload)))
            )


class _Doubled(sql.Literal):
    """A literal of a statement that has parameters, where a percent sign stands for itself when it is doubled."""

    def as_bytes(self, context: AdaptContext | None = None) -> bytes:
        return super().as_bytes(context).replace(b"%", b"%%")


class _Single(sql.Composable):
    """The same expression in a statement without parameters."""

    def as_bytes(self, context: AdaptContext | None = None) -> bytes:
        written: bytes = self._obj.as_bytes(context)
        return written.replace(b"%%", b"%")


def key(field: IndexedField, payload: sql.Composable) -> sql.Composable:
    """Return what the field is sorted by, of type jsonb: see the migration that makes `estudio.field_key`."""
    return sql.SQL("estudio.field_key({}, {}, {})").format(payload, path_of(field.path), _way(field.path))


def time(field: IndexedField, payload: sql.Composable) -> sql.Composable:
    """Return the moment that the field names; infinity where it is something else."""
    return sql.SQL("estudio.field_time({}, {}, {})").format(payload, path_of(field.path), _way(field.path))


def text(field: IndexedField, payload: sql.Composable) -> sql.Composable:
    """Return the beginning of the field's text, ordered by code point."""
    return sql.SQL('left({} #>> {}, {}) COLLATE "C"').format(payload, path_of(field.path), sql.Literal(KEPT_CHARACTERS))


def words(path: Sequence[str], payload: sql.Composable) -> sql.Composable:
    """Return the words that `match` and `phrase` see in a field."""
    return sql.SQL("to_tsvector('simple', left({} #>> {}, {}))").format(payload, path_of(path), sql.Literal(WORDS_READ))


def path_of(path: Sequence[str]) -> sql.Composable:
    """Return the names that lead to a field, for a statement that has parameters."""
    return sql.SQL("{}::text[]").format(_Doubled(list(path)))


def _way(path: Sequence[str]) -> sql.Composable:
    way = "$" + "".join("." + json.dumps(name, ensure_ascii=False) for name in path)
    return sql.SQL("{}::jsonpath").format(_Doubled(way))
