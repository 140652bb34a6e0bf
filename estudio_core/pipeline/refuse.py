"""A registered candidate is not to go live: a person has refused it."""

from __future__ import annotations

from typing import Any

from estudio_core import database
from estudio_core.pipeline.manifests import RegistrationManifest
from estudio_core.plugin.registry import open_plugin
from estudio_core.promotion import ledger


def refuse(plugin_name: str, registered: dict[str, Any], release_run_id: str, actor: str) -> str:
    """Write down that a person refused a candidate, in the audit trail and on the model version; return the reason."""
    wanted = RegistrationManifest.model_validate(registered)
    assert wanted.version is not None
    reason = f"Refused by {actor}."
    registry = open_plugin(plugin_name).experiments.registry
    with database.connect(autocommit=True) as connection:
        ledger.refuse(
            connection,
            plugin_name,
            actor,
            wanted.version,
            run_id=release_run_id,
            reason=reason,
            numbers=registry.numbers_of(int(wanted.version)),
        )
    registry.set_tags(int(wanted.version), {"estudio.approval": reason})
    return reason
