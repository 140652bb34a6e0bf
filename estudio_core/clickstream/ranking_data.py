"""What a model is trained and evaluated on: split sessions, and the texts of the items in them.

On disk a dataset is a folder of Parquet files: `sessions.parquet`, `items.parquet` and, where words are ranked beside
vectors, `words.parquet`; its id is a hash of its content, so that the same data always has the same id.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from estudio_core.clickstream.dataset_words import DatasetWords
from estudio_core.clickstream.query_retriever import query_key
from estudio_core.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

Split = Literal["train", "dev", "holdout"]
"""train: gradients. dev: early stopping, choice of trial and weights. holdout: the gate, nothing else."""

SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class FineTuningInput:
    """One session, ready for training: a query text and what was shown for it.

    `results`, `positions`, `ranks` and `click_weights` are parallel, in shown order.
    A click weight of 0 means shown and not clicked; 1 is a plain click.
    """

    session_id: str
    query: str
    results: tuple[str, ...]
    positions: tuple[int, ...]
    ranks: tuple[float | None, ...]
    click_weights: tuple[float, ...]
    timestamp: int = 0
    user_id: str | None = None
    release: str | None = None
    query_variants: tuple[str, ...] = ()
    """Augmented spellings of the query; training data only."""

    def __post_init__(self) -> None:
        """Refuse lists of different length and results that stand twice."""
        lengths = {len(self.results), len(self.positions), len(self.ranks), len(self.click_weights)}
        if len(lengths) != 1:
            raise DataError(
                f"Session {self.session_id!r}: results, positions, ranks and click_weights must be equally long; "
                f"got {len(self.results)}, {len(self.positions)}, {len(self.ranks)}, {len(self.click_weights)}."
            )
        if len(set(self.results)) != len(self.results):
            raise DataError(f"Session {self.session_id!r}: a result stands twice; keep its first position only.")

    @property
    def query_key(self) -> str:
        """What all spellings of the query have in common, see `clickstream.query_retriever.query_key`."""
        return query_key(self.query)

    @property
    def events(self) -> tuple[str, ...]:
        """Ids of the clicked results, in shown order."""
        return tuple(r for r, w in zip(self.results, self.click_weights, strict=True) if w > 0)

    @property
    def not_events(self) -> tuple[str, ...]:
        """Ids of the results that were shown and not clicked, in shown order."""
        return tuple(r for r, w in zip(self.results, self.click_weights, strict=True) if w <= 0)

    @property
    def is_clickless(self) -> bool:
        """True for a session without clicks."""
        return not any(w > 0 for w in self.click_weights)

    def without(self, ids: Iterable[str]) -> FineTuningInput:
        """Return the session without the results `ids`; positions of the others are kept."""
        gone = set(ids)
        keep = [i for i, r in enumerate(self.results) if r not in gone]
        return FineTuningInput(
            session_id=self.session_id,
            query=self.query,
            results=tuple(self.results[i] for i in keep),
            positions=tuple(self.positions[i] for i in keep),
            ranks=tuple(self.ranks[i] for i in keep),
            click_weights=tuple(self.click_weights[i] for i in keep),
            timestamp=self.timestamp,
            user_id=self.user_id,
            release=self.release,
            query_variants=self.query_variants,
        )


def with_one_spelling(sessions: Iterable[FineTuningInput]) -> list[FineTuningInput]:
    """Return the sessions, all of a query under its most frequent spelling; of equally frequent ones, the first.

    For what counts or compares queries: "USB cable" and "usb cable" are one, see `query_key`.

    >>> spelt = ["Lamp", "lamp", "lamp ", "lamp"]
    >>> asked = [FineTuningInput(str(number), text, (), (), (), ()) for number, text in enumerate(spelt)]
    >>> {session.query for session in with_one_spelling(asked)}
    {'lamp'}
    """
    given = list(sessions)
    spellings: dict[str, Counter[str]] = {}
    for session in given:
        spellings.setdefault(session.query_key, Counter())[session.query] += 1
    usual = {key: found.most_common(1)[0][0] for key, found in spellings.items()}
    return [replace(session, query=usual[session.query_key]) for session in given]


class ItemsSet(Mapping[str, tuple[str, ...]]):
    """Part texts by object id, with optional augmented variants of each object.

    `items[object_id]` is the tuple of the object's own part texts. `variants(object_id)` is a list of
    such tuples whose first element is the object's own.
    """

    def __init__(
        self,
        parts: Mapping[str, Sequence[str]],
        variants: Mapping[str, Sequence[Sequence[str]]] | None = None,
    ) -> None:
        self._parts = {str(k): tuple(v) for k, v in parts.items()}
        empty = [k for k, v in self._parts.items() if not v]
        if empty:
            raise DataError(f"Items without any part: {empty[:10]}. Every item needs a text.")
        self._variants = {str(k): [tuple(v) for v in vs] for k, vs in (variants or {}).items() if vs}
        unknown = self._variants.keys() - self._parts.keys()
        if unknown:
            raise DataError(f"Variants of items that are not in the set: {sorted(unknown)[:10]}.")

    def __getitem__(self, object_id: str) -> tuple[str, ...]:
        """Return the part texts of `object_id`; KeyError where it is unknown."""
        return self._parts[object_id]

    def __iter__(self) -> Iterator[str]:
        """Iterate over object ids, in insertion order."""
        return iter(self._parts)

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self._parts)

    def variants(self, object_id: str) -> list[tuple[str, ...]]:
        """Return the object's own part texts, then those of its augmented variants."""
        return [self._parts[object_id], *self._variants.get(object_id, [])]


