"""How long a build will take, and how much memory and disk: told before it begins, and refused where it cannot fit."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from estudio_core import database
from estudio_core.errors import ConfigurationError
from estudio_core.pipeline.items.parts import ItemParts, SplitItem
from estudio_core.vectordb.sizing import Server, Size, server, size_of

if TYPE_CHECKING:
    from estudio_core.plugin.plugin import Plugin
    from estudio_core.plugin.registry import PluginManager
    from estudio_core.plugin.validation import Check

logger = logging.getLogger(__name__)

SAMPLE = 200
"""Items whose parts and texts stand for all."""


@dataclass(frozen=True)
class Preflight:
    """What a build of all items needs, and what is there.

    Attributes:
        items: Rows of the source.
        size: What their collection needs.
        given: What the database's server gives.
        limit_minutes: Time limit of the task that builds the index.
    """

    items: int
    size: Size
    given: Server
    limit_minutes: int

    @property
    def told(self) -> str:
        """All of it in a line."""
        free = "" if self.given.free_mb is None else f", {self.given.free_mb / 1024:,.1f} GB free on its disk"
        return (
            f"{self.items:,} items in {self.size.rows:,} vectors: index in {self.size.memory_mb:,} MB of memory "
            f"({self.given.memory_mb:,} MB may be taken, {self.given.workers + 1} processes) in about "
            f"{_time(self.size.seconds)}, {self.size.disk_mb / 1024:,.1f} GB of disk{free}"
        )

    @property
    def problems(self) -> list[str]:
        """What does not fit, with the cure."""
        found = []
        if self.given.free_mb is not None and self.size.disk_mb > self.given.free_mb:
            found.append(
                f"The new collection needs {self.size.disk_mb / 1024:,.1f} GB of the database's disk, which has "
                f"{self.given.free_mb / 1024:,.1f} GB free. Make room, or store vectors in half precision: "
                'TextIndex(storage="halfvec").'
            )
        if self.size.seconds > 60 * self.limit_minutes:
            why = ""
            if self.size.memory_mb > self.given.memory_mb:
                why = (
                    f", because its graph needs {self.size.memory_mb:,} MB and {self.given.memory_mb:,} MB may be "
                    f"taken. Let ESTUDIO_INDEX_MEMORY_MB allow {self.size.memory_mb:,} where the database's server has "
                    "them (of a server elsewhere, effective_cache_size tells how much it has)"
                )
            found.append(
                f"The index will take about {_time(self.size.seconds)}{why}. The task that builds it is stopped after "
                f"{self.limit_minutes} minutes: raise DagSettings(index_timeout_minutes=…)."
            )
        return found

    def require_fit(self) -> None:
        """Refuse a build that cannot come to its end.

        Raises:
            ConfigurationError: names what does not fit, and the cure.
        """
        if found := self.problems:
            raise ConfigurationError(" ".join(found))


def preflight(plugin: Plugin, limit_minutes: int, items: int | None = None) -> Preflight:
    """Return what a build of the plugin's items needs, by a count, a sample, and what the server says.

    Args:
        plugin: The plugin.
        limit_minutes: Time limit of the task that builds the index.
        items: Rows of the source, where they are counted already.

    Raises: as `DataLoader.iter_items`; DatabaseUnavailableError: Estudio's database does not answer.
    """
    count = plugin.loader.total_count() if items is None else items
    sample = sampled(plugin)
    parts = sum(len(each.parts) for each in sample) / max(1, len(sample))
    text_bytes = sum(len(each.text) + len(str(each.item.payload)) for each in sample) / max(1, len(sample))
    with database.connect(autocommit=True) as connection:
        given = server(connection)
    size = size_of(count, round(count * max(1.0, parts)), text_bytes, plugin.index, given)
    return Preflight(count, size, given, limit_minutes)


def size_check(manager: PluginManager, name: str) -> Iterator[Check]:
    """Say in one line what a build of a plugin's items needs; wrong is what would not come to its end.

    Nothing is said where the plugin or its source cannot be used: other checks do.
    """
    from estudio_core.plugin.discovery import read_card
    from estudio_core.plugin.validation import Check

    try:
        limit_minutes = read_card(name, manager.path).dag_settings.index_timeout_minutes
        needed = preflight(manager.open_plugin(name), limit_minutes)
    except Exception as error:  # a plugin is somebody else's code
        logger.info("What a build of %r needs cannot be told: %s", name, error)
        return
    yield Check("size", not needed.problems, " ".join(needed.problems) or needed.told)


def sampled(plugin: Plugin, count: int = SAMPLE) -> Sequence[SplitItem]:
    """Return the first usable items of the source with their parts."""
    return list(islice(ItemParts(plugin).of_rows([plugin.loader.first_items(2 * count)]), count))


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5_400 else f"{seconds / 3600:,.1f} h"
