"""Back to a release that was live before, in seconds."""

from __future__ import annotations

from typing import Any

from estudio_core import database
from estudio_core.pipeline.embed_writes import embed_writes
from estudio_core.pipeline.manifests import LiveManifest
from estudio_core.pipeline.switch import make_live
from estudio_core.plugin.contract import RollbackParams
from estudio_core.vectordb import deployments


def rollback(plugin_name: str, params: dict[str, Any]) -> LiveManifest:
    """Apply newer writes to the earlier collection, move the pointer back, and the alias `champion` with it.

    Raises:
        ReleaseError: there is nothing to go back to; nothing was changed.
    """
    from estudio_core.inference.opening import ensure_served

    wanted = RollbackParams.model_validate(params).target
    with database.connect(autocommit=True) as connection:
        database.ensure_schema(connection)
        if wanted == "previous":
            target = deployments.previous_release(connection, plugin_name)
        else:
            target = deployments.get_release(connection, int(wanted))
        if target is not None:
            ensure_served(target.model_name)
        return make_live(
            connection,
            plugin_name,
            lambda: deployments.rollback(connection, plugin_name, embed_writes(plugin_name), target),
        )