@dataclass(frozen=True)
class RankingData:
    """Sessions by split, and the items that occur in them.

    `missing_items` are ids that sessions name and the source does not have, `invalid_items` those whose row
    cannot be used, with the reason; their results were removed from the sessions. `words` are those of the items and
    of all spellings of the queries; None where vectors alone are ranked.
    """

    splits: dict[Split, list[FineTuningInput]]
    items: ItemsSet
    missing_items: tuple[str, ...] = ()
    invalid_items: Mapping[str, str] = field(default_factory=dict)
    words: DatasetWords | None = None
    dataset_id: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Give every split a list, and the data its content hash."""
        for split in SPLITS:
            self.splits.setdefault(split, [])
        if not self.dataset_id:
            object.__setattr__(self, "dataset_id", _content_hash(self))

    def save(self, folder: Path) -> None:
        """Write the dataset's files into the existing `folder`."""
        import pyarrow.parquet as pq

        pq.write_table(_sessions_table(self), folder / "sessions.parquet", compression="zstd")
        pq.write_table(_items_table(self), folder / "items.parquet", compression="zstd")
        if self.words is not None:
            pq.write_table(self.words.table(), folder / "words.parquet", compression="zstd")

    @classmethod
    def load(cls, folder: Path) -> RankingData:
        """Read what `save` wrote.

        Raises:
            DataError: a file is missing or unreadable.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            sessions = pq.read_table(folder / "sessions.parquet")
            items = pq.read_table(folder / "items.parquet")
            has_words = (folder / "words.parquet").is_file()
            words = DatasetWords.of_table(pq.read_table(folder / "words.parquet")) if has_words else None
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"No readable dataset in {folder}: {error}. Run the preprocessing step again.") from error
        splits: dict[Split, list[FineTuningInput]] = {split: [] for split in SPLITS}
        for row in sessions.to_pylist():
            split = row.pop("split")
            tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
            splits[split].append(FineTuningInput(**tuples))
        parts: dict[str, list[str]] = {}
        variants: dict[str, dict[int, list[str]]] = {}
        for row in items.to_pylist():
            if row["variant"] == 0:
                parts.setdefault(row["object_id"], []).append(row["text"])
            else:
                variants.setdefault(row["object_id"], {}).setdefault(row["variant"], []).append(row["text"])
        metadata = sessions.schema.metadata or {}
        missing = json.loads(metadata.get(b"missing_items", b"[]"))
        invalid = json.loads(metadata.get(b"invalid_items", b"{}"))
        return cls(
            splits=splits,
            items=ItemsSet(parts, {k: list(v.values()) for k, v in variants.items()}),
            missing_items=tuple(missing),
            invalid_items=invalid,
            words=words,
        )

    def queries(self, split: Split) -> list[str]:
        """Return the distinct queries of a split in order of first appearance, each in its first spelling."""
        first: dict[str, str] = {}
        for session in self.splits[split]:
            first.setdefault(session.query_key, session.query)
        return list(first.values())


def _sessions_table(data: RankingData) -> pa.Table:
    import pyarrow as pa

    schema = pa.schema(
        [
            ("split", pa.string()),
            ("session_id", pa.string()),
            ("query", pa.string()),
            ("results", pa.list_(pa.string())),
            ("positions", pa.list_(pa.int32())),
            ("ranks", pa.list_(pa.float64())),
            ("click_weights", pa.list_(pa.float64())),
            ("timestamp", pa.int64()),
            ("user_id", pa.string()),
            ("release", pa.string()),
            ("query_variants", pa.list_(pa.string())),
        ],
        metadata={
            b"missing_items": json.dumps(data.missing_items).encode(),
            b"invalid_items": json.dumps(dict(data.invalid_items)).encode(),
        },
    )
    rows = [
        {"split": split} | {name: getattr(s, name) for name in schema.names if name != "split"}
        for split in SPLITS
        for s in data.splits[split]
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def _items_table(data: RankingData) -> pa.Table:
    import pyarrow as pa

    rows = [
        {"object_id": object_id, "variant": variant, "part": part, "text": text}
        for object_id in data.items
        for variant, parts in enumerate(data.items.variants(object_id))
        for part, text in enumerate(parts)
    ]
    schema = pa.schema(
        [("object_id", pa.string()), ("variant", pa.int32()), ("part", pa.int32()), ("text", pa.string())]
    )
    return pa.Table.from_pylist(rows, schema=schema)


def _content_hash(data: RankingData) -> str:
    digest = hashlib.sha256()
    for split in SPLITS:
        for session in sorted(data.splits[split], key=lambda s: s.session_id):
            digest.update(f"{split}\x1f{session!r}\x1e".encode())
    for object_id in sorted(data.items):
        digest.update(f"{object_id}\x1f{data.items.variants(object_id)!r}\x1e".encode())
    for text in data.words.described() if data.words is not None else ():
        digest.update(f"{text}\x1e".encode())
    return digest.hexdigest()[:16]
