"""What a worker process of the service holds for all its requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter

from estudio_core.service.collector import Collector
from estudio_core.service.kept import Kept
from estudio_core.service.keys import Key, KnownKeys, read_key
from estudio_core.service.rates import Rates
from estudio_core.service.typing_ahead import TypingAhead

if TYPE_CHECKING:
    from estudio_core.comparing.ledger import Experiment
    from estudio_core.settings import Settings
    from estudio_core.vectordb.facets import PayloadField

SMALL_READS = 4
"""Threads for what takes a round trip to the database: keys, and whether plugins are public."""
PUBLIC_S = 10.0
"""Plugins are asked again whether they are public after this time: their files may have changed."""
READY_S = 5.0
"""What was found out about readiness holds for so long: probes of many hosts ask for it, and anybody may."""
COUNTS_S = 1.0
"""The page of metrics likewise: with several worker processes it reads a file of each."""
FIELDS_S = 10.0
"""Fields of items are looked at again after this time: writes may bring new ones."""
SIZE_S = 10.0
"""How many items a release has is counted again after this time: a total is no promise."""
EXPERIMENT_S = 1.0
"""So long a process may go on answering as before an experiment began, or ended."""

DELIVERY_S = 600.0
"""So long a message is known again: longer than its signature counts."""


@dataclass
class State:
    """Of one process; made when its event loop runs."""

    settings: Settings
    keys: KnownKeys
    rates: Rates
    collector: Collector
    typing: TypingAhead
    searches: CapacityLimiter
    """Threads that search."""
    writes: CapacityLimiter
    """Threads that write items: each embeds."""
    small_reads: CapacityLimiter
    public: Kept[frozenset[str]] = field(default_factory=lambda: Kept(PUBLIC_S))
    """Plugins that say that everybody may search them."""
    ready: Kept[dict[str, Any]] = field(default_factory=lambda: Kept(READY_S))
    """Whether searches would be answered rightly."""
    counts: Kept[tuple[bytes, str]] = field(default_factory=lambda: Kept(COUNTS_S))
    """The page of metrics."""
    fields: Kept[list[PayloadField]] = field(default_factory=lambda: Kept(FIELDS_S, 1_000))
    """By release and filter, the fields that items have."""
    sizes: Kept[int] = field(default_factory=lambda: Kept(SIZE_S, 1_000))
    """By plugin, how many items match a text without a filter."""
    experiments: Kept[Experiment | None] = field(default_factory=lambda: Kept(EXPERIMENT_S, 1_000, meanwhile=True))
    """By plugin, the experiment that its searches have a part in."""
    deliveries: Kept[dict[str, str]] = field(default_factory=lambda: Kept(DELIVERY_S, 1_000))
    """By their ids, what was done about messages of MLflow: it sends one again where it did not hear the answer."""
    draining: bool = False
    """Whether the process is to end: connections are closed with the answer that they wait for."""

    @classmethod
    def of(cls, settings: Settings) -> State:
        """Return the state of a process that begins."""
        return cls(
            settings=settings,
            keys=KnownKeys(_read_key),
            rates=Rates(),
            collector=Collector(),
            typing=TypingAhead(),
            searches=CapacityLimiter(settings.service_threads),
            writes=CapacityLimiter(2),
            small_reads=CapacityLimiter(SMALL_READS),
        )


def _read_key(key_id: str) -> Key | None:
    from estudio_core import database

    with database.errors_named(), database.connection() as connection:
        return read_key(connection, key_id)
