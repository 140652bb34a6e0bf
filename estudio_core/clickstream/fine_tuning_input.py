"""One session, ready for training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from estudio_core.clickstream.query_retriever import query_key
from estudio_core.errors import DataError


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
    client_id: str | None = field(default=None, repr=False)
    """The browser or device that asked, as the log names it."""
    by_relevance: bool = field(default=True, repr=False)
    """False where the list was sorted by something else, filtered, or a further page: its order says nothing of
    relevance, and what was not clicked is no worse for it. Clicks are clicks."""

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
    def client(self) -> str | None:
        """Who asked, as near as the log says: the client, else the user; None where it names neither."""
        return self.user_id if self.client_id is None else self.client_id

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
        return replace(
            self,
            results=tuple(self.results[i] for i in keep),
            positions=tuple(self.positions[i] for i in keep),
            ranks=tuple(self.ranks[i] for i in keep),
            click_weights=tuple(self.click_weights[i] for i in keep),
        )
