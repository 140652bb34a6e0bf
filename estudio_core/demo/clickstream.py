"""The demo's clickstream: simulated searches and clicks on what the base model shows. No real user is in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from estudio_core.clickstream.replay import ClickModel, Ranking, replay_clicks
from estudio_core.clickstream.store import ClickstreamStore
from estudio_core.demo.catalog import demo_queries, load_judgments

if TYPE_CHECKING:
    import psycopg

APPLICATION = "demo_catalog"
SESSIONS = 1_000
SHOWN = 20
"""Results a simulated user is shown."""


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
        rankings: What is shown for each of `demo_queries().searched`: (object id, similarity), best first.
        application: Name under which searches are logged.
        sessions: Number of simulated searches.
        release: Release said to have answered.
        end: Time of the last search; now where None. Searches spread over the 30 days before it.
        seed: Of the simulation.

    Raises:
        DataError: a searched query has no ranking.
    """
    judgments = load_judgments()
    store = ClickstreamStore(connection)
    replay = replay_clicks(
        judgments.only(demo_queries(judgments).searched),
        rankings,
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
