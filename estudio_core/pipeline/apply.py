"""What `adjust` has decided is done."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from estudio_core import database
from estudio_core.artifacts import ArtifactStore
from estudio_core.improvement import ledger
from estudio_core.pipeline.improvement.moved_vectors import read_moved
from estudio_core.pipeline.manifests import ImprovementManifest
from estudio_core.vectordb.releases import get_release


def apply(plugin_name: str, run_id: str, adjusted: dict[str, Any]) -> str:
    """Do what was decided: write the moved vectors, leave all as it is, or take back what was moved. Return the reason.

    Vectors and decision are one transaction; repeating it changes nothing.

    Raises:
        ReleaseError: another release is live by now.
    """
    manifest = ImprovementManifest.model_validate(adjusted)
    with database.connect() as connection:
        release = get_release(connection, manifest.release_id)
        if any(done.run_id == run_id for done in ledger.history(connection, plugin_name)):
            return manifest.reason
        objects = 0
        ledger.drop_stale(connection, release)
        if manifest.state == "applied":
            with ArtifactStore().fetch(manifest.uri) as folder:
                objects = ledger.apply(connection, release, read_moved(folder))
        elif manifest.state == "off":
            objects = ledger.take_back(connection, release)
        numbers = {name: getattr(manifest, name) for name in ("base", "gain", "gain_low", "gain_high")}
        until = datetime.fromisoformat(manifest.until)
        ledger.record(connection, release, run_id, manifest.state, until, objects, numbers, manifest.reason)
        connection.commit()
    return manifest.reason
