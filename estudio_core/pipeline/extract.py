"""Sessions of the window, from the clickstream to one file."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from estudio_core import database
from estudio_core.artifacts import ArtifactStore
from estudio_core.clickstream.log_rows import KEPT_OF_SEARCH
from estudio_core.clickstream.log_values import field_name
from estudio_core.clickstream.session_files import writing
from estudio_core.clickstream.session_table import Queries
from estudio_core.clickstream.store import ClickstreamStore
from estudio_core.errors import NotEnoughDataError
from estudio_core.pipeline.manifests import SessionsManifest
from estudio_core.pipeline.training.sessions import SESSIONS_FILE, window_end
from estudio_core.plugin.precedence import resolve
from estudio_core.plugin.registry import open_plugin
from estudio_core.progress import report
from estudio_core.promotion.trainings import new_sessions

if TYPE_CHECKING:
    import psycopg

    from estudio_core.clickstream.session_batch import SessionBatch

_PEOPLE = ("client_id", "visit_id", "user_id")
_KEPT = {*KEPT_OF_SEARCH, "simulated"}
"""Whatever else an application wrote beside a search may name people, and no training reads it."""


def extract(plugin_name: str, run_id: str, params: dict[str, Any], wanted_new: int | None = None) -> SessionsManifest:
    """Store the sessions of the window that ended when clicks on its last ones had time to arrive.

    Clients are numbered: what is stored tells them apart, and holds nobody's id, so that it may stay when one of them
    has to be forgotten.
    Where there are more than a run takes, these are drawn by lot from all of the window, so that a frequent query does
    not take the place of others (`ClickstreamStore.sessions`). A rerun of the same run reads the same window: its end
    is kept beside the sessions.

    Args:
        plugin_name: Name of the plugin.
        run_id: Id of the run.
        params: Fields of `FineTuneParams`.
        wanted_new: Clicked sessions since the last training for which the run was started; None where it was started
            for another reason.

    Raises:
        NotEnoughDataError: there are fewer clicked sessions than `min_sessions`, or fewer new ones than `wanted_new`.
    """
    wanted = resolve(params, plugin=open_plugin(plugin_name).fine_tune)
    store = ArtifactStore()
    read_at = window_end(store, plugin_name, run_id)
    until = read_at - timedelta(minutes=wanted.settle_minutes)
    since = until - timedelta(days=wanted.window_days)
    clients: dict[str, str] = {}
    queries = Queries()
    times: list[int] = []
    counts = {"sessions": 0, "clicked_sessions": 0, "simulated_sessions": 0}
    with store.publish(plugin_name, run_id, "sessions") as folder, database.connect() as connection:
        database.require_schema(connection)
        if wanted_new is not None:
            _check_new(connection, plugin_name, run_id, since, read_at, wanted_new, wanted.settle_minutes)
        with writing(folder / SESSIONS_FILE) as file:
            clickstream = ClickstreamStore(connection)
            counts["window_sessions"] = clickstream.count_sessions(plugin_name, since=since, until=until)
            counts["waiting_sessions"] = clickstream.count_sessions(plugin_name, since=until, until=read_at)
            for batch in clickstream.session_batches(
                plugin_name, since=since, until=until, limit=wanted.max_sessions, by_query=True
            ):
                file.write(_numbered(batch, clients))
                counts["sessions"] += len(batch)
                counts["clicked_sessions"] += sum(map(bool, batch.events))
                counts["simulated_sessions"] += sum(bool(meta and meta.get("simulated")) for meta in batch.search_meta)
                queries.codes(batch.query)
                times = [*times[:1], batch.created_at[0], batch.created_at[-1]]
                report("Extract", counts["sessions"], None, "sessions")
        if counts["clicked_sessions"] < wanted.min_sessions:
            waiting = f" {counts['waiting_sessions']} younger ones wait for {wanted.settle_minutes} minutes to settle."
            raise NotEnoughDataError(
                f"{counts['clicked_sessions']} clicked sessions of plugin {plugin_name!r} since {since:%Y-%m-%d}; "
                f"{wanted.min_sessions} are needed. Widen the window, ask for fewer, or wait for more clicks."
                f"{waiting if counts['waiting_sessions'] else ''}"
            )
    report("Extract", counts["sessions"], counts["sessions"], "sessions")
    uri = store.uri(plugin_name, run_id, "sessions")
    first, last = (datetime.fromtimestamp(times[at], UTC).isoformat() if times else None for at in (0, -1))
    return SessionsManifest(
        uri=uri,
        since=since.isoformat(),
        until=until.isoformat(),
        queries=len(queries.keys),
        first=first,
        last=last,
        **counts,
    )


def _numbered(batch: SessionBatch, clients: dict[str, str]) -> SessionBatch:
    """Return sessions whose people are numbers of this run; one id is one number, whatever it is logged as."""

    def number(given: str | None) -> str | None:
        return None if given is None else clients.setdefault(given, str(len(clients) + 1))

    who = [
        [number(each) for each in people] for people in zip(*(getattr(batch, name) for name in _PEOPLE), strict=True)
    ]
    people = dict(zip(_PEOPLE, map(list, zip(*who, strict=True)), strict=True))
    metas = [meta and {name: meta[name] for name in meta if field_name(name) in _KEPT} for meta in batch.search_meta]
    return replace(batch, **people, search_meta=metas)


def _check_new(
    connection: psycopg.Connection,
    plugin_name: str,
    run_id: str,
    since: datetime,
    until: datetime,
    wanted: int,
    settle_minutes: int,
) -> None:
    """Refuse a run that was started for new sessions which another run has trained on meanwhile."""
    found = new_sessions(
        connection, plugin_name, since=since, until=until, for_run=run_id, settle_minutes=settle_minutes
    )
    if found < wanted:
        raise NotEnoughDataError(
            f"{found} clicked sessions of plugin {plugin_name!r} since the last training; this run was started for "
            f"{wanted} of them. Start a run by hand to train all the same."
        )
