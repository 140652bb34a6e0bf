"""Whether an experiment can be started, known before its release is built."""

from __future__ import annotations

from typing import Any

from estudio_core.pipeline.challenging.starting import require_startable
from estudio_core.plugin.registry import open_plugin


def check_experiment(plugin_name: str, params: dict[str, Any], run_id: str) -> str:
    """Return the number of the version that is to be compared with what is live.

    A run that has started its experiment before goes on with the version that it compares, whatever an alias names now.

    Args:
        plugin_name: The plugin.
        params: As `ExperimentParams`.
        run_id: Names the release that is to be built.

    Raises:
        NothingLiveError: there is nothing to compare with.
        ExperimentEndedError: the run's experiment is over: run again, it starts nothing.
        ReleaseError: another experiment is under way.
        ConfigurationError: a parameter is not legal, there is no such version, or the name is another experiment's.
    """
    wanted, challenger = require_startable(plugin_name, params, run_id)
    if challenger is not None:
        return challenger.model_version
    return str(open_plugin(plugin_name).experiments.registry.resolve(wanted.version))
