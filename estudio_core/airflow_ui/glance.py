"""What a person asks first of a plugin, in a few bounded queries: what is live, how good, what is next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, LiteralString
from urllib.parse import quote

from psycopg.rows import dict_row

from estudio_core import database
from estudio_core.airflow_ui.next_step import NextStep, Situation, next_step
from estudio_core.errors import EstudioError
from estudio_core.monitoring import ledger as monitoring
from estudio_core.plugin.discovery import PluginCard, read_card
from estudio_core.plugin.precedence import resolve
from estudio_core.promotion import ledger as promotions
from estudio_core.promotion.trainings import new_sessions, trained_until
from estudio_core.vectordb.releases import live_pointer, live_release, previous_release

if TYPE_CHECKING:
    import psycopg

    from estudio_core.airflow_ui.runs import FailedRun, Runs
    from estudio_core.monitoring.ledger import Watch
    from estudio_core.vectordb.releases import Release

QUALITIES = {
    "unseen_ndcg_at_10_after": "nDCG@10 on queries never seen in training",
    "seen_ndcg_at_10_after": "nDCG@10 on queries users searched before",
}
"""Numbers of promotions that tell the quality of a release, the one to show first, and what they are."""
MOST_COUNTED = 10_000
"""Sessions after which counting ends: more than that is enough, however many there are."""
_LAST_RELEASES = 12
_LAST_PROMOTIONS = 40
"""Among which the last releases are looked for."""


@dataclass(frozen=True)
class Quality:
    """Quality of the last releases, oldest first: number of the release and value of the metric."""

    metric: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Failure:
    """The last thing that failed, and why; `over` says that something later of its kind went well."""

    at: datetime
    what: str
    reason: str
    over: bool
    link: str | None
    """Path below Airflow's address, where there is something to see."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out sessions of the last training, and how many a decision by clicks needs."""

    sessions: int
    needed: int


@dataclass(frozen=True)
class Glance:
    """One plugin at a glance.

    `wanted_sessions` is None where the plugin's settings cannot be read; `counted_all` says whether `new_sessions` is
    all of them or where counting ended.
    """

    plugin: str
    description: str
    live: Release | None
    live_since: datetime | None
    previous: Release | None
    quality: Quality | None
    new_sessions: int
    counted_all: bool
    wanted_sessions: int | None
    watch: Watch | None
    failure: Failure | None
    step: NextStep
    held_out: HeldOut | None = None


def glances(runs: Mapping[str, Runs]) -> list[Glance]:
    """Return what is known of each plugin, in the order of `runs`."""
    with database.connect() as connection:
        return [_glance(connection, plugin, found) for plugin, found in runs.items()]


def _glance(connection: psycopg.Connection, plugin: str, runs: Runs) -> Glance:
    card = _card(plugin)
    live = live_release(connection, plugin)
    wanted = None if card is None else _wanted(card, trained=trained_until(connection, plugin) is not None)
    most = max(MOST_COUNTED, wanted or 0)
    sessions = new_sessions(connection, plugin, most=most)
    watches = monitoring.history(connection, plugin, 1)
    return Glance(
        plugin=plugin,
        description=(card.meta.description or "") if card else "",
        live=live,
        live_since=live_pointer(connection, plugin)[1] if live else None,
        previous=previous_release(connection, plugin),
        quality=_quality(connection, plugin),
        new_sessions=sessions,
        counted_all=sessions < most,
        wanted_sessions=wanted,
        watch=watches[0] if watches else None,
        failure=_failure(connection, plugin, live, runs.failed),
        held_out=_held_out(connection, plugin),
        step=next_step(
            Situation(
                live=live.release_id if live else None,
                dags=runs.dags,
                new_sessions=sessions,
                wanted_sessions=wanted,
                running=runs.running,
                question=runs.question,
                challenger=_challenger(connection, plugin),
                starts_itself=card is not None and card.dag_settings.schedule is not None,
            )
        ),
    )


