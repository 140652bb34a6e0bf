"""A registered candidate is to go live: the gate has passed it, or a person has approved it."""

from __future__ import annotations

from typing import Any

from estudio_core import database
from estudio_core.pipeline.manifests import RegistrationManifest
from estudio_core.plugin.registry import open_plugin
from estudio_core.promotion import ledger
from estudio_core.vectordb.releases import require_live


def request_release(
    plugin_name: str, registered: dict[str, Any], release_run_id: str, way: ledger.Way, actor: str
) -> str:
    """Ask for the release of a registered candidate, which the run `release_run_id` carries out; return the version.

    Args:
        plugin_name: The plugin.
        registered: What `register` returned.
        release_run_id: Id that the run of `<plugin>__release` will have.
        way: `gate` or `approval`.
        actor: The run whose gate passed, or the person who approved.

    Raises:
        NothingLiveError: the plugin was removed while it trained.
    """
    wanted = RegistrationManifest.model_validate(registered)
    assert wanted.version is not None  # a dry run registers nothing and never comes here
    registry = open_plugin(plugin_name).experiments.registry
    with database.connect(autocommit=True) as connection:
        require_live(connection, plugin_name)
        promotion = ledger.request(
            connection,
            plugin_name,
            way,
            actor,
            wanted.version,
            run_id=release_run_id,
            reason=wanted.reason,
            numbers=registry.numbers_of(int(wanted.version)),
        )
    return promotion.to_version
