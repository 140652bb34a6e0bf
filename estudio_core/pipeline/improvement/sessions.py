"""Which sessions an improvement learns from, which measure it, and whether there are enough of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from estudio_core.errors import NotEnoughDataError
from estudio_core.improvement import ledger
from estudio_core.log_context import bind_release
from estudio_core.plugin.run_params import ImproveParams
from estudio_core.vectordb.releases import Release, live_release

if TYPE_CHECKING:
    import psycopg

    from estudio_core.clickstream.ranking_data import FineTuningInput
    from estudio_core.clickstream.sessions import SessionWithEvents
    from estudio_core.plugin.plugin import Plugin


@dataclass(frozen=True)
class ImprovementSessions:
    """Clicked sessions, divided by query: those that move vectors, and those that only measure."""

    learned: list[FineTuningInput]
    held_out: list[FineTuningInput]


def improvable_release(
    connection: psycopg.Connection, plugin_name: str, wanted: ImproveParams
) -> tuple[Release, datetime]:
    """Return the live release and the time from which its sessions have moved nothing yet.

    Raises:
        NotEnoughDataError: nothing is live, or improvement was switched off for this release.
    """
    release = live_release(connection, plugin_name)
    if release is None or release.live_at is None:
        raise NotEnoughDataError(f"Nothing is live for plugin {plugin_name!r}.")
    bind_release(release.release_id)
    before = ledger.history(connection, plugin_name, release.release_id)
    off = next((done for done in before if done.state == "off" and done.release_id == release.release_id), None)
    if off is not None:
        raise NotEnoughDataError(
            f"Switched off for release {release.release_id} since {off.at:%Y-%m-%d %H:%M}: {off.reason} "
            "The next release starts anew."
        )
    went_live = release.live_at - timedelta(days=wanted.before_release_days)
    return release, max([went_live, *(done.until for done in before)])


def read_sessions(
    connection: psycopg.Connection, plugin: Plugin, wanted: ImproveParams, since: datetime, until: datetime
) -> ImprovementSessions:
    """Return the clicked sessions before `until`: of those from `since` on, the training side moves vectors.

    Machines, and sessions of a client beyond what counts of one, move nothing for everybody.

    The clickstream divides at `since`, by its own times: those of converted sessions are whole seconds.
    """
    from estudio_core.clickstream.clients import counted_sessions
    from estudio_core.clickstream.converter import usable_inputs
    from estudio_core.clickstream.ranking_data import with_one_spelling
    from estudio_core.clickstream.store import ClickstreamStore

    def usable(sessions: list[SessionWithEvents]) -> Iterator[FineTuningInput]:
        for converted in usable_inputs(sessions, plugin.converter, plugin.query_retriever):
            if converted.user_id is not None or not wanted.personal:
                yield converted

    store, name = ClickstreamStore(connection), plugin.meta.name
    newer = list(store.sessions(name, since=since, until=until, limit=wanted.max_sessions))
    window = until - timedelta(days=wanted.window_days)
    older = store.sessions(name, since=window, until=min(since, until), limit=wanted.max_sessions - len(newer))
    inputs = [*usable(newer), *usable(list(older))]  # of a client beyond its share, the newer ones count
    if not wanted.personal:  # in vectors of their own, users outvote nobody
        inputs = list(counted_sessions(inputs)[0])
    sides = plugin.splitter.split([converted for converted in inputs if not converted.is_clickless])
    served_by_moved = _served_by_moved(connection, name)
    new = {session.session_id for session in newer}
    return ImprovementSessions(
        [session for session in sides["train"] if session.session_id in new],
        list(with_one_spelling(each for each in [*sides["dev"], *sides["holdout"]] if not served_by_moved(each))),
    )


def _served_by_moved(connection: psycopg.Connection, plugin_name: str) -> Callable[[FineTuningInput], bool]:
    """Return what tells whether a session may have been served by moved vectors.

    From the first application for a release on, its sessions; where a session does not say its release, all of them.
    """
    began: dict[int, datetime] = {}
    for done in ledger.history(connection, plugin_name):  # the latest first
        if done.state == "applied":
            began[done.release_id] = done.at
    earliest = min(began.values(), default=None)

    def served(session: FineTuningInput) -> bool:
        if earliest is None:
            return False
        of_release = session.release is not None and session.release.isdigit()
        since = began.get(int(session.release or 0)) if of_release else earliest
        return since is not None and session.timestamp >= int(since.timestamp())

    return served


def check_enough(sessions: ImprovementSessions, wanted: ImproveParams, since: datetime) -> None:
    """Refuse too few sessions to learn from, or to measure with.

    Raises:
        NotEnoughDataError: it says how many there are, and what to do.
    """
    if len(sessions.learned) < wanted.min_sessions:
        raise NotEnoughDataError(
            f"{len(sessions.learned)} clicked sessions to learn from since {since:%Y-%m-%d %H:%M}; "
            f"{wanted.min_sessions} are needed."
        )
    queries = {session.query for session in sessions.held_out}
    if len(queries) < wanted.min_held_out_queries:
        raise NotEnoughDataError(
            f"{len(queries)} held-out queries in the last {wanted.window_days} days; {wanted.min_held_out_queries} are "
            "needed to measure whether moved vectors help. Widen the window, or wait for more sessions."
        )
