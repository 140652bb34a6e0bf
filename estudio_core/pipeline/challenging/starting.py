"""A verified release answers searches beside the live one: an experiment begins."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from estudio_core import database
from estudio_core.comparing import ledger
from estudio_core.comparing.ledger import Experiment
from estudio_core.comparing.settings import ExperimentSettings
from estudio_core.errors import ReleaseError
from estudio_core.pipeline.items.embed_writes import embed_writes
from estudio_core.plugin.registry import open_plugin
from estudio_core.plugin.run_params import ExperimentParams
from estudio_core.vectordb.catching_up import catch_up
from estudio_core.vectordb.releases import Release, get_release

_UNFIT = re.compile(r"[^A-Za-z0-9_.+:-]+")
_MOST_OF_RUN = 180
"""Letters of a run's id that stand in the name of an experiment called after it."""


def name_of(params: ExperimentParams, run_id: str) -> str:
    """Return the name of the experiment that a run starts: what its parameters say, or one made of the run's id.

    >>> name_of(ExperimentParams(), "manual__2026-01-01T00:00:00+00:00")
    'manual__2026-01-01T00:00:00+00:00'
    >>> name_of(ExperimentParams(), "~my run")
    'my-run-dd2cdbd6'
    """
    legal = _UNFIT.sub("-", run_id).lstrip("_.+:-")[:_MOST_OF_RUN] or "run"
    digest = "" if legal == run_id else f"-{hashlib.sha256(run_id.encode(errors='replace')).hexdigest()[:8]}"
    return params.name or f"{legal}{digest}"


def require_startable(plugin_name: str, params: dict[str, Any], run_id: str) -> tuple[ExperimentParams, Release | None]:
    """Refuse what `start` would refuse, before a release is built.

    Args:
        plugin_name: The plugin.
        params: As `ExperimentParams`.
        run_id: Names the release that is to be built, and the experiment, where the parameters do not.

    Returns:
        The parameters; and the challenger, where this run has started the experiment before.

    Raises:
        NothingLiveError: there is nothing to compare with.
        ExperimentEndedError: this run has started the experiment before, and it is over.
        ReleaseError: another experiment is under way.
        ConfigurationError: a parameter is not legal, or the name names another experiment.
    """
    wanted = ExperimentParams.model_validate(params)
    with database.connect() as connection:
        database.require_schema(connection)
        found = ledger.require_startable(connection, plugin_name, name_of(wanted, run_id), run_id)
        return wanted, None if found is None else get_release(connection, found.challenger)


def start(plugin_name: str, release_id: int, params: dict[str, Any], run_id: str, actor: str) -> Experiment:
    """Let a verified release stand as challenger, and start its experiment; a rerun finds it.

    What was written since the release was verified is applied first.

    Raises:
        ReleaseError: the release is not verified any more, or another experiment is under way.
        ConfigurationError: the name is not legal, or names another experiment.
    """
    from estudio_core.inference.opening import ensure_served

    wanted = ExperimentParams.model_validate(params)
    weights = open_plugin(plugin_name).converter.event_weights
    settings = ExperimentSettings.model_validate({**wanted.settings, "event_weights": weights})
    with database.connect(autocommit=True) as connection:
        database.require_schema(connection)
        release = get_release(connection, release_id)
        if release.plugin != plugin_name:
            raise ReleaseError(f"Release {release_id} is none of {plugin_name!r}. See: estudio releases")
        for name in release.models if release.state in ("verified", "challenger") else ():  # others may be gone
            ensure_served(name)
        if release.state == "verified":
            catch_up(connection, release, embed_writes(plugin_name))
        name = name_of(wanted, run_id)
        return ledger.start(connection, release, name, actor, form=wanted.form, settings=settings)
