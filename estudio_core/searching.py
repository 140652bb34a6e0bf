"""Search as users meet it: a text in, items of the live release out."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from psycopg.errors import QueryCanceled, UndefinedTable

from estudio_core import telemetry
from estudio_core.errors import ConfigurationError, ConnectionLostError, shown, suggest
from estudio_core.telemetry import measured
from estudio_core.vectordb.statements import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from concurrent.futures import Future
    from contextlib import AbstractAsyncContextManager

    from estudio_core.deadline import Deadline
    from estudio_core.inference.query_vectors import QueryVectorCounts
    from estudio_core.vectordb.lanes import LaneLoad, LaneName
    from estudio_core.vectordb.ordering import SortBy
    from estudio_core.vectordb.releases import Release
    from estudio_core.vectordb.search import SearchHit
    from estudio_core.vectordb.serving import Serving
    from estudio_core.vectordb.statements import Statements

MOST_HITS, DEEPEST = 10_000, 100_000
"""Of a page: whoever wants all items reads the table that they come from."""
OPENING_S = 60.0
"""How long a search waits for the model that its process opens first, where it brings no deadline of its own."""
_FAR_BACK = 1_000
"""Hits and those before them, beyond which a page takes as much time as reading rows does."""
_NEARLY = 0.1
"""A statement that was stopped with less of its time left was stopped for the deadline, not for a limit of the role."""

Mode = Literal["hybrid", "vector", "words"]
"""What ranks: words and vectors together, vectors alone, or words alone, for which no query is encoded."""


@dataclass(frozen=True)
class Hit:
    """One found item.

    Attributes:
        object_id: The item.
        similarity: 1 - distance for cosine, the negated distance otherwise; None where words alone ranked.
        payload: What is kept beside its vectors.
        score: By which hits are ordered: similarity + the release's weight x words, or the one that ranked alone.
        words: BM25 of the query's words in the item, 1 for about one rare word; None where vectors alone ranked.
        personal: Whether the user's own vectors were compared.
    """

    object_id: str
    similarity: float | None
    payload: dict[str, Any]
    score: float
    words: float | None = None
    personal: bool = False


@dataclass(frozen=True)
class SearchAnswer:
    """Hits, best first, and the release that gave them."""

    plugin: str
    release_id: int
    model_version: str
    hits: list[Hit]


@dataclass(frozen=True)
class SearchStatistics:
    """What searches of this process did so far, for its metrics.

    Attributes:
        query_vectors: Hits, misses and hit rate of the query vectors that are kept, and how many came at once.
        lanes: By name (`cheap`, `costly`), how full the connections for searching are, and how many were refused.
        open_models: Entries of the model repository that are open.
    """

    query_vectors: QueryVectorCounts
    lanes: dict[str, LaneLoad]
    open_models: list[str]


def search(
    plugin: str,
    query: str,
    *,
    limit: int = 10,
    offset: int = 0,
    max_distance: float | None = None,
    filter: dict[str, Any] | None = None,
    sort_by: SortBy | str | None = None,
    user_id: str | None = None,
    mode: Mode = "hybrid",
    exact: bool = False,
    release: int | None = None,
    deadline_s: float | None = None,
) -> SearchAnswer:
    """Answer `query` from the live release of `plugin`: its encoder and its collection, never two releases mixed.

    An empty query finds nothing by itself; with `sort_by` it lists all items that match, in that order.

    Args:
        plugin: Name of the search plugin.
        query: What the user typed; its first 10,000 characters are read.
        limit: Most hits to return, at most 10,000.
        offset: Hits to skip, at most 100,000; pages are disjoint and complete.
        max_distance: Leave out items that are farther.
        filter: Payload filter, as a dictionary of `estudio_core.vectordb.filters`.
        sort_by: Order by this payload field instead of by score; give `max_distance` with it.
        user_id: Whose personal vectors to use where there are any; a number is the text that it is written as.
        mode: What ranks. `hybrid` is similarity + weight x BM25, with the weight that the release brought along; a
            release without words is searched by vectors. `words` finds only items that hold a word of the query.
        exact: Compare all items instead of asking the index: slower, and the same after every build of the index.
        release: `SearchAnswer.release_id` of the first page, for the pages behind it: they come from the same release,
            also where another is live by now, as long as it is kept for a rollback. None: from what is live.
        deadline_s: Seconds until the answer; encoding, waiting for a connection and the statement end then. None: the
            setting `search_timeout_s` (2 unless set), in which the model that a new process opens is not counted.

    Raises:
        ConfigurationError: an argument is not legal, or the query is empty and nothing else says what to find.
        DataError: PostgreSQL cannot work with it.
        NothingLiveError: nothing is live yet.
        ReleaseError: `release` is not kept any more.
        SearchTimeoutError: the deadline passed.
        OverloadedError: more is asked of this process than it can answer; says when to come back (`retry_after_s`).
        InferenceUnavailableError: the query cannot be encoded now.
        DatabaseUnavailableError: the index cannot be read now.
    """
    given = {name: value for name, value in locals().items() if name not in ("plugin", "query")}
    from estudio_core.vectordb.reader import search_url

    wanted = _read(plugin, query, **given)
    search_url()  # an embedded server may have to be started, which nobody's deadline is for
    return run(_answer(_Blocking(), wanted))


async def asearch(
    plugin: str,
    query: str,
    *,
    limit: int = 10,
    offset: int = 0,
    max_distance: float | None = None,
    filter: dict[str, Any] | None = None,
    sort_by: SortBy | str | None = None,
    user_id: str | None = None,
    mode: Mode = "hybrid",
    exact: bool = False,
    release: int | None = None,
    deadline_s: float | None = None,
) -> SearchAnswer:
    """Answer `query` without blocking the running event loop; arguments, answer and errors are those of `search`.

    The connections belong to the event loop; `aclose` closes them.
    """
    given = {name: value for name, value in locals().items() if name not in ("plugin", "query")}
    from estudio_core.vectordb.reader import search_url, search_url_may_wait

    wanted = _read(plugin, query, **given)
    if search_url_may_wait():
        await asyncio.to_thread(search_url)  # before its time begins
    return await _answer(_Awaiting(), wanted)


async def aclose() -> None:
    """Close the connections of the running event loop, before it ends."""
    from estudio_core.vectordb.search_session import close_async_pools

    await close_async_pools()


def prepare(plugin: str) -> None:
    """Open what searches of `plugin` need, before the first one comes: what a server does when it starts.

    Raises: as `search`.
    """
    from estudio_core.database import errors_named
    from estudio_core.inference import coming_models
    from estudio_core.inference.opening import open_search_embedder
    from estudio_core.vectordb.serving import read

    with errors_named():
        model = read(plugin).release.model_name
    coming_models.searched(plugin, model)
    open_search_embedder(model)


def statistics() -> SearchStatistics:
    """Return what searches of this process did so far."""
    from estudio_core.inference.opening import open_entries
    from estudio_core.inference.query_vectors import query_vectors
    from estudio_core.vectordb.lanes import lane

    return SearchStatistics(
        query_vectors.counts, {name: lane(name).load for name in ("cheap", "costly")}, open_entries()
    )


@dataclass(frozen=True)
class _Wanted:
    """A search as it was read."""

    plugin: str
    query: str
    mode: Mode
    release: int | None
    deadline_s: float | None
    options: dict[str, Any]

    @property
    def by_words(self) -> bool:
        """Whether nothing is encoded."""
        return not self.query.strip() or self.mode == "words"

    def lane(self, release: Release) -> LaneName:
        """Return whether it reads the rows of the release's collection one by one."""
        from estudio_core.vectordb.filter_sql import reads_rows
        from estudio_core.vectordb.search import sort_order

        options = self.options
        order = sort_order(options["sort_by"])
        info = release.index_info
        costly = (
            options["exact"]
            or options["limit"] + options["offset"] > _FAR_BACK
            or (options["filter"] is not None and reads_rows(options["filter"], info))
            or (order is not None and (options["max_distance"] is not None or info.field_of(order.field) is None))
        )
        return "costly" if costly else "cheap"


