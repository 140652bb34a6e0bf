"""Sessions of the window, from the clickstream to one file."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from estudio_core import database
from estudio_core.artifacts import ArtifactStore
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

_REPORT_EACH = 1000


def extract(plugin_name: str, run_id: str, params: dict[str, Any], wanted_new: int | None = None) -> SessionsManifest:
    """Store the newest sessions of the window that ends now.

    A rerun of the same run reads the same window: its end is kept beside the sessions.

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
    until = window_end(store, plugin_name, run_id)
    since = until - timedelta(days=wanted.window_days)
    counts = {"sessions": 0, "clicked_sessions": 0, "simulated_sessions": 0}
    with store.publish(plugin_name, run_id, "sessions") as folder, database.connect() as connection:
        database.require_schema(connection)
        if wanted_new is not None:
            _check_new(connection, plugin_name, run_id, since, until, wanted_new)
        with (folder / SESSIONS_FILE).open("w", encoding="utf-8") as file:
            for session in ClickstreamStore(connection).sessions(
                plugin_name, since=since, until=until, limit=wanted.max_sessions
            ):
                file.write(session.model_dump_json() + "\n")
                counts["sessions"] += 1
                counts["clicked_sessions"] += bool(session.events)
                counts["simulated_sessions"] += bool((session.search_meta or {}).get("simulated"))
                if counts["sessions"] % _REPORT_EACH == 0:
                    report("Extract", counts["sessions"], None, "sessions")
        if counts["clicked_sessions"] < wanted.min_sessions:
            raise NotEnoughDataError(
                f"{counts['clicked_sessions']} clicked sessions of plugin {plugin_name!r} since {since:%Y-%m-%d}; "
                f"{wanted.min_sessions} are needed. Widen the window, ask for fewer, or wait for more clicks."
            )
    report("Extract", counts["sessions"], counts["sessions"], "sessions")
    uri = store.uri(plugin_name, run_id, "sessions")
    return SessionsManifest(uri=uri, since=since.isoformat(), until=until.isoformat(), **counts)


def _check_new(
    connection: psycopg.Connection, plugin_name: str, run_id: str, since: datetime, until: datetime, wanted: int
) -> None:
    """Refuse a run that was started for new sessions which another run has trained on meanwhile."""
    found = new_sessions(connection, plugin_name, since=since, until=until, for_run=run_id)
    if found < wanted:
        raise NotEnoughDataError(
            f"{found} clicked sessions of plugin {plugin_name!r} since the last training; this run was started for "
            f"{wanted} of them. Start a run by hand to train all the same."
        )
