"""From what was asked to what is found: hits, how many match, facets. The one place where the service searches.

**What matches.** Without a text, all items that meet the filter. With a text every item is more or less near to it;
the best `MATCHES` of them are what matches: totals, facets and a sort by a field speak of these, and a total that says
`gte` says that there may be more. With `mode` words, or `max_distance`, they may be fewer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread

from estudio_core import database, exact_json
from estudio_core.comparing.answering import Part, PartAnswer
from estudio_core.comparing.answering import answer as compared
from estudio_core.comparing.ledger import Experiment, under_way
from estudio_core.errors import (
    DatabaseUnavailableError,
    EstudioError,
    NothingLiveError,
    ReleaseMovedError,
    SearchTimeoutError,
)
from estudio_core.searching import Hit, Mode, SearchAnswer, asearch
from estudio_core.service import aggregations, metrics
from estudio_core.service.aggregations import Aggregation
from estudio_core.settings import get_settings
from estudio_core.vectordb import facets
from estudio_core.vectordb.facets import PayloadField
from estudio_core.vectordb.filters import all_of
from estudio_core.vectordb.ordering import SortBy
from estudio_core.vectordb.releases import Release, get_release, live_release
from estudio_core.vectordb.search import find_by_filter
from estudio_core.vectordb.search_session import default_deadline, search_connection

if TYPE_CHECKING:
    import psycopg

    from estudio_core.service.state import State

MATCHES = 1_000
"""Items that match a text at most: as many as a search hands out without reading rows one by one."""
COUNTED = 10_000
"""Items that are counted where no text is given, unless asked for more, as in OpenSearch."""

logger = logging.getLogger(__name__)

Done = TypeVar("Done")
Counter = Callable[["psycopg.Connection", Release], Any]


@dataclass(frozen=True)
class Wanted:
    """A search as it is carried out.

    Attributes:
        plugin: The plugin.
        text: What is ranked by; None lists what meets the filter.
        filter: Condition on the payload, with that of the key, as JSON.
        hits_filter: Further condition of hits, which aggregations do not have.
        sort: Field to order by.
        start: Hits to leave out first.
        size: Most hits.
        total: Most items to count; None: all; 0: none.
        aggregations: What is counted, by name.
        mode: What ranks.
        max_distance: What is farther is left out.
        user_id: Whose personal rows are searched.
        exact: Compare all items.
        drafted_by: Names the search, all its pages alike: an experiment mixes results by it. None: nothing names it.
        client: Who asks, as far as the client says.
    """

    plugin: str
    text: str | None
    filter: dict[str, Any] | None = None
    hits_filter: dict[str, Any] | None = None
    sort: SortBy | None = None
    start: int = 0
    size: int = 10
    total: int | None = COUNTED
    aggregations: Mapping[str, Aggregation] = field(default_factory=dict)
    mode: Mode = "hybrid"
    max_distance: float | None = None
    user_id: str | None = None
    exact: bool = False
    drafted_by: str | None = None
    client: str | None = None

    @property
    def compares(self) -> bool:
        """Whether an experiment may have a part in it: a ranking by relevance, of which users see the top."""
        return self.sort is None and self.max_distance is None and self.mode == "hybrid" and self.size > 0

    @property
    def of_hits(self) -> dict[str, Any] | None:
        """The condition of hits."""
        return all_of(self.filter, self.hits_filter)


@dataclass(frozen=True)
class Found:
    """What was found. `relation` is `eq`, or `gte` where more match than `total`; `part` is that in an experiment."""

    release_id: int
    model_version: str
    hits: list[Hit]
    total: int | None
    relation: str
    aggregations: dict[str, Any] | None
    took_ms: int
    part: Part | None = None


async def find(wanted: Wanted, state: State) -> Found:
    """Carry out a search. Everything in the answer comes from one release. Raises: as `searching.search`."""
    begun = time.perf_counter()
    while True:
        try:
            found = await (_listed(wanted, state) if wanted.text is None else _ranked(wanted, state))
            break
        except ReleaseMovedError:  # between the hits and what is counted beside them: both again
            if time.perf_counter() - begun > 10:
                raise
    if wanted.text is not None and wanted.start == 0 and (wanted.size or found.total is not None):
        metrics.count_search(wanted.plugin, found=bool(found.hits or found.total))
    return replace(found, took_ms=round((time.perf_counter() - begun) * 1000))


async def count(plugin: str, filter: dict[str, Any] | None, state: State) -> tuple[int, int]:
    """Return how many items meet a filter, and of which release."""

    def counted(connection: psycopg.Connection, release: Release) -> int:
        return facets.count_up_to(connection, release.collection, facets.subset(filter), None)

    release, number = await look(plugin, counted, state)
    return number, release.release_id


async def fields(plugin: str, filter: dict[str, Any] | None, state: State) -> list[PayloadField]:
    """Return the fields of those items of a plugin's live release that meet a filter."""
    release, _ = await look(plugin, lambda connection, release: None, state)

    def counted(connection: psycopg.Connection, release: Release) -> list[PayloadField]:
        return facets.payload_fields(connection, release.collection, facets.subset(filter))

    async def counting() -> list[PayloadField]:
        return await _threaded(state, partial(_in_release, release.release_id, counted))

    return await state.fields.get((release.release_id, exact_json.dumps(filter)), counting)


