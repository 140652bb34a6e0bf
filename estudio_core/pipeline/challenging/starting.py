"""A verified release answers searches beside the live one: an experiment begins."""

from __future__ import annotations

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
from estudio_core.vectordb.releases import get_release


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
        return ledger.start(connection, release, wanted.name or run_id, actor, form=wanted.form, settings=settings)
