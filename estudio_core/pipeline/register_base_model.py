"""The model that a plugin begins with, in the registry, and the request for its release."""

from __future__ import annotations

from estudio_core import database
from estudio_core.plugin.registry import open_plugin
from estudio_core.promotion import ledger


def register_base_model(plugin_name: str, run_id: str, actor: str) -> str:
    """Register the plugin's base model, ask for its release, and return its version; a rerun returns the same.

    Args:
        plugin_name: The plugin.
        run_id: The run, which carries out the release.
        actor: Who started it.

    Raises:
        SupersededError: this is a rerun, and something newer was asked for or went live since.
    """
    plugin = open_plugin(plugin_name)
    version = str(plugin.experiments.upload_initial_model(plugin.base_model()))
    with database.connect(autocommit=True) as connection:
        promotion = ledger.request(
            connection, plugin_name, "initialize", actor, version, run_id=run_id, reason="base model"
        )
        ledger.require_open(connection, promotion)
    return version