def _read(
    plugin: str,
    query: str,
    *,
    limit: int,
    offset: int,
    max_distance: float | None,
    filter: dict[str, Any] | None,
    sort_by: SortBy | str | None,
    user_id: str | None,
    mode: Mode,
    exact: bool,
    release: int | None,
    deadline_s: float | None,
) -> _Wanted:
    """Refuse what is not legal before anything is encoded or asked."""
    from estudio_core.deadline import Deadline
    from estudio_core.ids import as_id
    from estudio_core.vectordb.filters import parse_filter
    from estudio_core.vectordb.search import (
        LONGEST_NAME,
        QUERY_LIMIT,
        check_distance,
        check_given,
        check_page,
        sort_order,
    )

    if not isinstance(mode, str) or mode not in get_args(Mode):
        raise ConfigurationError(f"mode is {shown(mode)}. {suggest(shown(mode), get_args(Mode))}")
    check_given(plugin, "plugin", LONGEST_NAME)
    check_given(query, "query")
    check_page(limit, offset)
    if limit > MOST_HITS or offset > DEEPEST:
        raise ConfigurationError(
            f"limit is at most {MOST_HITS:,} and offset at most {DEEPEST:,}; given limit={limit:,} and "
            f"offset={offset:,}. Narrow the search down by a filter or max_distance instead."
        )
    check_distance(max_distance)
    sort_order(sort_by)
    if not isinstance(exact, bool):
        raise ConfigurationError(f"exact is True or False; given {shown(exact)}.")
    if release is not None and (isinstance(release, bool) or not isinstance(release, int) or not 0 < release < 2**63):
        raise ConfigurationError(f"release is the number of one, as an answer's release_id; given {shown(release)}.")
    if deadline_s is not None:
        Deadline.after(deadline_s)
    if not query.strip() and sort_by is None:
        raise ConfigurationError(
            "The query is empty, so that nothing is nearer to it than anything else. Give words to search for, or "
            "sort_by='field' to list all items that match in that order."
        )
    parsed = None if filter is None else parse_filter(filter)
    user = None if user_id is None else as_id(user_id, "user_id")
    if user is not None:
        check_given(user, "user_id")
    return _Wanted(
        plugin,
        query[:QUERY_LIMIT],
        mode,
        release,
        deadline_s,
        {
            "limit": limit,
            "offset": offset,
            "max_distance": max_distance,
            "filter": parsed,
            "sort_by": sort_by,
            "user_id": user,
            "exact": exact,
        },
    )


