"""Search as users meet it: a text in, items of the live release out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

from estudio_core.errors import ConfigurationError, ConnectionLostError, shown, suggest

if TYPE_CHECKING:
    from estudio_core.vectordb.ordering import SortBy
    from estudio_core.vectordb.releases import Release
    from estudio_core.vectordb.search import SearchHit
    from estudio_core.vectordb.serving import Serving

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
) -> SearchAnswer:
    """Answer `query` from the live release of `plugin`: its encoder and its collection, never two releases mixed.

    An empty query finds nothing by itself; with `sort_by` it lists all items that match, in that order.

    Args:
        plugin: Name of the search plugin.
        query: What the user typed; its first 10,000 characters are read.
        limit: Most hits to return.
        offset: Hits to skip; pages are disjoint and complete.
        max_distance: Leave out items that are farther.
        filter: Payload filter, as a dictionary of `estudio_core.vectordb.filters`.
        sort_by: Order by this payload field instead of by score; give `max_distance` with it.
        user_id: Whose personal vectors to use where there are any; a number is the text that it is written as.
        mode: What ranks. `hybrid` is similarity + weight x BM25, with the weight that the release brought along; a
            release without words is searched by vectors. `words` finds only items that hold a word of the query.
        exact: Compare all items instead of asking the index: slower, and the same after every build of the index.

    Raises:
        ConfigurationError: an argument is not legal, or the query is empty and nothing else says what to find.
        DataError: PostgreSQL cannot work with it.
        NothingLiveError: nothing is live yet.
        InferenceUnavailableError: the query cannot be encoded now.
        DatabaseUnavailableError: the index cannot be read now.
    """
    from estudio_core.database import errors_named
    from estudio_core.ids import as_id
    from estudio_core.vectordb.filters import parse_filter
    from estudio_core.vectordb.search import QUERY_LIMIT, check_given
    from estudio_core.vectordb.search_session import renew_connections
    from estudio_core.vectordb.serving import answered

    if mode not in get_args(Mode):
        raise ConfigurationError(f"mode is {shown(mode)}. {suggest(shown(mode), get_args(Mode))}")
    check_given(plugin, "plugin")
    check_given(query, "query")
    if not query.strip() and sort_by is None:
        raise ConfigurationError(
            "The query is empty, so that nothing is nearer to it than anything else. Give words to search for, or "
            "sort_by='field' to list all items that match in that order."
        )
    wanted = partial(
        _found,
        query=query[:QUERY_LIMIT],
        limit=limit,
        offset=offset,
        max_distance=max_distance,
        filter=None if filter is None else parse_filter(filter),  # refused before anything is encoded
        sort_by=sort_by,
        user_id=None if user_id is None else as_id(user_id, "user_id"),
        mode=mode,
        exact=exact,
    )
    with errors_named():
        try:
            release, found = answered(plugin, wanted)
        except ConnectionLostError:
            # The server was restarted since the pool last asked. Reading again harms nobody.
            renew_connections()
            release, found = answered(plugin, wanted)
    return SearchAnswer(
        plugin=plugin,
        release_id=release.release_id,
        model_version=release.model_version,
        hits=[_hit(hit, release, mode) for hit in found],
    )


def _hit(hit: SearchHit, release: Release, mode: Mode) -> Hit:
    if hit.distance != hit.distance:  # none was computed
        return Hit(hit.object_id, None, hit.payload or {}, hit.words or 0.0, hit.words, hit.personal)
    similarity = 1 - hit.distance if release.index_info.metric_type == "cosine" else -hit.distance
    score = similarity + release.ranking.weight * (hit.words or 0.0)
    return Hit(hit.object_id, similarity, hit.payload or {}, score, hit.words, hit.personal)


def _found(serving: Serving, query: str, *, mode: Mode, **options: Any) -> list[SearchHit]:
    """Search the collection of one release with the encoder of the same."""
    from estudio_core.inference.opening import open_search_embedder
    from estudio_core.vectordb.search import search as search_collection
    from estudio_core.vectordb.search_session import search_connection

    release = serving.release
    empty = not query.strip()
    by_words = empty or mode == "words"
    vector = None if by_words else open_search_embedder(release.model_name).embed_queries([query])[0]
    with search_connection() as conn:
        return search_collection(
            conn,
            release.collection,
            vector,
            text=None if empty or mode == "vector" else query,
            weight=release.ranking.weight,
            while_live=serving,
            **options,
        )
