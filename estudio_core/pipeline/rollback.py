"""Back to a release that was live before, in seconds."""

from __future__ import annotations

from typing import Any

from estudio_core import database
from estudio_core.errors import ReleaseError
from estudio_core.log_context import bind_release
from estudio_core.pipeline.items.embed_writes import embed_writes
from estudio_core.pipeline.manifests import LiveManifest
from estudio_core.pipeline.release.going_live import make_live
from estudio_core.plugin.run_params import RollbackParams
from estudio_core.promotion import ledger
from estudio_core.promotion.turns import one_at_a_time
from estudio_core.vectordb import releases, switching


def rollback(plugin_name: str, params: dict[str, Any], run_id: str, actor: str) -> LiveManifest:
    """Apply newer writes to the earlier collection, move the pointer back, and the alias `champion` with it.

    A release that is being built is called off: who rolls back wants what was, not what comes next. The same run again
    leads to the same release, and does nothing once something newer went live.

    Args:
        plugin_name: The plugin.
        params: As `RollbackParams`.
        run_id: Id of the run, or any text of its own for one outside of Airflow.
        actor: Who wants it.

    Raises:
        SupersededError: this is a rerun, and something newer was asked for or went live since; nothing was changed.
        ReleaseError: there is nothing to go back to; nothing was changed.
    """
    from estudio_core.inference.opening import ensure_served

    wanted = RollbackParams.model_validate(params).target
    with database.connect(autocommit=True) as connection, one_at_a_time(connection, plugin_name):
        database.require_schema(connection)
        done = ledger.of_run(connection, plugin_name, run_id)
        if done is not None:
            ledger.require_open(connection, done)
        target: releases.Release | None
        if done is not None and done.release_id is not None:  # a killed attempt has chosen already
            target = releases.get_release(connection, done.release_id)
        elif wanted == "previous":
            target = releases.previous_release(connection, plugin_name)
        else:
            target = releases.get_release(connection, int(wanted))
        if target is None or target.plugin != plugin_name or target.state not in {"live", "previous"}:
            raise ReleaseError(
                f"Plugin {plugin_name!r} has no such release to go back to: {wanted!r} names "
                f"{'none' if target is None else f'one of {target.plugin!r} that is {target.state}'}. "
                "See: estudio releases"
            )
        bind_release(target.release_id)
        for name in target.models:
            ensure_served(name)
        promotion = ledger.request(
            connection,
            plugin_name,
            "rollback",
            actor,
            target.model_version,
            run_id=run_id,
            release_id=target.release_id,
        )
        return make_live(
            connection,
            promotion,
            lambda: switching.rollback(connection, plugin_name, embed_writes(plugin_name), target),
        )
