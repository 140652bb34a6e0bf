"""A registered version becomes a verified release beside the live one, in one process: what the DAG's tasks do."""

from __future__ import annotations

from estudio_core.pipeline.build_index import build_index
from estudio_core.pipeline.embed_shard import embed_shard
from estudio_core.pipeline.manifests import VerifiedManifest
from estudio_core.pipeline.publish_model import publish_model
from estudio_core.pipeline.start_collection import start_collection
from estudio_core.pipeline.verify import verify


def build_challenger(
    plugin_name: str, version: str, run_id: str, shards: int = 1, words_weight: float | None = None
) -> VerifiedManifest:
    """Build and verify a release of `version`; nothing is switched. Called again, it finishes what is left.

    Args:
        plugin_name: The plugin.
        version: Number or alias.
        run_id: Names the release.
        shards: Pieces in which items are embedded.
        words_weight: As of `start_collection`: with the version that is live, nothing is embedded.

    Raises:
        As the steps do.
    """
    entry = publish_model(plugin_name, version)
    opened = start_collection(plugin_name, entry.as_dict(), shards, run_id, words_weight=words_weight)
    loaded = [embed_shard(plugin_name, shard.as_dict()).as_dict() for shard in opened]
    built = build_index(plugin_name, loaded).as_dict() if loaded else None
    return verify(plugin_name, built, run_id)
