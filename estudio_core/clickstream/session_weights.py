"""Numbers for each result of each session, by session id: two arrays in place of a dictionary of tuples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.session_table import Floats, Ints, SessionTable


class SessionWeights(Mapping[str, tuple[float, ...]]):
    """Weights by session id, one number per result in shown order.

    >>> from estudio_core.clickstream.fine_tuning_input import FineTuningInput
    >>> from estudio_core.clickstream.table_builder import table_of
    >>> table = table_of([FineTuningInput("s", "lamp", ("a", "b"), (0, 1), (None, None), (0.0, 1.0))])
    >>> weights = SessionWeights.of(table, np.array([1.0, 2.0]))
    >>> weights, "t" in weights, weights.get("s")
    ({'s': (1.0, 2.0)}, False, (1.0, 2.0))

    Args:
        tables: Sessions, and the numbers of their results.
    """

    def __init__(self, *tables: tuple[SessionTable, Floats]) -> None:
        self._tables = tables

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what was cached: hashes of texts differ from process to process."""
        return {"_tables": self._tables}

    @classmethod
    def of(cls, table: SessionTable, values: Floats) -> SessionWeights:
        """Return the weights of the sessions of a table, [shown results]."""
        return cls((table, values))

    @cached_property
    def _starts(self) -> list[Ints]:
        return [np.concatenate([[0], np.cumsum(table.lengths)]) for table, _ in self._tables]

    @cached_property
    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]:
        """Hashes of the ids, sorted, and for each the place of its session, and the number of its table."""
        hashes, places, owners = [], [], []
        for number, (table, _) in enumerate(self._tables):
            for start in range(0, len(table), _TOGETHER):
                ids = table.columns.ids.at(table.rows[start : start + _TOGETHER])
                hashes.append(np.fromiter(map(hash, ids), dtype=np.int64, count=len(ids)))
            places.append(np.arange(len(table)))
            owners.append(np.full(len(table), number, dtype=np.int8))
        found = np.concatenate(hashes) if hashes else np.empty(0, dtype=np.int64)
        order = np.argsort(found, kind="stable")
        return found[order], np.concatenate(places)[order], np.concatenate(owners)[order]

    def __getitem__(self, session_id: str) -> tuple[float, ...]:
        """Return the weights of a session; KeyError where it is unknown."""
        hashes, places, owners = self._places
        at = int(np.searchsorted(hashes, hash(session_id), side="right")) - 1
        while at >= 0 and hashes[at] == hash(session_id):  # of equal ids the last one counts, as in a dictionary
            table, values = self._tables[owners[at]]
            place = int(places[at])
            if table.columns.ids[int(table.rows[place])] == session_id:
                starts = self._starts[owners[at]]
                return tuple(values[starts[place] : starts[place + 1]].tolist())
            at -= 1
        raise KeyError(session_id)

    def __iter__(self) -> Iterator[str]:
        """Yield the ids of the sessions."""
        for table, _ in self._tables:
            for chunk in table.chunks(_TOGETHER):
                yield from table.columns.ids.at(chunk.rows)

    def __len__(self) -> int:
        """Return the number of sessions."""
        return sum(len(table) for table, _ in self._tables)

    def __or__(self, others: SessionWeights) -> SessionWeights:
        """Return these weights and others; of a session that both know, the others'."""
        return SessionWeights(*self._tables, *others._tables)

    def __eq__(self, other: object) -> bool:
        """Mappings of the same weights are equal."""
        return isinstance(other, Mapping) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Say the weights of a few sessions, and count those of many."""
        return repr(dict(self)) if len(self) <= 20 else f"<SessionWeights of {len(self):,} sessions>"


_TOGETHER = 100_000
