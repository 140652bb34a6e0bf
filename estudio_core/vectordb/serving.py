"""Which release answers searches: remembered from the search before, and confirmed by the search itself.

A search needs the release twice: its model encodes the query, then its collection is searched. Reading the pointer
first would be a round trip of its own. Instead, the statement that searches carries the pointer as it was last read
(`Serving.holds`) and finds nothing where it has moved since; then the search begins again with what is live now. So an
answer always comes from the release that was live in the snapshot of the search.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from estudio_core.errors import InferenceUnavailableError, ModelError, ReleaseError, ReleaseMovedError
from estudio_core.vectordb.releases import Release, live_pointer
from estudio_core.vectordb.search_session import search_connection

REMEMBERED_S = 60.0
"""A pointer that nobody has searched by for so long is read anew: its model may be gone, and is not tried in vain."""

Found = TypeVar("Found")
_remembered: dict[str, tuple[Serving, float]] = {}
"""By plugin, with the time of its last search by `time.monotonic()`."""


@dataclass(frozen=True)
class Serving:
    """A live release and the pointer that named it.

    Model, collection, index and breadth of a release do not change once it is live. Its counters, which do, may be old.
    """

    release: Release
    switched_at: datetime

    holds = sql.SQL(
        "EXISTS (SELECT FROM estudio.pointers"
        " WHERE plugin = %(plugin)s AND release_id = %(release)s AND switched_at = %(switched_at)s)"
    )
    """Condition that the pointer has not moved, with the values of `values`."""

    @cached_property
    def values(self) -> dict[str, Any]:
        """Bound values of `holds`."""
        return {
            "plugin": self.release.plugin,
            "release": self.release.release_id,
            "switched_at": self.switched_at,
        }

    def require(self, conn: psycopg.Connection) -> None:
        """Make sure that the pointer has not moved, in the snapshot of the transaction.

        Raises:
            ReleaseMovedError: it has.
        """
        if conn.execute(sql.SQL("SELECT {}").format(self.holds), self.values).fetchone() != (True,):
            raise ReleaseMovedError(
                f"Release {self.release.release_id} of {self.release.plugin!r} is not live any more. Search again."
            )


def answered(plugin: str, find: Callable[[Serving], Found]) -> tuple[Release, Found]:
    """Return the live release of `plugin` and what `find` finds in it.

    Args:
        plugin: Name of the plugin.
        find: Searches the collection of a release with a query that the model of the same release encoded, while it is
            live (`search(..., while_live=...)`). Called again where the release was not live any more.

    Raises:
        NothingLiveError: nothing is live yet.
    """
    known = _remembered.get(plugin)
    serving = read(plugin) if known is None or time.monotonic() - known[1] > REMEMBERED_S else known[0]
    while True:
        try:
            found = find(serving)
        except (ReleaseError, ModelError, InferenceUnavailableError, psycopg.errors.UndefinedTable):
            # Its model or collection may be gone because releases have followed each other meanwhile.
            now = read(plugin)
            if now.values == serving.values:
                raise
            serving = now
        else:
            _remembered[plugin] = serving, time.monotonic()
            return serving.release, found


def read(plugin: str) -> Serving:
    """Return the live release of `plugin` as its pointer stands now.

    Raises:
        NothingLiveError: there is none yet.
    """
    with search_connection() as conn:
        return Serving(*live_pointer(conn, plugin))