async def look(plugin: str, read: Counter, state: State) -> tuple[Release, Any]:
    """Return the live release of a plugin and what `read` returns of it, at one moment, in the time of a search.

    Raises:
        NothingLiveError: nothing is live yet.
        SearchTimeoutError: a statement took longer.
    """
    return await _threaded(state, partial(_in_live, plugin, read))


async def answer(
    wanted: Wanted, state: State, *, limit: int, offset: int, filter: dict[str, Any] | None
) -> SearchAnswer:
    """Search as an application in Python would: everything that the service finds by a text comes through here."""

    async def search(release: int | None, most: int, start: int) -> SearchAnswer:
        assert wanted.text is not None
        return await asearch(
            wanted.plugin,
            wanted.text,
            limit=most,
            offset=start,
            max_distance=wanted.max_distance,
            filter=filter,
            user_id=wanted.user_id,
            mode=wanted.mode,
            exact=wanted.exact,
            release=release,
        )

    experiment = await _experiment_of(wanted.plugin, state) if wanted.compares else None
    if experiment is None:
        return await search(None, limit, offset)
    return await compared(
        experiment, search, drafted_by=wanted.drafted_by, client=wanted.client, limit=limit, offset=offset,
        filter=filter, user_id=wanted.user_id, left_out=partial(metrics.count_left_out, wanted.plugin),
    )  # fmt: skip


async def _experiment_of(plugin: str, state: State) -> Experiment | None:
    """Return the experiment that searches of a plugin have a part in now.

    Where the database does not say, there is none: the search itself will say what is wrong.
    """

    def read() -> Experiment | None:
        try:
            with database.errors_named(), search_connection() as connection:
                found = under_way(connection, plugin)
        except EstudioError as error:
            logger.warning("Whether an experiment of %s is under way is not known: %s", plugin, error)
            return None
        return found if found is not None and found.answers else None

    async def look() -> Experiment | None:
        return await anyio.to_thread.run_sync(read, limiter=state.small_reads)

    return await state.experiments.get(plugin, look)


async def _ranked(wanted: Wanted, state: State) -> Found:
    matching = wanted.max_distance is not None or wanted.mode == "words"
    if wanted.aggregations or wanted.sort is not None or matching:
        return await _from_matches(wanted, state)
    searching = answer(wanted, state, limit=wanted.size, offset=wanted.start, filter=wanted.of_hits)
    if _counts_anew(wanted):
        found, total = await asyncio.gather(searching, _count_matches(wanted, state))
    else:
        found, total = await searching, await _count_matches(wanted, state)
    if total is not None and found.hits:  # counted a while ago, perhaps
        total = max(total, wanted.start + len(found.hits))
    return _told(found, found.hits, total, _counted_to(wanted), None)


def _counted_to(wanted: Wanted) -> int:
    """Return how many items that match a text are counted at most."""
    return MATCHES if wanted.total is None else min(MATCHES, wanted.total)


async def _count_matches(wanted: Wanted, state: State) -> int | None:
    """Return how many items match a text, one more than `MATCHES` where there are more; None where nobody asks."""
    if wanted.total == 0:
        return None
    condition = wanted.of_hits

    def counted(connection: psycopg.Connection, release: Release) -> int:
        of = facets.subset(condition, wanted.user_id)
        return facets.count_up_to(connection, release.collection, of, MATCHES + 1)

    async def counting() -> int:
        return int((await look(wanted.plugin, counted, state))[1])

    return await counting() if _counts_anew(wanted) else await state.sizes.get(wanted.plugin, counting)


def _counts_anew(wanted: Wanted) -> bool:
    """Return whether nobody has counted these items a moment ago: a filter, or a user's own, make them others."""
    return wanted.of_hits is not None or wanted.user_id is not None


async def _from_matches(wanted: Wanted, state: State) -> Found:
    """Answer from the items that match, all of which are looked at: they are counted, or ordered anew."""
    reach = max(MATCHES, 0 if wanted.sort is not None else wanted.start + wanted.size)
    matches = await answer(wanted, state, limit=reach, offset=0, filter=wanted.filter)
    hits = matches
    if wanted.hits_filter is not None:
        hits = await answer(wanted, state, limit=reach, offset=0, filter=wanted.of_hits)
        if hits.release_id != matches.release_id:
            raise ReleaseMovedError("Another release went live meanwhile.")
    listed = hits.hits
    if wanted.sort is not None:
        listed = _ordered(listed[:MATCHES], wanted.sort)
    page = listed[wanted.start : wanted.start + wanted.size]
    counts = None
    if wanted.aggregations:
        ids = [hit.object_id for hit in matches.hits[:MATCHES]]

        def counted(connection: psycopg.Connection, release: Release) -> dict[str, Any]:
            of = facets.Subset(None, wanted.user_id, ids)
            return aggregations.count(connection, release.collection, wanted.aggregations, of, default_deadline())

        counts = await _threaded(state, partial(_in_release, matches.release_id, counted))
    if wanted.total == 0:
        return _told(hits, page, None, None, counts)
    total = len(hits.hits)
    nearest = wanted.max_distance is None and wanted.mode != "words"
    if total == reach and nearest:  # all items match, and nobody has looked behind the last of these
        total = max(total, await _count_matches(wanted, state) or 0)
        return _told(hits, page, total, _counted_to(wanted), counts)
    return _told(hits, page, total, _counted_to(wanted), counts, more=total == reach)


