"""The demo's clickstream: simulated searches and clicks on what the base model shows. No real user is in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from estudio_core.clickstream.replay import ClickModel, Ranking, replay_clicks
from estudio_core.clickstream.store import ClickstreamStore
from estudio_core.demo.catalog import demo_queries, load_judgments
from estudio_core.errors import DataError
from estudio_core.searching import search

if TYPE_CHECKING:
    import psycopg

    from estudio_core.evaluation.judgments import Judgments

APPLICATION = "demo_catalog"
SESSIONS = 1_000
SHOWN = 20
"""Most results a simulated user is shown."""
SEARCHED_DEPTH = 200
"""Results of a search from which the shown ones are taken: those that people rated for the query. Nobody knows what
users would think of the others, two thirds of the best 20, and clicks drawn as if they were irrelevant taught a model
so: on a development partition, never-asked queries gained +0.005 nDCG@10 from such a log, and +0.033 from this one."""


def rankings_of(plugin: str) -> dict[str, Ranking]:
    """Return what the live release of `plugin` finds for each searched query: (object id, score), best first.

    By exact search: an index differs a little from build to build, and the clickstream would differ with it.
    """
    return {
        query: [(hit.object_id, hit.score) for hit in search(plugin, query, limit=SEARCHED_DEPTH, exact=True).hits]
        for query in demo_queries().searched
    }


@dataclass(frozen=True)
class ReplayedClickstream:
    """What the demo's clickstream holds. `written` is 0 where it was there already."""

    sessions: int
    clicked_sessions: int
    written: int


def replay_clickstream(
    connection: psycopg.Connection,
    rankings: Mapping[str, Ranking],
    *,
    application: str = APPLICATION,
    sessions: int = SESSIONS,
    release: str | None = None,
    end: datetime | None = None,
    seed: int = 42,
) -> ReplayedClickstream:
    """Log simulated searches of the searched queries, with clicks drawn from the human ratings.

    Running it again changes nothing: ids depend on application and seed alone. The caller commits.

    Args:
        connection: To a database with Estudio's schema.
        rankings: What a search finds for each of `demo_queries().searched`, see `rankings_of`. Its first `SHOWN` rated
            products are shown; a query with fewer than two of them is not asked.
        application: Name under which searches are logged.
        sessions: Number of simulated searches.
        release: Release said to have answered.
        end: Time of the last search; now where None. Searches spread over the 30 days before it.
        seed: Of the simulation.

    Raises:
        DataError: a searched query has no ranking, or none has two rated products.
    """
    judgments = load_judgments()
    store = ClickstreamStore(connection)
    shown = _rated(judgments.only(demo_queries(judgments).searched), rankings)
    replay = replay_clicks(
        judgments.only(shown),
        shown,
        sessions=sessions,
        application=application,
        end=end or datetime.now(UTC),
        click_model=ClickModel(),
        shown=SHOWN,
        release=release,
        seed=seed,
    )
    with connection.transaction():
        written = store.log_queries(replay.queries).inserted
        store.log_events(replay.events)
    return ReplayedClickstream(
        sessions=store.count_sessions(application),
        clicked_sessions=store.count_sessions(application, clicked_only=True),
        written=written,
    )


def _rated(judgments: Judgments, rankings: Mapping[str, Ranking]) -> dict[str, Ranking]:
    """Return, for each query, the results that people rated, in their order; queries with fewer than two left out."""
    unknown = [query for query in judgments if query not in rankings]
    if unknown:
        raise DataError(f"No ranking for the queries {unknown[:5]} ({len(unknown)} in all). Give one for each query.")
    rated = {query: [hit for hit in rankings[query] if hit[0] in judgments[query]] for query in judgments}
    return {query: hits for query, hits in rated.items() if len(hits) > 1}
