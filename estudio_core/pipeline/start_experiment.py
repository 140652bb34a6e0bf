"""A verified release answers searches beside the live one: an experiment begins."""

from __future__ import annotations

from typing import Any

from estudio_core.log_context import bind_release
from estudio_core.pipeline.challenging.starting import start
from estudio_core.pipeline.manifests import ExperimentManifest, VerifiedManifest


def start_experiment(
    plugin_name: str, verified: dict[str, Any], params: dict[str, Any], run_id: str, actor: str
) -> ExperimentManifest:
    """Let a verified release stand as challenger, and start its experiment; a rerun finds it.

    Args:
        plugin_name: The plugin.
        verified: What `verify` returned.
        params: As `ExperimentParams`.
        run_id: Names the experiment, where the parameters do not.
        actor: Who starts it.

    Raises:
        ReleaseError: the release is not verified any more, or another experiment is under way.
        ConfigurationError: the name is not legal, or names another experiment.
    """
    release_id = VerifiedManifest.model_validate(verified).release_id
    bind_release(release_id)
    found = start(plugin_name, release_id, params, run_id, actor)
    return ExperimentManifest(experiment_id=found.experiment_id, champion=found.champion, challenger=found.challenger)
