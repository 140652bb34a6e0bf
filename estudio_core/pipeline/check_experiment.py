"""Whether an experiment can be started, known before its release is built."""

from __future__ import annotations

from typing import Any

from estudio_core.pipeline.challenging.starting import require_startable
from estudio_core.plugin.registry import open_plugin


def check_experiment(plugin_name: str, params: dict[str, Any], run_id: str) -> str:
    """Return the number of the version that is to be compared with what is live.

    Args:
        plugin_name: The plugin.
        params: As `ExperimentParams`.
        run_id: Names the release that is to be built.

    Raises:
        NothingLiveError: there is nothing to compare with.
        ReleaseError: another experiment is under way.
        ConfigurationError: a parameter is not legal, there is no such version, or the name is another experiment's.
    """
    wanted = require_startable(plugin_name, params, run_id)
    return str(open_plugin(plugin_name).experiments.registry.resolve(wanted.version))
