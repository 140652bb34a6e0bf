"""The moment in which a release becomes live."""

from __future__ import annotations

from typing import Any

from estudio_core import database
from estudio_core.pipeline.items.embed_writes import embed_writes
from estudio_core.pipeline.manifests import LiveManifest, VerifiedManifest
from estudio_core.pipeline.release.going_live import make_live
from estudio_core.plugin.registry import open_plugin
from estudio_core.promotion import ledger
from estudio_core.promotion.aliases import observe
from estudio_core.promotion.turns import one_at_a_time
from estudio_core.vectordb import releases, switching


def switch(plugin_name: str, verified: dict[str, Any]) -> LiveManifest:
    """Move the pointer to a verified release in one transaction, then the registry alias `champion` to its version.

    Raises:
        SupersededError: a later promotion has taken the place of this one; nothing was changed.
        ReleaseError: the release is not verified; nothing was changed.
        ConcurrentReleaseError: writers or another switch did not end in time; nothing was changed.
    """
    manifest = VerifiedManifest.model_validate(verified)
    with database.connect(autocommit=True) as connection, one_at_a_time(connection, plugin_name):
        release = releases.get_release(connection, manifest.release_id)
        promotion = ledger.request(
            connection, plugin_name, "manual", "estudio", release.model_version, run_id=release.run_id
        )
        observe(connection, open_plugin(plugin_name).experiments.registry)
        ledger.require_open(connection, promotion)
        return make_live(
            connection, promotion, lambda: switching.switch(connection, release, embed_writes(plugin_name))
        )