def _card(plugin: str) -> PluginCard | None:
    try:
        return read_card(plugin)
    except EstudioError:
        return None  # a broken plugin is an import error of its stub, which Airflow shows


def _wanted(card: PluginCard, *, trained: bool) -> int:
    """Return how many new sessions the next training wants; the first one has no others."""
    fewest = resolve({}, plugin=card.fine_tune_params, installation={}).min_sessions
    every = card.dag_settings.every_sessions
    return fewest if every is None else every if trained else max(every, fewest)


def _quality(connection: psycopg.Connection, plugin: str) -> Quality | None:
    history = promotions.history(connection, plugin, _LAST_PROMOTIONS)
    for name, metric in QUALITIES.items():
        found = {
            row.release_id: row.numbers[name]
            for row in history
            if row.release_id is not None and row.way != "rollback" and row.outcome == "live" and name in row.numbers
        }
        if found:
            return Quality(metric, tuple(sorted(found.items())[-_LAST_RELEASES:]))
    return None


def _held_out(connection: psycopg.Connection, plugin: str) -> HeldOut | None:
    """Return what the last training's clicks were enough for; None where it was not decided by any."""
    row = connection.execute(
        "SELECT numbers->>'clicks_sessions', numbers->>'clicks_sessions_needed' FROM estudio.trainings"
        " WHERE plugin = %s ORDER BY at DESC LIMIT 1",
        (plugin,),
    ).fetchone()
    return None if row is None or None in row else HeldOut(int(float(row[0])), int(float(row[1])))


def _challenger(connection: psycopg.Connection, plugin: str) -> str | None:
    """Return the newest version, where it passed the gate and nobody has decided about it."""
    row = connection.execute(
        "SELECT version FROM (SELECT version, promoted FROM estudio.trainings WHERE plugin = %(plugin)s"
        " AND version IS NOT NULL ORDER BY at DESC LIMIT 1) newest WHERE promoted AND NOT EXISTS"
        " (SELECT FROM estudio.promotions WHERE plugin = %(plugin)s AND to_version = version)",
        {"plugin": plugin},
    ).fetchone()
    return None if row is None else str(row[0])


def _failure(
    connection: psycopg.Connection, plugin: str, live: Release | None, failed: FailedRun | None
) -> Failure | None:
    """Return the later of what Estudio's own tables and Airflow call failed; a reason is known to the first only."""
    statement: LiteralString = (
        "SELECT * FROM (SELECT ended_at AS at, run_id, to_version AS version, reason FROM estudio.promotions"
        " WHERE plugin = %(plugin)s AND outcome = 'failed'"
        " UNION ALL SELECT failed_at, run_id, model_version, reason FROM estudio.deployments"
        " WHERE plugin = %(plugin)s AND state = 'failed') failures WHERE at IS NOT NULL ORDER BY at DESC LIMIT 1"
    )
    with connection.cursor(row_factory=dict_row) as cursor:
        noted = cursor.execute(statement, {"plugin": plugin}).fetchone()
    same = failed is not None and noted is not None and failed.run_id == noted["run_id"]
    link = None
    if failed is not None:
        link = f"dags/{failed.dag_id}/runs/{quote(failed.run_id, safe='')}"
        link += f"/tasks/{failed.task_id}" if failed.task_id else ""
    if noted is not None and (failed is None or same or noted["at"] > failed.at):
        over = live is not None and live.live_at is not None and live.live_at > noted["at"]
        what = f"Release of version {noted['version']}"
        return Failure(noted["at"], what, noted["reason"] or "no reason was noted", over, link if same else None)
    if failed is None:
        return None
    kind = failed.dag_id.removeprefix(f"{plugin}__")
    reason = f"task {failed.task_id} failed: its log says why" if failed.task_id else "the run failed"
    return Failure(failed.at, f"Run of {kind}", reason, failed.over, link)
