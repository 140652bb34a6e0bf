"""Back to a release that was live before, in seconds."""

from __future__ import annotations

import time
from typing import Any

from estudio_core import database
from estudio_core.pipeline.embed import embed_writes
from estudio_core.pipeline.manifests import LiveManifest
from estudio_core.pipeline.switch import follow_with_alias
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
        began = time.monotonic()
        live = deployments.rollback(connection, plugin_name, embed_writes(plugin_name), target)
        took_ms = (time.monotonic() - began) * 1000
        before = deployments.previous_release(connection, plugin_name)
    follow_with_alias(plugin_name, live, f"rolled back to release {live.release_id}")
    return LiveManifest(
        release_id=live.release_id,
        previous_release_id=before.release_id if before else None,
        version=live.model_version,
        took_ms=round(took_ms, 1),
    )