async def _answer(way: _Way, wanted: _Wanted) -> SearchAnswer:
    from estudio_core.database import errors_named
    from estudio_core.deadline import Deadline
    from estudio_core.settings import get_settings

    deadline = Deadline.after(wanted.deadline_s or get_settings().search_timeout_s)
    asked: dict[str, telemetry.Value] = {"estudio.mode": wanted.mode, "estudio.limit": wanted.options["limit"]}
    with measured(telemetry.SEARCH, asked) as told, errors_named():
        try:
            release, found = await _found(way, wanted, deadline, told)
        except ConnectionLostError:
            # The server was restarted since the pool last asked. Reading again harms nobody.
            await way.renew()
            release, found = await _found(way, wanted, deadline, told)
        told.tell("estudio.hits", len(found))
    return SearchAnswer(
        plugin=wanted.plugin,
        release_id=release.release_id,
        model_version=release.model_version,
        hits=[as_hit(hit, release) for hit in found],
    )


async def _found(way: _Way, wanted: _Wanted, deadline: Deadline, told: measured) -> tuple[Release, list[SearchHit]]:
    from estudio_core.vectordb.serving import answer, pinned, pointed

    async def read_now(plugin: str) -> Serving:
        with measured(telemetry.RELEASE, {}):
            async with way.connection("cheap", deadline) as at:
                return await pointed(at, plugin)

    async def find(serving: Serving) -> list[SearchHit]:
        release = serving.release
        told.tell(telemetry.PLUGIN, release.plugin)  # not before: what is asked for may be the name of nothing
        told.tell(telemetry.RELEASE_ID, release.release_id)
        told.tell(telemetry.MODEL, release.model_name)
        return await _in_release(way, wanted, serving, deadline)

    if wanted.release is None:
        found = await answer(wanted.plugin, find, read_now)
        telemetry.show_live(found[0].plugin, found[0].release_id)
        return found
    with measured(telemetry.RELEASE, {}):
        async with way.connection("cheap", deadline) as at:
            serving = await pinned(at, wanted.plugin, wanted.release)
    try:
        return serving.release, await find(serving)
    except UndefinedTable as error:
        raise serving.gone() from error


