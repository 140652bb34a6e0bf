"""The id of a dataset: a hash of its content, whatever the order in which that was put together.

A session is a number of 64 bits, made of its columns, and a split is the sum of its sessions: nothing is sorted, and no
session is made an object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.dataset_words import DatasetWords
from estudio_core.clickstream.fine_tuning_input import FineTuningInput
from estudio_core.clickstream.session_table import SessionTable
from estudio_core.clickstream.table_builder import table_of

Hashes = NDArray[np.uint64]

_TOGETHER = 20_000
_OF_SESSION = ("query", "client", "user", "release", "variants", "timestamp", "by_relevance")


def content_hash(
    splits: Mapping[Any, Sequence[FineTuningInput]],
    items: Iterable[tuple[str, object]],
    words: DatasetWords | None,
) -> str:
    """Return the id: 16 hexadecimal digits of SHA-256 over sessions by split, items by id, and words.

    Args:
        splits: Sessions by split.
        items: Ids with what `repr` tells of each, in order of the ids.
        words: Words of items and queries, where there are some.
    """
    digest = hashlib.sha256()
    names = _Names()
    for split, sessions in splits.items():
        table = table_of(sessions)
        total = sum(int(_sessions(chunk, names).sum()) for chunk in table.chunks(_TOGETHER)) % 2**64
        digest.update(f"{split}\x1f{len(table)}\x1f{total}\x1e".encode())
    for object_id, variants in items:
        digest.update(f"{object_id}\x1f{variants!r}\x1e".encode())
    for text in words.described() if words is not None else ():
        digest.update(f"{text}\x1e".encode())
    return digest.hexdigest()[:16]


class _Names:
    """Hashes of the names that columns number, the last one that of nobody; the splits of a dataset share them."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Sequence[Any], Hashes]] = {}

    def __call__(self, names: Sequence[Any]) -> Hashes:
        """Return the hashes of all names, uint64 [names + 1]."""
        if id(names) not in self._known:
            texts = (name if isinstance(name, str) else "\x1f".join(("", *name)) for name in names)
            encoded = (text.encode("utf-8", "surrogatepass") for text in texts)
            self._known[id(names)] = names, np.append(_digests(encoded, len(names)), np.uint64(0))
        return self._known[id(names)][1]


def _sessions(table: SessionTable, names: _Names) -> Hashes:
    """Return a number for each session, which depends on all that it says."""
    columns, lengths = table.columns, table.lengths
    ends = np.cumsum(lengths)
    place = np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)
    rank = table.of_result("rank") + 0.0  # one zero
    rank[np.isnan(rank)] = np.nan  # and one of what is not known
    shown = names(columns.items)[table.of_result("item")]
    for values in (place, table.of_result("position").astype(np.int64), rank, table.weights + 0.0):
        shown = _joined(shown, values.view(np.uint64))
    before = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(shown, dtype=np.uint64)])
    found = _joined(_digests(map(str.encode, columns.ids.at(table.rows)), len(table)), lengths.view(np.uint64))
    found = _joined(found, before[ends] - before[ends - lengths])
    known = {
        "query": columns.queries,
        "client": columns.people,
        "user": columns.people,
        "release": columns.releases,
        "variants": columns.variant_sets,
    }
    for name in _OF_SESSION:
        values = table.of_session(name)
        found = _joined(found, names(known[name])[values] if name in known else values.astype(np.uint64))
    return found


def _digests(texts: Iterable[bytes], count: int) -> Hashes:
    digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype="<u8", count=count).astype(np.uint64)


def _joined(hashes: Hashes, values: Hashes) -> Hashes:
    """Return hashes of what was hashed and of further values behind it (the finaliser of SplitMix64)."""
    mixed = (hashes ^ (hashes >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + values
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)
