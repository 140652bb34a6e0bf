"""The pointer moves: what `switch` and `rollback` do alike."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from estudio_core.experiments.model_registry import FAILURE_TAG
from estudio_core.pipeline.manifests import LiveManifest
from estudio_core.plugin.registry import open_plugin
from estudio_core.promotion import ledger
from estudio_core.vectordb import releases

if TYPE_CHECKING:
    import psycopg

logger = logging.getLogger(__name__)


def make_live(
    connection: psycopg.Connection, promotion: ledger.Promotion, move: Callable[[], releases.Release]
) -> LiveManifest:
    """Move the pointer with `move`, time it, let the alias `champion` name the version that serves, and say so.

    The pointer decides; the trail follows at once, the alias as soon as MLflow answers. What MLflow cannot be told is
    noted in the trail and mended by the watcher (`promotion.reconcile`). The caller holds `one_at_a_time`.
    """
    began = time.monotonic()
    live = move()
    took_ms = (time.monotonic() - began) * 1000
    numbers = {name: live.stats[name] for name in ("recall_at_10",) if name in live.stats}
    ledger.end(connection, promotion, "live", release_id=live.release_id, numbers=numbers)
    before = releases.previous_release(connection, promotion.plugin)
    try:
        note = _tell_mlflow(promotion, live, before, numbers)
    except Exception as error:  # the release serves: whatever keeps MLflow from knowing does not undo that
        note = f"MLflow does not say so yet, which the watcher mends: {error}"
    if note:
        logger.warning("Release %d of %s serves. %s", live.release_id, promotion.plugin, note)
        ledger.note(connection, promotion, note)
    return LiveManifest(
        release_id=live.release_id,
        previous_release_id=before.release_id if before else None,
        version=live.model_version,
        took_ms=round(took_ms, 1),
        note=note,
    )


def _tell_mlflow(
    promotion: ledger.Promotion, live: releases.Release, before: releases.Release | None, numbers: dict[str, float]
) -> str:
    """Let the aliases follow the pointer; return what they cannot say."""
    manager = open_plugin(promotion.plugin).experiments
    manager.promote(
        live.model_version,
        f"release {live.release_id} is live",
        promotion.actor,
        promotion.numbers | numbers,
        former=int(before.model_version) if before else None,
    )
    manager.registry.delete_tag(int(live.model_version), FAILURE_TAG)
    if int(live.model_version) in manager.registry.versions():
        return ""
    return f"Version {live.model_version} is not registered in MLflow any more, so that the alias champion names none."