async def _in_release(way: _Way, wanted: _Wanted, serving: Serving, deadline: Deadline) -> list[SearchHit]:
    """Search the collection of one release with the encoder of the same."""
    from estudio_core.deadline import Deadline
    from estudio_core.inference import coming_models
    from estudio_core.inference.opening import is_open
    from estudio_core.inference.query_vectors import query_vectors
    from estudio_core.vectordb.search import search_at

    release = serving.release
    vector = None
    if not wanted.by_words:
        coming_models.searched(release.plugin, release.model_name)
        # A process that has just begun opens the model: with that counted, every search of it would fail at first.
        opening = wanted.deadline_s is None and not is_open(release.model_name)
        patience = Deadline.after(OPENING_S) if opening else deadline
        with measured(telemetry.QUERY_VECTOR, {telemetry.PLUGIN: release.plugin}):
            future = query_vectors.of(release.release_id, release.model_name, wanted.query, patience)
            vector = await way.result(future, patience)
        if opening:
            deadline = Deadline.after(deadline.seconds)
    try:
        async with way.connection(wanted.lane(release), deadline) as at:
            with measured(telemetry.COLLECTION, {telemetry.PLUGIN: release.plugin}):
                return await search_at(
                    at,
                    release.collection,
                    vector,
                    text=None if not wanted.query.strip() or wanted.mode == "vector" else wanted.query,
                    weight=release.ranking.weight,
                    while_live=serving,
                    **wanted.options,
                )
    except QueryCanceled as error:
        if deadline.left_s < deadline.seconds * _NEARLY:
            raise deadline.passed("the database looked at items") from error
        raise


def as_hit(hit: SearchHit, release: Release) -> Hit:
    """Return what a search of the release's collection found, as users of the release see it."""
    if hit.distance != hit.distance:  # none was computed
        return Hit(hit.object_id, None, hit.payload or {}, hit.words or 0.0, hit.words, hit.personal)
    similarity = 1 - hit.distance if release.index_info.metric_type == "cosine" else -hit.distance
    score = similarity + release.ranking.weight * (hit.words or 0.0)
    return Hit(hit.object_id, similarity, hit.payload or {}, score, hit.words, hit.personal)


class _Way(Protocol):
    """How a search waits: by blocking its thread, or in an event loop."""

    def connection(self, lane: LaneName, deadline: Deadline) -> AbstractAsyncContextManager[Statements]:
        """Lend a connection for searching."""
        ...

    async def result(self, future: Future[Any], deadline: Deadline) -> Any:
        """Wait for what another thread computes."""
        ...

    async def renew(self) -> None:
        """Replace broken connections."""
        ...


class _Blocking:
    @asynccontextmanager
    async def connection(self, lane: LaneName, deadline: Deadline) -> AsyncIterator[Statements]:
        from estudio_core.vectordb.search_session import search_connection
        from estudio_core.vectordb.statements import Blocking

        with search_connection(lane, deadline) as conn:
            yield Blocking(conn)

    async def result(self, future: Future[Any], deadline: Deadline) -> Any:
        try:
            return future.result(max(deadline.left_s, 0.0))
        except TimeoutError as error:
            raise deadline.passed("the query was encoded") from error

    async def renew(self) -> None:
        from estudio_core.vectordb.search_session import renew_connections

        renew_connections()


class _Awaiting:
    @asynccontextmanager
    async def connection(self, lane: LaneName, deadline: Deadline) -> AsyncIterator[Statements]:
        from estudio_core.vectordb.search_session import async_search_connection
        from estudio_core.vectordb.statements import Native

        async with async_search_connection(lane, deadline) as conn:
            yield Native(conn)

    async def result(self, future: Future[Any], deadline: Deadline) -> Any:
        try:
            # Shielded: others wait for the same vector.
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), max(deadline.left_s, 0.0))
        except TimeoutError as error:
            raise deadline.passed("the query was encoded") from error

    async def renew(self) -> None:
        from estudio_core.vectordb.search_session import renew_async_connections

        await renew_async_connections()
