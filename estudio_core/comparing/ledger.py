"""The table `estudio.experiments`: at most one experiment of a plugin is under way.

running ─► decided ─► ended. What is decided is carried out by `pipeline.challenging.concluding`; only a challenger that
was found better goes on answering until then.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from estudio_core.comparing.settings import ExperimentSettings, Form
from estudio_core.comparing.standing import Standing
from estudio_core.errors import ConfigurationError, ExperimentEndedError, ReleaseError
from estudio_core.vectordb.locks import lock_key
from estudio_core.vectordb.releases import Release, get_release, require_live, stand

State = Literal["running", "decided", "ended"]
Verdict = Literal["better", "worse", "harm", "no difference", "stopped"]
"""Of the challenger. `stopped`: by a person, or because something else went live."""

LEGAL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+:-]{0,199}")
_COLUMNS: LiteralString = (
    "experiment_id, plugin, form, champion, challenger, settings, state, verdict, reason, standing, started_by,"
    " ended_by, started_at, looked_at, decided_at, ended_at"
)


@dataclass(frozen=True)
class Experiment:
    """One row. `champion` and `challenger` are numbers of releases; `standing` is as of the last look."""

    experiment_id: str
    plugin: str
    form: Form
    champion: int
    challenger: int
    settings: ExperimentSettings
    state: State
    verdict: Verdict | None
    reason: str
    standing: Standing | None
    started_by: str
    ended_by: str | None
    started_at: datetime
    looked_at: datetime | None
    decided_at: datetime | None
    ended_at: datetime | None

    def __post_init__(self) -> None:
        """Read what the table has as JSON."""
        for name, model in (("settings", ExperimentSettings), ("standing", Standing)):
            if isinstance(given := getattr(self, name), dict):
                object.__setattr__(self, name, model.model_validate(given))

    @property
    def answers(self) -> bool:
        """Whether searches are answered by both releases."""
        return self.state == "running" or (self.state == "decided" and self.verdict == "better")


def start(
    conn: psycopg.Connection,
    release: Release,
    experiment_id: str,
    actor: str,
    *,
    form: Form = "interleaving",
    settings: ExperimentSettings = ExperimentSettings(),  # noqa: B008 (frozen)
) -> Experiment:
    """Let a verified release answer searches beside the live one, from now on; a repeated call returns the same.

    Args:
        conn: Autocommit connection, of a role that runs tasks.
        release: The challenger, verified.
        experiment_id: Names the experiment: letters, digits and `_.+:-`, 200 at most.
        actor: Who starts it.
        form: See `Form`.
        settings: When it ends.

    Raises:
        NothingLiveError: there is nothing to compare with.
        ReleaseError: the release is not verified, or another experiment of the plugin is under way.
        ConfigurationError: the name is not legal, or names another experiment.
    """
    _require_legal(experiment_id)
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (lock_key("experiment", release.plugin),))
        found = find(conn, experiment_id)
        if found is not None:
            if (found.plugin, found.challenger, found.form) == (release.plugin, release.release_id, form):
                return found
            raise _taken(found, release.plugin)
        live = _require_free(conn, release.plugin)
        challenger = stand(conn, release, actor=actor)
        conn.execute(
            "INSERT INTO estudio.experiments (experiment_id, plugin, form, champion, challenger, settings, started_by)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (
                *(experiment_id, release.plugin, form, live.release_id, challenger.release_id),
                *(Jsonb(settings.model_dump(mode="json")), actor),
            ),
        )
        return get(conn, experiment_id)


def require_startable(conn: psycopg.Connection, plugin: str, experiment_id: str, run_id: str) -> Experiment | None:
    """Refuse what `start` would refuse of any release that run `run_id` builds: before it is built.

    Returns:
        The experiment, where this run has started it before and it is under way; None where it is to be started.

    Raises:
        ExperimentEndedError: this run has started it before, and it is over.
        NothingLiveError, ReleaseError, ConfigurationError: as `start`.
    """
    _require_legal(experiment_id)
    found = find(conn, experiment_id)
    if found is None:
        _require_free(conn, plugin)
    elif found.plugin != plugin or get_release(conn, found.challenger).run_id != run_id:
        raise _taken(found, plugin)
    elif found.state == "ended":
        raise ExperimentEndedError(
            f"Experiment {experiment_id!r} of {plugin!r} has ended ({found.verdict}). Choose another name for a new "
            f"one; in Airflow, start a new run. See: estudio experiments show {experiment_id}"
        )
    return found


def _require_legal(experiment_id: str) -> None:
    if not LEGAL_ID.fullmatch(experiment_id):
        raise ConfigurationError(
            f"An experiment is named by 1 to 200 letters, digits and _.+:- ; given {experiment_id[:210]!r}."
        )


def _require_free(conn: psycopg.Connection, plugin: str) -> Release:
    """Return the live release of a plugin whose experiments have all ended."""
    other = under_way(conn, plugin)
    if other is not None:
        raise ReleaseError(
            f"Experiment {other.experiment_id!r} of {plugin!r} is under way ({other.state}), one at a time "
            f"can be. Wait for its verdict, or: estudio experiments stop {other.experiment_id}"
        )
    return require_live(conn, plugin)


def _taken(found: Experiment, plugin: str) -> ConfigurationError:
    # Whose it is says nothing to those who may see this plugin alone.
    own = f", of release {found.challenger}, {found.form}" if found.plugin == plugin else ""
    return ConfigurationError(f"There is an experiment {found.experiment_id!r} already{own}. Choose another name.")


def find(conn: psycopg.Connection, experiment_id: str) -> Experiment | None:
    """Return an experiment by its name; None where there is none."""
    found = _select(conn, "experiment_id = %s", (experiment_id,), 1)
    return found[0] if found else None


def get(conn: psycopg.Connection, experiment_id: str) -> Experiment:
    """Return an experiment by its name.

    Raises:
        ConfigurationError: there is none.
    """
    found = find(conn, experiment_id)
    if found is None:
        raise ConfigurationError(f"There is no experiment {experiment_id[:210]!r}. See: estudio experiments list")
    return found


def under_way(conn: psycopg.Connection, plugin: str) -> Experiment | None:
    """Return the experiment of a plugin that has not ended; None where there is none."""
    found = _select(conn, "plugin = %s AND state <> 'ended'", (plugin,), 1)
    return found[0] if found else None


def all_under_way(conn: psycopg.Connection) -> list[Experiment]:
    """Return the experiments that have not ended, of all plugins."""
    return _select(conn, "state <> 'ended'", (), 1_000)


def history(conn: psycopg.Connection, plugins: Sequence[str] | None = None, limit: int = 50) -> list[Experiment]:
    """Return the experiments of some plugins, or of all, the latest first."""
    named = None if plugins is None else list(plugins)
    return _select(conn, "%s::text[] IS NULL OR plugin = ANY(%s)", (named, named), limit)


def note(conn: psycopg.Connection, experiment: Experiment, standing: Standing) -> None:
    """Write down where a running experiment stands."""
    conn.execute(
        "UPDATE estudio.experiments SET standing = %s, looked_at = clock_timestamp()"
        " WHERE experiment_id = %s AND state = 'running'",
        (Jsonb(standing.model_dump(mode="json")), experiment.experiment_id),
    )


def decide(conn: psycopg.Connection, experiment: Experiment, verdict: Verdict, reason: str, actor: str) -> Experiment:
    """Close a running experiment by a verdict; one that is decided keeps its own."""
    conn.execute(
        "UPDATE estudio.experiments SET state = 'decided', verdict = %s, reason = %s, ended_by = %s,"
        " decided_at = clock_timestamp() WHERE experiment_id = %s AND state = 'running'",
        (verdict, reason, actor, experiment.experiment_id),
    )
    return get(conn, experiment.experiment_id)


def stop(conn: psycopg.Connection, experiment: Experiment, actor: str, reason: str = "") -> Experiment:
    """Have the champion alone answer again, whatever was found so far; one that has ended stays as it is."""
    conn.execute(
        "UPDATE estudio.experiments SET state = 'decided', verdict = 'stopped', reason = %s, ended_by = %s,"
        " decided_at = clock_timestamp() WHERE experiment_id = %s AND state <> 'ended'",
        (reason or f"Stopped by {actor}.", actor, experiment.experiment_id),
    )
    return get(conn, experiment.experiment_id)


def end(conn: psycopg.Connection, experiment: Experiment) -> Experiment:
    """Note that this verdict of a decided experiment is carried out, whoever stopped it meanwhile."""
    conn.execute(
        "UPDATE estudio.experiments SET state = 'ended', verdict = %s, reason = %s, ended_by = %s,"
        " ended_at = clock_timestamp() WHERE experiment_id = %s AND state = 'decided'",
        (experiment.verdict, experiment.reason, experiment.ended_by, experiment.experiment_id),
    )
    return get(conn, experiment.experiment_id)


def end_all(conn: psycopg.Connection, plugin: str, actor: str, reason: str) -> None:
    """End what is under way of a plugin that is no more."""
    conn.execute(
        "UPDATE estudio.experiments SET state = 'ended', verdict = COALESCE(verdict, 'stopped'), reason = %s,"
        " ended_by = %s, decided_at = COALESCE(decided_at, clock_timestamp()), ended_at = clock_timestamp()"
        " WHERE plugin = %s AND state <> 'ended'",
        (reason, actor, plugin),
    )


def _select(conn: psycopg.Connection, condition: LiteralString, values: Sequence[Any], limit: int) -> list[Experiment]:
    statement = sql.SQL(
        "SELECT {} FROM estudio.experiments WHERE {} ORDER BY started_at DESC, experiment_id LIMIT %s"
    ).format(sql.SQL(_COLUMNS), sql.SQL(condition))
    with conn.cursor(row_factory=class_row(Experiment)) as cursor:
        return cursor.execute(statement, (*values, limit)).fetchall()
