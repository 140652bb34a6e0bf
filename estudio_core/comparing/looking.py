"""A look at an experiment: where it stands by the clickstream as it is now, and whether that decides it."""

from __future__ import annotations

import time
from datetime import timedelta

import psycopg

from estudio_core.clickstream.store import ClickstreamStore
from estudio_core.comparing import ledger
from estudio_core.comparing.credit import visits_of
from estudio_core.comparing.ledger import Experiment
from estudio_core.comparing.standing import Standing, standing_of
from estudio_core.vectordb.releases import live_release

ACTOR = "its clicks"
MOST_SESSIONS = 2_000_000
"""The newest sessions that a look reads."""


def standing_now(conn: psycopg.Connection, experiment: Experiment) -> Standing:
    """Return where an experiment stands by what is logged."""
    now_s = time.time()  # before the log is read: what is clicked meanwhile is not known of visits that settle now
    since = experiment.started_at - timedelta(seconds=1)
    with conn.transaction():
        sessions = ClickstreamStore(conn).sessions(experiment.plugin, since, limit=MOST_SESSIONS)
        visits = visits_of(sessions, experiment.experiment_id, experiment.settings)
    return standing_of(visits, experiment.settings, now_s, experiment.started_at.timestamp())


def look(conn: psycopg.Connection, experiment: Experiment) -> Experiment:
    """Write down where a running experiment stands, decide it where that can be told, and return it as it is then.

    Whoever looks, and however often: the verdict is as certain. An experiment whose champion is not live any more, or
    whose challenger has been made live otherwise, is over.

    Args:
        conn: Autocommit connection.
        experiment: One that is under way.
    """
    if experiment.state != "running":
        return experiment
    live = live_release(conn, experiment.plugin)
    if live is None or live.release_id != experiment.champion:
        now = "nothing is live any more" if live is None else f"release {live.release_id} went live"
        return ledger.decide(conn, experiment, "stopped", f"Stopped, because {now}.", ACTOR)
    standing = standing_now(conn, experiment)
    ledger.note(conn, experiment, standing)
    if standing.finding is not None:
        return ledger.decide(conn, experiment, standing.finding, standing.reason, ACTOR)
    return ledger.get(conn, experiment.experiment_id)