def _ordered(hits: list[Hit], sort: SortBy) -> list[Hit]:
    """Order hits by a field as the database does: texts before numbers before truth values, what has none last."""
    from estudio_core.vectordb.filters import field_path

    path = field_path(sort.field).path

    def value(hit: Hit) -> Any:
        found: Any = hit.payload
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found

    having = [hit for hit in hits if value(hit) is not None]
    lacking = sorted((hit for hit in hits if value(hit) is None), key=lambda hit: hit.object_id)
    having.sort(key=lambda hit: hit.object_id)
    having.sort(key=lambda hit: _rank(value(hit)), reverse=sort.descending)
    return having + lacking


def _rank(value: Any) -> tuple[int, Any]:
    if isinstance(value, str):
        return 0, value
    if isinstance(value, bool):
        return 2, value
    return (1, value) if not isinstance(value, list | dict) else (3, len(value))


async def _listed(wanted: Wanted, state: State) -> Found:
    """Answer without a text: what meets the filter, in the order of a field, or of ids."""
    most = wanted.total

    def found(connection: psycopg.Connection, release: Release) -> tuple[list[Hit], int | None, dict[str, Any] | None]:
        collection = release.collection
        rows = []
        if wanted.size:
            rows = find_by_filter(
                connection, collection, wanted.of_hits, limit=wanted.size, offset=wanted.start, sort_by=wanted.sort,
                user_id=wanted.user_id,
            )  # fmt: skip
        hits = [
            Hit(row.original_id or row.object_id, None, row.payload, 1.0, None, row.user_id is not None) for row in rows
        ]
        total = None
        if most != 0:
            of = facets.subset(wanted.of_hits, wanted.user_id)
            total = facets.count_up_to(connection, collection, of, None if most is None else most + 1)
        counts = None
        if wanted.aggregations:
            of = facets.subset(wanted.filter, wanted.user_id)
            counts = aggregations.count(connection, collection, wanted.aggregations, of, default_deadline())
        return hits, total, counts

    release, (hits, total, counts) = await look(wanted.plugin, found, state)
    answered = SearchAnswer(wanted.plugin, release.release_id, release.model_version, hits)
    return _told(answered, hits, total, most, counts)


def _told(
    answered: SearchAnswer,
    hits: list[Hit],
    total: int | None,
    most: int | None,
    counts: dict[str, Any] | None,
    *,
    more: bool = False,
) -> Found:
    """Return the answer; `total` was counted beyond `most` where there are more, or `more` says that there may be."""
    beyond = total is not None and most is not None and total > most
    return Found(
        release_id=answered.release_id,
        model_version=answered.model_version,
        hits=hits,
        total=most if beyond else total,
        relation="gte" if beyond or more else "eq",
        aggregations=counts,
        took_ms=0,
        part=_part_of(answered, hits),
    )


def _part_of(answered: SearchAnswer, hits: list[Hit]) -> Part | None:
    """Return the part in an experiment of those hits of an answer that are shown."""
    if not isinstance(answered, PartAnswer):
        return None
    return answered.part.of([hit.object_id for hit in hits])


def _in_live(plugin: str, read: Counter) -> tuple[Release, Any]:
    with _one_snapshot() as connection:
        release = live_release(connection, plugin)
        if release is None:
            raise NothingLiveError(f"Nothing of plugin {plugin!r} is live yet.")
        return release, read(connection, release)


def _in_release(release_id: int, read: Counter) -> Any:
    with _one_snapshot() as connection:
        release = get_release(connection, release_id)
        if release.state not in ("live", "challenger", "previous"):
            raise ReleaseMovedError(f"Release {release_id} is gone.")
        return read(connection, release)


@contextmanager
def _one_snapshot() -> Iterator[psycopg.Connection]:
    """Lend a connection whose statements all see one moment, and end when a search has to.

    Raises:
        SearchTimeoutError: they took longer.
    """
    import psycopg

    seconds = get_settings().search_timeout_s
    try:
        with database.errors_named(), database.connection() as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            connection.execute(
                "SELECT set_config('statement_timeout', %s, true)", (f"{max(1, round(seconds * 1000))}ms",)
            )
            yield connection
    except DatabaseUnavailableError as error:
        if isinstance(error.__cause__, psycopg.errors.QueryCanceled):
            raise SearchTimeoutError(f"Counting took longer than {seconds:g} s.") from error
        raise


async def _threaded(state: State, work: Callable[[], Done]) -> Done:
    return await anyio.to_thread.run_sync(work, limiter=state.searches, abandon_on_cancel=True)
