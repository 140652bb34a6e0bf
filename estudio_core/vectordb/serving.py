"""Which release answers searches: remembered from the search before, and confirmed by the search itself.

A search needs the release twice: its model encodes the query, then its collection is searched. Reading the pointer
first would be a round trip of its own. Instead, the statement that searches carries the pointer as it was last read
(`Serving.condition`) and finds nothing where it has moved since; then the search begins again with what is live now. So
an answer always comes from the release that was live in the snapshot of the search.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import sql

from estudio_core.errors import InferenceUnavailableError, ModelError, ReleaseError, ReleaseMovedError
from estudio_core.vectordb.releases import OTHERS, POINTER, RELEASE, Release, nothing_live, release_of
from estudio_core.vectordb.search_session import search_connection
from estudio_core.vectordb.statements import Blocking, Statements, run

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

    pinned: bool = False
    """Asked for by its number: it need not be live, but it has to be kept."""

    @property
    def condition(self) -> LiteralString:
        """Condition that it may still answer, with the values of `values`."""
        return _KEPT if self.pinned else _LIVE

    @cached_property
    def values(self) -> dict[str, Any]:
        """Bound values of `condition`."""
        return {
            "plugin": self.release.plugin,
            "release": self.release.release_id,
            "switched_at": self.switched_at,
        }

    async def require(self, at: Statements) -> None:
        """Make sure that the pointer has not moved, in the snapshot of the transaction.

        Raises:
            ReleaseMovedError: it has.
        """
        if await at.rows(sql.SQL("SELECT {}").format(sql.SQL(self.condition)), self.values) != [(True,)]:
            raise self.gone()

    def gone(self) -> ReleaseMovedError:
        """Return the error of a search that it can answer no more."""
        name = f"Release {self.release.release_id} of {self.release.plugin!r}"
        if self.pinned:
            return ReleaseMovedError(f"{name} is not kept any more. Begin again at the first page, without a release.")
        return ReleaseMovedError(f"{name} is not live any more. Search again.")


async def answer(
    plugin: str, find: Callable[[Serving], Awaitable[Found]], read_now: Callable[[str], Awaitable[Serving]]
) -> tuple[Release, Found]:
    """Return the live release of `plugin` and what `find` finds in it.

    Args:
        plugin: Name of the plugin.
        find: Searches the collection of a release with a query that the model of the same release encoded, while it is
            live (`search_at(..., while_live=...)`). Called again where the release was not live any more.
        read_now: Returns what `read` does.

    Raises:
        NothingLiveError: nothing is live yet.
    """
    known = _remembered.get(plugin)
    serving = await read_now(plugin) if known is None or time.monotonic() - known[1] > REMEMBERED_S else known[0]
    while True:
        try:
            found = await find(serving)
        except (ReleaseError, ModelError, InferenceUnavailableError, psycopg.errors.UndefinedTable):
            # Its model or collection may be gone because releases have followed each other meanwhile.
            now = await read_now(plugin)
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
        return run(pointed(Blocking(conn), plugin))


async def pointed(at: Statements, plugin: str) -> Serving:
    """Return the live release of `plugin` as its pointer stands now. Raises: as `read`."""
    rows = await at.rows(POINTER, (plugin,))
    if not rows:
        raise nothing_live(plugin, [row[0] for row in await at.rows(OTHERS)])
    return Serving(release_of(rows[0][:-1]), rows[0][-1])


async def pinned(at: Statements, plugin: str, release_id: int) -> Serving:
    """Return a release by its number: the live one, a challenger, or one that is kept for a rollback.

    Raises:
        ReleaseError: the plugin has none of that number, or its collection is kept no more.
    """
    rows = await at.rows(RELEASE, (release_id,))
    if not rows or rows[0][1] != plugin:
        raise ReleaseError(f"Plugin {plugin!r} has no release {release_id}. See: estudio releases --plugin {plugin}")
    serving = Serving(release_of(rows[0]), datetime.min.replace(tzinfo=UTC), pinned=True)
    if serving.release.state not in _ANSWERING:
        raise serving.gone()
    return serving


_ANSWERING = ("live", "challenger", "previous")
_LIVE: LiteralString = (
    "EXISTS (SELECT FROM estudio.pointers"
    " WHERE plugin = %(plugin)s AND release_id = %(release)s AND switched_at = %(switched_at)s)"
)
_KEPT: LiteralString = (
    "EXISTS (SELECT FROM estudio.deployments"
    " WHERE plugin = %(plugin)s AND release_id = %(release)s AND state IN ('live', 'challenger', 'previous'))"
)


def forget() -> None:
    """Remember no release: a process that was forked has searched nothing yet."""
    _remembered.clear()


os.register_at_fork(after_in_child=forget)
