"""Search as users meet it: a text in, items of the live release out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from estudio_core.errors import ConnectionLostError

if TYPE_CHECKING:
    from estudio_core.vectordb.ordering import SortBy
    from estudio_core.vectordb.search import SearchHit
    from estudio_core.vectordb.serving import Serving


@dataclass(frozen=True)
class Hit:
    """One found item.

    Attributes:
        object_id: The item.
        similarity: 1 - distance for cosine, the negated distance otherwise.
        payload: What is kept beside its vectors.
        score: Of a hybrid search: the fused score, by which hits are ordered.
        personal: Whether the user's own vectors were compared.
    """

    object_id: str
    similarity: float
    payload: dict[str, Any]
    score: float | None = None
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
    hybrid: bool = False,
    exact: bool = False,
) -> SearchAnswer:
    """Answer `query` from the live release of `plugin`: its encoder and its collection, never two releases mixed.

    Args:
        plugin: Name of the search plugin.
        query: What the user typed.
        limit: Most hits to return.
        offset: Hits to skip; pages are disjoint and complete.
        max_distance: Leave out items that are farther.
        filter: Payload filter, as a dictionary of `estudio_core.vectordb.filters`.
        sort_by: Order by this payload field instead of by similarity; give `max_distance` with it.
        user_id: Whose personal vectors to use where there are any.
        hybrid: Fuse the order by similarity with that of a full-text search for the words of `query`.
        exact: Compare all items instead of asking the index: slower, and the same after every build of the index.

    Raises:
        NothingLiveError: nothing is live yet.
        InferenceUnavailableError: the query cannot be encoded now.
        DatabaseUnavailableError: the index cannot be read now.
    """
    from estudio_core.vectordb.search_session import renew_connections
    from estudio_core.vectordb.serving import answered

    wanted = partial(
        _found,
        query=query,
        limit=limit,
        offset=offset,
        max_distance=max_distance,
        filter=filter,
        sort_by=sort_by,
        user_id=user_id,
        hybrid=hybrid,
        exact=exact,
    )
    try:
        release, found = answered(plugin, wanted)
    except ConnectionLostError:
        # The server was restarted since the pool last asked. Reading again harms nobody.
        renew_connections()
        release, found = answered(plugin, wanted)
    cosine = release.index_info.metric_type == "cosine"
    return SearchAnswer(
        plugin=plugin,
        release_id=release.release_id,
        model_version=release.model_version,
        hits=[
            Hit(
                hit.object_id,
                1 - hit.distance if cosine else -hit.distance,
                hit.payload or {},
                hit.score,
                hit.personal,
            )
            for hit in found
        ],
    )


def _found(serving: Serving, query: str, *, hybrid: bool, **options: Any) -> list[SearchHit]:
    """Search the collection of one release with the encoder of the same."""
    from estudio_core.inference.opening import open_search_embedder
    from estudio_core.vectordb.search import search as search_collection
    from estudio_core.vectordb.search_session import search_connection

    release = serving.release
    vector = open_search_embedder(release.model_name).embed_queries([query])[0]
    with search_connection() as conn:
        return search_collection(
            conn, release.collection, vector, text=query if hybrid else None, while_live=serving, **options
        )
